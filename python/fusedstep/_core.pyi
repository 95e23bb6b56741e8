from collections.abc import Callable, Mapping, MutableMapping, Sequence
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

# Parsed and checked once; to be kept while the options do not change.
class Group:
    ema_weight: float  # what moving averages take of the parameter, set before each step
    def __init__(
        self,
        *,
        label: str,
        rule: str,
        states: Sequence[str],  # names of the state arrays: of the rule, and in a torch state dict
        state_args: Sequence[str],  # and in messages
        hyper: Mapping[str, float],
        weight_decay: float,
        decoupled: bool,
        maximize: bool,
        max_norm: float | None,
        clip_value: float | None,
        has_step: bool,  # a torch state dict has a "step"
        takes_sparse: str = "",  # the class to name for a sparse gradient
        capturable: bool = False,
        rounding: Sequence[str] = (),  # of each state array that is bfloat16: nearest, stochastic, exact (refused)
        seed: int = 0,
        draws: bool = False,  # a torch state dict has a "tensor_id", and a "step" of float64
        grad_attr: str = "grad",  # of a torch parameter
        l1: float = 0.0,
        mask: str = "",  # "nonzero", "array" (masks come with the parameters), "" for none
        cautious: bool = False,
        cautious_decay: bool = False,
        decay_mode: str = "lr",  # "fixed", "relative", "squared"
        decay_lr: float = 0.0,  # of the last two
        ema: bool = False,  # moving averages come with the parameters
        stats: bool = False,
        starts: Sequence[float] = (),  # of the state arrays, for what a mask leaves out
    ) -> None: ...

# What comes beside the parameters of a group: masks (None for a parameter without), moving averages.
Beside = tuple[list[Any] | None, list[Any] | None]
# Of step_arrays: group, params, grads, a list per state array, step, indices of the parameters in messages, the numbers
# by which their random numbers are told apart (None: 0, 1, ... over all groups), and what comes beside. Where averages
# do, a gradient may be None: its parameter's average follows it.
ListsGroup = (
    tuple[Group, list[Any], list[Any], list[list[Any]], int | list[int], list[int] | None, list[int] | None]
    | tuple[Group, list[Any], list[Any], list[list[Any]], int | list[int], list[int] | None, list[int] | None, Beside]
)
# Of step_torch: group, params (None in the place of one is passed over), lr if it is a tensor, what `init` is given.
TorchGroup = tuple[Group, list[Any], Any | None, Any]
# The sums of this process's tensors, and their indices among the parameters, to those of every rank. Where its
# `on_device` is True and the tensors are on a CUDA device, nothing waits: `buffer(n)` is a float64 tensor there for n
# sums. `gather(it, indices)` is one too, and is written over: the sums of whole tensors, at least one number, then one
# that is not 0 if a rank has failed.
OverRanks = Callable[[list[float], list[int]], list[list[float]]]
# Is told what is about to be written.
BeforeWrite = Callable[[list[Any]], None]

def step_arrays(
    groups: list[ListsGroup],
    *,
    grad_scale: float,
    norm_type: float,
    per_tensor: bool,
    nonfinite: str,
    norm_out: Any | None = None,
    stream: int | None = None,
    report: Any | None = None,
    stats: Any | None = None,  # 7 float64 for each parameter of all groups in order, where they are
) -> float | list[float] | None: ...
def decode(format: str, source: Any, target: Any) -> None: ...  # what is stored, to float32 or float64
def encode(format: str, source: Any, target: Any, key: int = 0, first: int = 0) -> None: ...
def check_params(params: list[Any], *, label: str, first: int) -> list[tuple[tuple[int, ...], str]]: ...
def step_torch(
    groups: list[TorchGroup],
    state: MutableMapping[Any, Any],
    init: Callable[..., dict[str, Any]],  # parameter, what the group has for it, the keys that its state lacks
    to_device: Callable[[Any, Any], Any],
    *,
    grad_scale: Any,
    found_inf: Any | None,
    report: Any,  # 4 float64: norm, coefficient, counts of clipped and of skipped steps
    nonfinite: str,
    over_ranks: OverRanks | None,
    before_write: BeforeWrite,
    stats: Any | None = None,
    place_of: Callable[[Any], tuple[list[int], list[int]] | None] | None = None,  # of a DTensor: whole shape, offset
    # Where these are some of an optimizer's parameters: the number of the first, and how many there are.
    part: tuple[int, int] | None = None,
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
def add_ranks(rows: Any, out: Any, *, norm_type: float) -> None: ...  # on a device: rows of ranks, in their order
def clip_value(
    grads: list[Any], *, label: str, value: float, stream: int | None = None, before_write: BeforeWrite | None = None
) -> None: ...
