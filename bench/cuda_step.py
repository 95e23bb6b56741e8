"""Time of one optimizer step on a GPU against torch's implementations and the device's copy bandwidth.

    python bench/cuda_step.py --json cuda.json       about three minutes on an H100
    python bench/cuda_step.py --quick                small tensors; a smoke test, not figures

Kernel times are CUDA events around a run of steps, contenders taking turns; "wall" is the host's time for a step that
is waited for. "copy" is a device-to-device copy of a gigabyte: bytes read and written per second are the limit. All
contenders of a case update the same tensors. One step is compared with torch's before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import fusedstep
import fusedstep.torch as fs


def gpt(layers: int, width: int, tokens: int = 50257, positions: int = 1024) -> list[tuple[int, ...]]:
    """Shapes of a GPT-2 (openai-community/gpt2*, config.json)."""
    block = [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,), (width,), (width,)]
    block += [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(tokens, width), (positions, width), (width,), (width,), *block * layers]


SHAPES = {"GPT-1B": gpt(32, 1600), "GPT-2": gpt(12, 768), "300x1000": [(1000,)] * 300, "1000x1000": [(1000,)] * 1000}
QUICK = {"GPT-1B": gpt(2, 256), "GPT-2": gpt(2, 128), "300x1000": [(1000,)] * 300, "1000x1000": [(1000,)] * 1000}
RULES: dict[str, tuple[str, dict[str, Any], int]] = {  # class, options, bytes read and written per element
    "AdamW": ("AdamW", {}, 28),
    "RMSprop centered momentum": ("RMSprop", {"lr": 1e-4, "centered": True, "momentum": 0.9}, 36),
    "SGD momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}, 20),
}
CASES = [
    ("AdamW", "GPT-1B", False),
    ("AdamW", "GPT-1B", True),
    ("RMSprop centered momentum", "GPT-1B", False),
    ("RMSprop centered momentum", "GPT-1B", True),
    ("SGD momentum", "GPT-1B", False),
    ("AdamW", "GPT-2", False),
    ("AdamW", "GPT-2", True),
    ("AdamW", "300x1000", False),
    ("AdamW", "300x1000", True),
    ("AdamW", "1000x1000", False),
]


def make_params(shapes: list[tuple[int, ...]]) -> list[torch.nn.Parameter]:
    generator = torch.Generator(device="cuda").manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, device="cuda", generator=generator)) for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, device="cuda", generator=generator) * 1e-3
    return params


def contenders(rule: str, params: list[torch.nn.Parameter], clip: bool) -> dict[str, Callable[[], Any]]:
    name, options, _ = RULES[rule]
    ours = getattr(fs, name)(params, **options, max_norm=1.0 if clip else None)
    ours.step()
    out: dict[str, Callable[[], Any]] = {"fusedstep": ours.step}
    for kind in ("foreach", "fused"):
        if kind == "fused" and name == "RMSprop":
            continue  # torch has none
        theirs = getattr(torch.optim, name)(params, **options, **{kind: True})
        # The same state for all; torch's fused step wants its counts on the device.
        theirs.state = type(ours.state)(
            ours.state.default_factory,
            {
                p: {
                    k: v.cuda() if k == "step" and kind == "fused" else v.clone() if k == "step" else v
                    for k, v in s.items()
                }
                for p, s in ours.state.items()
            },
        )

        def step(theirs: torch.optim.Optimizer = theirs) -> None:
            if clip:
                torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
            theirs.step()

        out[kind] = step
    return out


def check(rule: str, clip: bool) -> None:
    name, options, _ = RULES[rule]
    a, b = make_params([(1000, 50), (17,)]), make_params([(1000, 50), (17,)])
    if clip:  # their norm is 0.22
        torch.nn.utils.clip_grad_norm_(b, 0.1)
    getattr(fs, name)(a, **options, max_norm=0.1 if clip else None).step()
    getattr(torch.optim, name)(b, **options, foreach=False).step()
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def kernel_times(entries: dict[str, Callable[[], Any]], rounds: int, inner: int) -> dict[str, list[float]]:
    """Seconds per step on the device: events around ``inner`` steps, queued while the device sleeps.

    Where a step takes the host longer than the device, that is what shows: small tensors.
    """
    samples: dict[str, list[float]] = {name: [] for name in entries}
    for name, step in [*entries.items()] * (rounds + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(4_000_000)  # about 2 ms, for the host to get ahead
        start.record()
        for _ in range(inner):
            step()
        end.record()
        end.synchronize()
        samples[name].append(start.elapsed_time(end) / 1e3 / inner)
    return {name: times[1:] for name, times in samples.items()}  # without the first, which warms up


def wall_times(entries: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in entries}
    for name, step in [*entries.items()] * (rounds + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        samples[name].append(time.perf_counter() - start)
    return {name: times[3:] for name, times in samples.items()}


def copy_bandwidth(megabytes: int) -> float:
    """Bytes read and written per second by a device-to-device copy."""
    a = torch.empty(megabytes * 2**20, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    times = kernel_times({"copy": lambda: b.copy_(a)}, rounds=10, inner=5)["copy"]
    return 2 * a.numel() / median(times)


def launches(rule: str, shapes: list[tuple[int, ...]], clip: bool) -> list[str]:
    """Names of what one step runs on the device."""
    step = contenders(rule, make_params(shapes), clip)["fusedstep"]
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        step()
        torch.cuda.synchronize()
    events = [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return [name for name in events if not name.startswith(("Optimizer.", "ProfilerStep"))]


def graph_replay(shapes: list[tuple[int, ...]], rounds: int) -> dict[str, list[float]]:
    """Seconds per replay of a captured AdamW step, 50 queued at a time, and waited for one by one."""
    params = make_params(shapes)
    opt = fs.AdamW(params, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        opt.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.step()
    queued = kernel_times({"replay": graph.replay}, rounds, inner=50)["replay"]
    return {"queued": queued, "waited for": wall_times({"replay": graph.replay}, rounds)["replay"]}


def show(report: dict[str, Any], console: Console) -> None:
    table = Table(title=f"One step on {report['device']}, microseconds (median); x: times fusedstep's time")
    for column in (
        "case",
        "fusedstep",
        "of copy",
        "torch fused",
        "torch foreach",
        "wall",
        "wall fused",
        "wall foreach",
    ):
        table.add_column(column, justify="left" if column == "case" else "right")
    for r in report["results"]:
        kernel, wall = ({k: median(v) * 1e6 for k, v in r[part].items()} for part in ("kernel", "wall"))

        def ratio(times: dict[str, float], other: str) -> str:
            return f"{times[other]:.0f} ({times[other] / times['fusedstep']:.2f}x)" if other in times else "-"

        share = r["bytes"] / (kernel["fusedstep"] / 1e6) / report["copy_bytes_per_second"]
        table.add_row(
            f"{r['rule']}, {r['shapes']}{' + clip' if r['clip'] else ''}",
            f"{kernel['fusedstep']:.0f}",
            f"{share:.2f}",
            ratio(kernel, "fused"),
            ratio(kernel, "foreach"),
            f"{wall['fusedstep']:.0f}",
            ratio(wall, "fused"),
            ratio(wall, "foreach"),
        )
    console.print(table)
    console.print(f"copy: {report['copy_bytes_per_second'] / 1e9:.0f} GB/s read and written")
    for kind, times in report["graph_replay"].items():
        console.print(f"graph replay, AdamW 300x1000, {kind}: {median(times) * 1e6:.1f} us")
    for case, names in report["launches"].items():
        console.print(f"launches, {case}: {len(names)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small tensors, few rounds")
    parser.add_argument("--json", type=Path, help="write raw samples, device and versions here")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    console = Console(width=150 if not sys.stdout.isatty() else None)
    shapes, rounds = (QUICK, 3) if args.quick else (SHAPES, 20)
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "versions": {
            "fusedstep": fusedstep.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": sys.version.split()[0],
        },
        "command": "python bench/cuda_step.py " + " ".join(sys.argv[1:]),
        "copy_bytes_per_second": copy_bandwidth(64 if args.quick else 1024),
        "results": [],
    }
    for rule, name, clip in CASES:
        check(rule, clip)
        params = make_params(shapes[name])
        entries = contenders(rule, params, clip)
        elements = sum(p.numel() for p in params)
        report["results"].append(
            {
                "rule": rule,
                "shapes": name,
                "clip": clip,
                "elements": elements,
                "bytes": elements * (RULES[rule][2] + (4 if clip else 0)),
                "kernel": kernel_times(entries, rounds, inner=3 if elements > 10**7 else 20),
                "wall": wall_times(entries, rounds),
            }
        )
        del params, entries
        torch.cuda.empty_cache()
    report["graph_replay"] = graph_replay(shapes["300x1000"], rounds)
    report["launches"] = {
        f"AdamW, 1000x1000{' + clip' if clip else ''}": launches("AdamW", shapes["1000x1000"], clip)
        for clip in (False, True)
    }
    show(report, console)
    if args.json:
        args.json.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
