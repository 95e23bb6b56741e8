"""How much of the way that an optimizer goes is left in parameters that are stored in 16 bits, without a master copy.

20,000 weights N(0, 0.05²), as of a trained model, take 3,000 updates of the size of Adam's: to each weight belongs a
direction, in which it drifts by 0.1 lr a step, with noise of 0.3 lr. The way is what the updates sum up to in float64.
The rule is SGD with a learning rate of 1, so that a gradient of float32 is the update itself; what the parameter's
format rounds away is the only loss.

Prints for each dtype the share of the way that the parameters have gone, and the error relative to the way.

Example:
  python examples/displacement.py
"""

from __future__ import annotations

import argparse

import torch

import fusedstep.torch

RATES = (1e-3, 1e-4, 1e-5, 1e-6)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def gone(dtype: torch.dtype, lr: float, count: int, steps: int) -> tuple[float, float]:
    """The share of the way, and the error relative to the way."""
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter((0.05 * torch.randn(count, generator=generator)).to(dtype))
    start, way = parameter.detach().double(), torch.zeros(count, dtype=torch.float64)
    drift = 0.1 * torch.randn(count, generator=generator).sign()
    # The gradient has another dtype than the parameter; where it lies is up to grad_attr.
    optimizer = fusedstep.torch.SGD([parameter], lr=1.0, grad_attr="main_grad")
    for _ in range(steps):
        update = lr * (drift + 0.3 * torch.randn(count, generator=generator))
        parameter.main_grad = -update
        optimizer.step()
        way += update
    moved = parameter.detach().double() - start
    return float(moved @ way / (way @ way)), float((moved - way).norm() / way.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="of weights, default: %(default)s")
    parser.add_argument("--steps", type=int, default=3000, help="default: %(default)s")
    args = parser.parse_args()
    names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    print("\n".join([f"| lr | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]))
    for lr in RATES:
        cells = ["{:.3f} / {:.2f}".format(*gone(dtype, lr, args.count, args.steps)) for dtype in DTYPES]
        print(f"| {lr:.0e} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
