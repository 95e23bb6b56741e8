"""``python -m fusedstep``: what is installed and what would run."""

from __future__ import annotations

import fusedstep
from fusedstep import _core


def main() -> None:
    active = fusedstep.active_target()
    targets = ", ".join(f"{t} (active)" if t == active else t for t in fusedstep.targets())
    for name, value in (
        ("fusedstep", fusedstep.__version__),
        ("compiler", _core.compiler),
        ("targets", targets),
        ("threads", f"{fusedstep.num_threads()} ({_core.thread_backend()})"),
        ("CUDA", f"{_core.cuda}, {_core.cuda_devices()} devices" if _core.cuda else "not built"),
    ):
        print(f"{name:<10} {value}")


if __name__ == "__main__":
    main()
