"""Steps of which every allocation of the core fails once; run by test_out_of_memory.py with fail_new.cpp preloaded.

    python steps.py CASE once|onwards|repeated

Each failure has a child of fork of its own, so that nothing the core keeps from an earlier call is there: "once" only
that allocation fails, "onwards" all that follow it too. "repeated": all in one process, one after the other. Prints a
JSON list of what is wrong, and how many allocations there were.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import fusedstep
import fusedstep.numpy
from fusedstep import _core, functional, reference

SIZES = [7, 1000, 3]
DIED = "died"


def draw(sizes: list[int] = SIZES, dtype: type = np.float32, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(dtype) for n in sizes]


def strided(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Every second element of larger arrays."""
    out = []
    for a in arrays:
        big = np.full(2 * a.size, -7, a.dtype)
        big[::2] = a
        out.append(big[::2])
    return out


class Case:
    """One step. Arrays by their names in ``now()``, and what they are to be after it in ``after()``."""

    threads: int | None = None  # that the core is to run on

    def step(self) -> Any:
        raise NotImplementedError

    def now(self) -> dict[str, Any]:
        raise NotImplementedError

    def after(self) -> dict[str, Any]:
        raise NotImplementedError

    def held(self) -> list[Any]:
        """Objects that a failed step must not keep."""
        return []


HYPER: dict[str, dict[str, float]] = {
    "AdamW": {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    "NAdam": {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "momentum_decay": 4e-3},
    "SGD": {"lr": 0.01, "momentum": 0.9, "dampening": 0.0, "nesterov": False},
}
STATES = {
    "AdamW": ["exp_avg", "exp_avg_sq"],
    "NAdam": ["exp_avg", "exp_avg_sq", "mu_product"],
    "SGD": ["momentum_buffer"],
}
OPTIONS: dict[str, dict[str, float]] = {
    "AdamW": {"lr": 0.01},
    "NAdam": {"lr": 0.01},
    "SGD": {"lr": 0.01, "momentum": 0.9},
}


def specified(cls: str, t: int, before: dict[str, Any], max_norm: float | None) -> dict[str, Any]:
    """What a step makes of the arrays of ``now()``, by the specification."""
    count = sum(name.startswith("grad") for name in before)
    grads = [before[f"grad {k}"] for k in range(count)]
    out = dict(before)
    coef = 1.0
    if max_norm is not None:
        norm = reference.total_norm(grads)
        coef = reference.clip_coefficient(norm, max_norm)
    for k in range(count):
        arrays = [before.get(f"{name} {k}") for name in STATES[cls]]
        if any(a is None for a in arrays):  # of a first step
            p = before[f"param {k}"]
            arrays = [np.array(1, np.float32) if n == "mu_product" else np.zeros_like(p) for n in STATES[cls]]
        hyper = {**HYPER[cls], **({"decoupled": True} if cls == "AdamW" else {})}
        result = getattr(reference, cls.lower())(
            before[f"param {k}"], grads[k], *arrays, step=t, clip_coef=coef, **hyper
        )
        for name, value in zip(["param", *STATES[cls]], result, strict=True):
            out[f"{name} {k}"] = value
    return out


class Training(Case):
    """An optimizer of one of the faces after some steps, before the one that is watched."""

    params: list[Any]
    opt: Any

    def __init__(
        self,
        cls: str,
        steps: int = 0,
        max_norm: float | None = None,
        layout: Callable[[list[np.ndarray]], list[np.ndarray]] = list,
        nonfinite: str = "propagate",
        value: float | None = None,
        sizes: list[int] = SIZES,
        threads: int | None = None,
    ) -> None:
        self.cls, self.steps, self.max_norm, self.threads = cls, steps, max_norm, threads
        fusedstep.set_num_threads(threads)
        options = {"max_norm": max_norm, "nonfinite": nonfinite, **OPTIONS[cls]}
        self.make(layout(draw(sizes)), layout(draw(sizes, seed=1)), options)
        for _ in range(steps):
            self.step()
        self.skips = value is not None
        if value is not None:
            self.gradients()[1][5] = value

    def make(self, params: list[np.ndarray], grads: list[np.ndarray], options: dict[str, Any]) -> None:
        """Sets ``params`` and ``opt``."""
        raise NotImplementedError

    def gradients(self) -> list[Any]:
        raise NotImplementedError

    def counted(self, k: int, now: dict[str, Any]) -> dict[str, Any]:
        """What counts a step of parameter ``k``, after it."""
        raise NotImplementedError

    def after(self) -> dict[str, Any]:
        now = self.now()
        if self.skips:
            return {**now, "counts": np.array([0, 1])}
        out = specified(self.cls, self.steps + 1, now, self.max_norm)
        for k in range(len(self.params)):
            out |= self.counted(k, now)
        if self.max_norm is not None:
            out["counts"] = now["counts"] + np.array([1, 0])
        return out

    def held(self) -> list[Any]:
        return [*self.params, *self.gradients()]


class Numpy(Training):
    def make(self, params: list[np.ndarray], grads: list[np.ndarray], options: dict[str, Any]) -> None:
        self.params, self.grads = params, grads
        self.opt = getattr(fusedstep.numpy, self.cls)(params, **options)

    def gradients(self) -> list[Any]:
        return self.grads

    def step(self) -> Any:
        return self.opt.step(self.grads)

    def now(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for k, (p, g, state) in enumerate(zip(self.params, self.grads, self.opt.state, strict=True)):
            out |= {f"param {k}": p.copy(), f"grad {k}": g.copy()}
            out |= {f"{name} {k}": np.array(x) for name, x in state.items()}
        out["counts"] = np.array([self.opt.clipped_steps, self.opt.skipped_steps])
        return out

    def counted(self, k: int, now: dict[str, Any]) -> dict[str, Any]:
        return {f"step {k}": np.array(self.steps + 1)}


class Functional(Case):
    def __init__(self, sizes: list[int] = SIZES, threads: int | None = None, **options: Any) -> None:
        self.threads, self.options = threads, options
        fusedstep.set_num_threads(threads)
        self.arrays = [draw(sizes), draw(sizes, seed=1), draw(sizes, seed=2), [np.abs(x) for x in draw(sizes, seed=3)]]

    def step(self) -> Any:
        return functional.adamw(*self.arrays, step=3, lr=0.01, **self.options)

    def now(self) -> dict[str, Any]:
        names = ("param", "grad", "exp_avg", "exp_avg_sq")
        return {f"{name} {k}": x.copy() for name, xs in zip(names, self.arrays, strict=True) for k, x in enumerate(xs)}

    def after(self) -> dict[str, Any]:
        return specified("AdamW", 3, self.now(), self.options.get("max_norm"))

    def held(self) -> list[Any]:
        return [x for xs in self.arrays for x in xs]


class Clip(Functional):
    def step(self) -> Any:
        return functional.clip_grad_norm(self.arrays[1], 0.5)

    def after(self) -> dict[str, Any]:
        out = self.now()
        coef = reference.clip_coefficient(reference.total_norm(self.arrays[1]), 0.5)
        for k, g in enumerate(self.arrays[1]):
            (out[f"grad {k}"],) = reference.clip(g, clip_coef=coef)
        return out


class Torch(Training):
    def make(self, params: list[np.ndarray], grads: list[np.ndarray], options: dict[str, Any]) -> None:
        import torch

        import fusedstep.torch

        self.params = [torch.from_numpy(x).requires_grad_() for x in params]
        for p, g in zip(self.params, grads, strict=True):
            p.grad = torch.from_numpy(g)
        self.opt = getattr(fusedstep.torch, self.cls)(self.params, **options)

    def gradients(self) -> list[Any]:
        return [p.grad for p in self.params]

    def step(self) -> Any:
        return self.opt.step()

    def now(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for k, p in enumerate(self.params):
            out |= {f"param {k}": p.detach().numpy().copy(), f"grad {k}": p.grad.numpy().copy()}
            out |= {f"{name} {k}": x.numpy().copy() for name, x in self.opt.state.get(p, {}).items()}
            out[f"version {k}"] = np.array(p._version)
        out["counts"] = np.array([int(self.opt.clipped_steps), int(self.opt.skipped_steps)])
        return out

    def counted(self, k: int, now: dict[str, Any]) -> dict[str, Any]:
        count = {} if self.cls == "SGD" else {f"step {k}": np.array(self.steps + 1, np.float32)}
        return {**count, f"version {k}": now[f"version {k}"] + 1}


class TorchClip(Torch):
    def step(self) -> Any:
        import fusedstep.torch

        return fusedstep.torch.clip_grad_norm_(self.params, 0.5)

    def after(self) -> dict[str, Any]:
        out = self.now()
        grads = [p.grad.numpy() for p in self.params]
        coef = reference.clip_coefficient(reference.total_norm(grads), 0.5)
        for k, g in enumerate(grads):
            (out[f"grad {k}"],) = reference.clip(g, clip_coef=coef)
        return out


POOL = [600_000, 5]  # enough elements for threads of the core's own, which a child of fork has none of yet
CASES: dict[str, Callable[[], Case]] = {
    "functional AdamW": Functional,
    "functional AdamW, max_norm": lambda: Functional(max_norm=0.5),
    "functional AdamW, per_tensor": lambda: Functional(max_norm=1e9, per_tensor=True),
    "functional AdamW, order 3": lambda: Functional(max_norm=1e9, norm_type=3.0),
    "functional AdamW, pool": lambda: Functional(POOL, 3),
    "functional AdamW, pool, max_norm": lambda: Functional(POOL, 3, max_norm=0.5),
    "functional clip_grad_norm": Clip,
}
for face, kind in (("numpy", Numpy), ("torch", Torch)):
    CASES |= {
        f"{face} AdamW, first": lambda kind=kind: kind("AdamW"),
        f"{face} AdamW": lambda kind=kind: kind("AdamW", 2),
        f"{face} AdamW, first, max_norm": lambda kind=kind: kind("AdamW", max_norm=0.5),
        f"{face} AdamW, max_norm": lambda kind=kind: kind("AdamW", 2, 0.5),
        f"{face} AdamW, strided": lambda kind=kind: kind("AdamW", 2, layout=strided),
        f"{face} AdamW, strided, max_norm": lambda kind=kind: kind("AdamW", 2, 0.5, strided),
        f"{face} NAdam, first": lambda kind=kind: kind("NAdam"),
        f"{face} NAdam": lambda kind=kind: kind("NAdam", 2),
        f"{face} SGD, first": lambda kind=kind: kind("SGD"),
        f"{face} SGD": lambda kind=kind: kind("SGD", 2),
        f"{face} SGD, skip": lambda kind=kind: kind("SGD", 0, 0.5, nonfinite="skip", value=np.nan),
        f"{face} SGD, first, pool": lambda kind=kind: kind("SGD", sizes=POOL, threads=3),
        f"{face} SGD, first, pool, max_norm": lambda kind=kind: kind("SGD", 0, 0.5, sizes=POOL, threads=3),
        f"{face} AdamW, skip": lambda kind=kind: kind("AdamW", 0, 0.5, nonfinite="skip", value=np.inf),
    }
CASES["torch clip_grad_norm_"] = lambda: TorchClip("AdamW")


def differences(got: dict[str, Any], want: dict[str, Any]) -> list[str]:
    wrong = [f"{name} is gone" for name in want.keys() - got.keys()]
    wrong += [f"{name} is new" for name in got.keys() - want.keys()]
    for name in got.keys() & want.keys():
        g, w = np.asarray(got[name]), np.asarray(want[name])
        if name.startswith("mu_product"):
            w = w.astype(g.dtype)
        if g.dtype != w.dtype or g.tobytes() != w.tobytes():
            wrong.append(f"{name} differs")
    return sorted(wrong)


library: Any = None  # fail_new.cpp


def where() -> str:
    out = (ctypes.c_size_t * 40)()
    return " ".join(hex(at) for at in out[: library.fail_new_frames(out)])


def attempt(case: Case, n: int, onwards: bool) -> tuple[list[str], bool]:
    """What is wrong about a step whose allocation n fails, and whether there is such an allocation."""
    before = case.now()
    references = [sys.getrefcount(x) for x in case.held()]
    error: BaseException | None = None
    text = ""
    library.fail_new_arm(n, onwards)
    try:
        case.step()
    except BaseException as e:
        error = e
        library.fail_new_disarm()
        text = f"{type(e).__name__}: {e}"
    finally:
        library.fail_new_disarm()
    thrown, refused = library.fail_new_thrown(), library.fail_new_refused()
    if thrown + refused == 0:
        return ([f"{text} without a failure"] if error else []), False
    found = []
    if error is None:  # got over: fewer threads, say
        if wrong := differences(case.now(), expected):
            found.append(f"after a failure that was got over: {wrong}")
        return [f"{x} [{where()}]" for x in found], True
    if not isinstance(error, MemoryError) and "bad_alloc" not in str(error):
        found.append(text)
    error = None  # and its traceback, which holds the arrays
    if wrong := differences(case.now(), before):
        found.append(f"{text}: {wrong}")
    if [sys.getrefcount(x) for x in case.held()] != references:
        found.append(f"{text}: arrays are still held")
    return [f"{x} [{where()}]" for x in found], True


expected: dict[str, Any] = {}


def finish(case: Case) -> list[str]:
    """A step without a failure equals the specification."""
    case.step()
    wrong = differences(case.now(), expected)
    if case.threads and os.path.isdir("/proc/self/task") and len(os.listdir("/proc/self/task")) != case.threads:
        wrong.append("not on all threads")
    return [f"the step after it: {x}" for x in wrong]


def child(make: Callable[[], Case], n: int, onwards: bool) -> tuple[list[str], bool]:
    """The same in a child of fork."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        result: tuple[list[str], bool] = ([DIED], True)
        try:
            case = make()
            if not expected:
                expected.update(case.after())
            found, there = attempt(case, n, onwards)
            if there and differences(case.now(), expected):
                found += [f"{x} [{where()}]" for x in finish(case)]
            result = found, there
        except BaseException as e:
            result = [f"{type(e).__name__}: {e}"], True
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    status = os.waitpid(pid, 0)[1]
    return tuple(json.loads(text)) if text else ([f"{DIED} of signal {status & 127}"], True)


def main(name: str, mode: str) -> None:
    global library
    library = ctypes.CDLL(os.environ["LD_PRELOAD"].split()[0])
    library.fail_new_arm.argtypes = [ctypes.c_long, ctypes.c_int]
    for function in (library.fail_new_disarm, library.fail_new_thrown, library.fail_new_refused):
        function.restype = ctypes.c_long
    library.fail_new_watch(ctypes.cast(ctypes.CDLL(_core.__file__).PyInit__core, ctypes.c_void_p))
    make = CASES[name]
    if name.startswith("torch"):
        import torch

        import fusedstep.torch  # noqa: F401

        torch.set_num_threads(1)  # its own team would start in each child
        torch.optim.SGD([torch.zeros(1)])  # imports more
    problems: list[str] = []
    n = 0
    if mode == "repeated":
        case = make()
        expected.update(case.after())
        there = True
        while there:
            n += 1
            found, there = attempt(case, n, False)
            problems += [f"allocation {n}: {x}" for x in found]
            if there and not differences(case.now(), expected):  # it was got over: the step has happened
                case = make()
        problems += [f"at the end: {x}" for x in differences(case.now(), expected)]
    else:
        if name.startswith("functional"):  # making it leaves no trace in the core
            expected.update(make().after())
        there = True
        while there:
            n += 1
            found, there = child(make, n, mode == "onwards")
            problems += [f"allocation {n}: {x}" for x in found]
    print(json.dumps({"allocations": n - 1, "problems": problems}))


if __name__ == "__main__":
    main(*sys.argv[1:])
