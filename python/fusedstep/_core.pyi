from collections.abc import Callable, Mapping, Sequence
from typing import Any

compiler: str
cuda: bool
chunk: int
norm_block: int
norm_lanes: int

def targets() -> list[str]: ...
def active_target() -> str: ...
def use_target(name: str) -> None: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def thread_backend() -> str: ...
def set_exchange_api(on: bool) -> None: ...
def rules() -> list[dict[str, Any]]: ...
def plan(numels: Sequence[int], parts: int) -> list[list[tuple[int, int, int]]]: ...

# A group: label, rule, states, state_args, hyper, weight_decay, decoupled, maximize, max_norm, clip_value, has_step,
# params; for step_arrays also grads, state_arrays, step.
Group = dict[str, Any]

def step_arrays(
    groups: list[Group], *, grad_scale: float, norm_type: float, per_tensor: bool, error_if_nonfinite: bool
) -> float | list[float] | None: ...
def step_torch(
    groups: list[Group],
    state: Mapping[Any, Any],
    init: Callable[[Any, Group], dict[str, Any]],
    *,
    grad_scale: float,
    error_if_nonfinite: bool,
) -> tuple[float | None, list[Any]]: ...
def norm(
    arrays: list[Any], *, label: str, arg: str, norm_type: float, per_tensor: bool, error_if_nonfinite: bool
) -> float | list[float]: ...
def clip_norm(
    grads: list[Any],
    *,
    label: str,
    max_norm: float,
    norm_type: float,
    per_tensor: bool,
    error_if_nonfinite: bool,
    total_norm: float | None,
) -> float | list[float]: ...
def clip_value(grads: list[Any], *, label: str, value: float) -> None: ...
