from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

compiler: str
cuda: str  # version of the runtime that was built in, "" without, "host" where the CPU runs its kernels
chunk: int
norm_block: int
norm_lanes: int
most_steps: int  # that a count can advance to

def targets() -> list[str]: ...
def active_target() -> str: ...
def last_target() -> str: ...
def use_target(name: str) -> None: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def thread_backend() -> str: ...
def set_exchange_api(on: bool) -> None: ...
def rules() -> list[dict[str, Any]]: ...
def fs_pow(b: float, x: float) -> float: ...
def cuda_devices() -> int: ...
def plan(numels: Sequence[int], parts: int) -> list[list[tuple[int, int, int]]]: ...

# A group: label, rule, states, state_args, hyper, weight_decay, decoupled, maximize, max_norm, clip_value, has_step,
# takes_sparse, params, perhaps capturable and lr_tensor; for step_arrays also grads, state_arrays, step and perhaps
# indices (of the parameters, for messages).
Group = dict[str, Any]
# The sums of this process's tensors to those of every rank.
OverRanks = Callable[[list[float]], list[list[float]]]
# Is told what is about to be written.
BeforeWrite = Callable[[list[Any]], None]

def step_arrays(
    groups: list[Group],
    *,
    grad_scale: float,
    norm_type: float,
    per_tensor: bool,
    nonfinite: str,
    norm_out: Any | None = None,
    stream: int | None = None,
    report: Any | None = None,
) -> float | list[float] | None: ...
def check_params(params: list[Any], *, label: str, first: int) -> list[tuple[tuple[int, ...], str]]: ...
def step_torch(
    groups: list[Group],
    state: MutableMapping[Any, Any],
    init: Callable[[Any, Group], dict[str, Any]],
    to_device: Callable[[Any, Any], Any],
    *,
    grad_scale: Any,
    found_inf: Any | None,
    report: Any,  # 4 float64: norm, coefficient, counts of clipped and of skipped steps
    nonfinite: str,
    over_ranks: OverRanks | None,
    before_write: BeforeWrite,
) -> float | None: ...
def norm(
    arrays: list[Any],
    *,
    label: str,
    arg: str,
    norm_type: float,
    per_tensor: bool,
    error_if_nonfinite: bool,
    norm_out: Any | None = None,
    stream: int | None = None,
    over_ranks: OverRanks | None = None,
) -> float | list[float] | None: ...
def clip_norm(
    grads: list[Any],
    *,
    label: str,
    max_norm: float,
    norm_type: float,
    per_tensor: bool,
    error_if_nonfinite: bool,
    total_norm: Any | None,
    norm_out: Any | None = None,
    stream: int | None = None,
    over_ranks: OverRanks | None = None,
    before_write: BeforeWrite | None = None,
) -> float | list[float] | None: ...
def clip_value(
    grads: list[Any], *, label: str, value: float, stream: int | None = None, before_write: BeforeWrite | None = None
) -> None: ...
