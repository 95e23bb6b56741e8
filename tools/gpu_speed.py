"""How fast is it on a GPU, and on the cores beside it? ``bench/compare.py`` on the device, and on 1 to 16 threads.

    python tools/gpu_speed.py                          all cases; where six minutes are too few, call it again
    python tools/gpu_speed.py --cases quick threads-16 some
    python tools/gpu_speed.py --list

Needs the package built with CUDA, torch with CUDA, scipy and rich, no network. Every case writes a result that
``bench/plot.py`` and ``bench/compare.py --load`` read. A second call goes on with the cases that have no result yet.
What a case had when its time was up is in a file that ends in ``.part``.
"""

from __future__ import annotations

from gpu_run import ROOT, Case, main, python

THREADS = (1, 2, 4, 8, 16)
PEERS = ("torch default", "torch fused")
LARGE = ("--rules", "SGD momentum", "AdamW", "--shapes", "gpt2", "resnet50", "lora", "--budget", "60")
EVERY = ("--shapes", "32M", "300x1000", "sb3", "--clip", "off", "--peers", "fusedstep graph", *PEERS, "--budget", "60")
CORES = ("--rules", "SGD momentum", "AdamW", "--shapes", "32M", "300x1000", "--peers", *PEERS, "--budget", "20")


def compare(name: str, about: str, *options: str, limit: float) -> Case:
    return Case(name, about, python("bench/compare.py", *options, "--json", f"{{out}}/{name}.json"), limit)


CASES = [
    compare("quick", "GPU: the common rules, all peers", "--quick", "--devices", "cuda", "--budget", "60", limit=100.0),
    compare("rules", "GPU: every rule, against torch", "--devices", "cuda", *EVERY, limit=100.0),
    *(
        compare(f"threads-{n}", f"CPU, {n} threads, against torch", *CORES, "--devices", "cpu", "--threads", f"{n}",
                limit=40.0)
        for n in THREADS
    ),
    compare("models", "GPU: real models, all peers", "--devices", "cuda", *LARGE, limit=100.0),
]  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(main(__doc__, CASES, ROOT / "build/gpu-speed"))
