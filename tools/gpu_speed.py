"""How fast is it on a GPU, and on the cores beside it? ``bench/compare.py`` on the device, and on 1 to 16 threads.

    python tools/gpu_speed.py                          all cases, under six minutes
    python tools/gpu_speed.py --cases quick threads-16 some
    python tools/gpu_speed.py --list

Needs the package built with CUDA, torch with CUDA, scipy and rich, no network. Every case writes a result that
``bench/plot.py`` and ``bench/compare.py --load`` read. A second call goes on with the cases that have no result yet.
What a case had when its time was up is in a file that ends in ``.part``.
"""

from __future__ import annotations

from gpu_run import ROOT, Case, main, python

THREADS = (1, 2, 4, 8, 16)
# Four cases: a billion elements each, parameter and state in 32 and in 16 bits.
LOW = ("--rules", "AdamW", "--shapes", "1x1000000000", "--dtypes", "float32", "bfloat16", "--states", "float32")
LOW += ("bfloat16", "--clip", "off", "--peers", "torch fused")
LARGE = ("--rules", "SGD momentum", "AdamW", "--shapes", "gpt2", "resnet50", "lora")
EVERY = ("--shapes", "32M", "300x1000", "sb3", "--clip", "off", "--peers", "fusedstep graph", "torch default")
# Two cases, each of which gets a quarter of the budget: five steps on one thread take 1.3 s.
CORES = ("--rules", "AdamW", "--shapes", "32M", "300x1000", "--clip", "on", "--peers", "torch fused")


def compare(name: str, about: str, budget: int, *options: str) -> Case:
    command = python("bench/compare.py", *options, "--budget", f"{budget}", "--json", f"{{out}}/{name}.json")
    return Case(name, about, command, budget + 25.0)  # imports, and what the last case takes longer


CASES = [
    compare("16bit", "GPU: AdamW in bfloat16 and float32, against torch", 35, *LOW, "--devices", "cuda"),
    compare("quick", "GPU: the common rules, all peers", 45, "--quick", "--devices", "cuda"),
    compare("rules", "GPU: every rule, against torch", 60, *EVERY, "torch fused", "--devices", "cuda"),
    *(
        compare(f"threads-{n}", f"CPU, {n} threads, against torch", 12, *CORES, "--devices", "cpu", "--threads", f"{n}")
        for n in THREADS
    ),
    compare("models", "GPU: real models, all peers", 40, "--devices", "cuda", *LARGE),
]

if __name__ == "__main__":
    raise SystemExit(main(__doc__, CASES, ROOT / "build/gpu-speed"))
