"""The tests of fusedstep. ``README.md`` says where what is."""
