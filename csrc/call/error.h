// What is thrown for an argument that is of the wrong kind; std::invalid_argument for one of a wrong value.
#pragma once
#include <stdexcept>

namespace fusedstep {

struct TypeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

}  // namespace fusedstep
