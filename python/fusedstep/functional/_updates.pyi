# Written by tools/generate.py from fusedstep.rules.
from collections.abc import Sequence
from typing import Any, Literal

from .. import _core
from .._rule import Option
from ..rules import Rule

Arrays = Any
__all__ = [
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "asgd",
    "laprop",
    "lion",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "signsgd",
    "yogi",
]
CALL: tuple[Option, ...]

def options_of(rule: type[Rule]) -> dict[str, Option]: ...
def step_arrays(
    label: str,
    groups: list[_core.ListsGroup],
    *,
    grad_scale: float = 1.0,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    nonfinite: str = "propagate",
    norm_out: Any = None,
    stream: int | None = None,
    report: Any = None,
    stats: Any = None,
) -> Any: ...
def adabelief(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_vars: Arrays,
    max_exp_avg_vars: Arrays | None = None,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-16,
    weight_decay: float = 0.0,
    weight_decouple: bool = True,
    fixed_decay: bool = False,
    rectify: bool = True,
    degenerated_to_sgd: bool = True,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """AdaBelief: Adam that divides by how far gradients are from their running mean, and not by how large they are.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * (g - m)**2 + eps                    with the new m
        x <- max(x, v)                                                     amsgrad
        p <- p - lr / c1 * m / (sqrt(v or x) / sqrt(c2) + eps)             without rectify; ci = 1 - betai**t
        p <- p - lr / c1 * sqrt(c2 * R) * m / (sqrt(v) + eps)              rectify, N >= 5
        p <- p - lr / c1 * m                                               rectify, N < 5, degenerated_to_sgd; else none
        L = 2 / (1 - beta2) - 1,  N = L - 2 * t * beta2**t / c2,  R = (N - 4) (N - 2) L / ((L - 4) (L - 2) N)

    Paper: Zhuang et al. 2020, "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients".

    As adabelief-pytorch, whose checkpoints load; with ``rectify`` x is only kept. Differs in rounding only.

    When to use it: where Adam generalizes worse than SGD; an eps of 1e-16 for transformers, of 1e-8 for convolutions.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_vars: state, updated in place.
        max_exp_avg_vars: state, updated in place; given, the update is that with ``amsgrad``.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of (g - m)**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to v, and to the root, a finite number >= 0; default 1e-16.
        weight_decay: decay of the parameter, as ``weight_decouple`` and ``fixed_decay`` say, a finite number >= 0;
            default 0.0.
        weight_decouple: multiply the parameter by ``1 - lr * weight_decay``; else L2; default True.
        fixed_decay: multiply by ``1 - weight_decay`` instead, with ``weight_decouple``; default False.
        rectify: correct the variance of the first steps, as RAdam does; default True.
        degenerated_to_sgd: while N < 5, step by m alone rather than not at all; default True.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def adadelta(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    acc_deltas: Arrays,
    *,
    step: int | Sequence[int] | None = None,
    lr: float,
    rho: float = 0.9,
    eps: float = 1e-06,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Adadelta: the gradient over its root mean square, times the root mean square of the updates so far.

    Formula::

        v <- rho * v + (1 - rho) * g**2
        e <- sqrt((a + eps) / (v + eps)) * g
        a <- rho * a + (1 - rho) * e**2
        p <- p - lr * e

    Paper: Zeiler 2012.

    When to use it: where no learning rate is to be chosen, as updates have the parameter's own units. It starts slowly:
    the first updates are of the size of ``sqrt(eps)``.

    As :class:`torch.optim.Adadelta`, in rounding only different: the root of a quotient, not a quotient of two roots.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        square_avgs: state, updated in place.
        acc_deltas: state, updated in place.
        step: 1 in the first call, one number or one per parameter; needed for bfloat16 state.
        lr: learning rate, a finite number >= 0; default 1.0.
        rho: factor of the running means of squares, 0 <= rho <= 1; default 0.9.
        eps: added to both mean squares, a finite number >= 0; default 1e-06.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def adagrad(
    params: Arrays,
    grads: Arrays,
    sums: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Adagrad: each element's rate falls with the sum of its squared gradients.

    Formula::

        s <- s + g**2
        p <- p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps)

    Paper: Duchi, Hazan & Singer 2011.

    As :class:`torch.optim.Adagrad`: eps outside the root. Differs in rounding only.

    When to use it: with sparse features or on convex problems: its rates only fall, which ends long training early.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        sums: state, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.01.
        lr_decay: the rate of step t is ``lr / (1 + (t - 1) * lr_decay)``, a finite number >= 0; default 0.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        eps: added to the root, a finite number >= 0; default 1e-10.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def adam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays | None = None,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Adam: running means of the gradient and of its square, corrected for their start; AMSGrad.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        x <- max(x, v)                                            amsgrad, on the raw second moment
        p <- p - lr / c1 * m / (sqrt(v or x) / sqrt(c2) + eps)    ci = 1 - betai**step

    Papers: Kingma & Ba 2015, algorithm 1 in the form of the end of section 2; AMSGrad: Reddi, Kale & Kumar 2018.

    As :class:`torch.optim.Adam`, in rounding only different: ``sqrt(c2)`` is multiplied out of the last line, which
    leaves one division per element, and m is not written as lerp, so that beta1 = 0 is exact.

    When to use it: as a first choice without weight decay; with it, :class:`AdamW`.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        max_exp_avg_sqs: state, updated in place; given, the update is that with ``amsgrad``.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def adamax(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_infs: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Adamax: a running mean of the gradient over a decaying maximum of its size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        u <- max(beta2 * u, abs(g) + eps)
        p <- p - lr / (1 - beta1**step) * m / u

    Paper: Kingma & Ba 2015, algorithm 2.

    When to use it: where gradients are sparse or have rare large values, as those of embeddings; no square is formed
    that could overflow, and no update is larger than about ``lr``.

    As :class:`torch.optim.Adamax`: eps is added within the maximum, which keeps a NaN. Differs in rounding only.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_infs: state, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.002.
        betas: factors of the running mean and of the maximum, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the gradient's size, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def adamw(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays | None = None,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-08,
    weight_decay: float = 0.01,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """:class:`Adam` with decoupled weight decay: the parameter itself shrinks, and no moment sees it.

    Formula::

        p <- (1 - lr * weight_decay) * p, then Adam's with the gradient alone

    Paper: Loshchilov & Hutter 2019.

    As :class:`torch.optim.AdamW`. Differs as :class:`Adam` does, in rounding only.

    When to use it: as a first choice, of transformers above all.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        max_exp_avg_sqs: state, updated in place; given, the update is that with ``amsgrad``.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.01.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def adan(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_diffs: Arrays,
    exp_avg_sqs: Arrays,
    neg_pre_grads: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    no_prox: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Adan: Adam with Nesterov's momentum, estimated from the differences of successive gradients.

    Formula::

        e <- g + q                                                 q: minus the gradient of before; first step: 0
        m <- beta1 * m + (1 - beta1) * g
        n <- beta2 * n + (1 - beta2) * e
        v <- beta3 * v + (1 - beta3) * (g + beta2 * e)**2
        q <- -g
        d <- lr * (m / c1 + beta2 * n / c2) / (sqrt(v) / sqrt(c3) + eps)      ci = 1 - betai**step
        p <- (p - d) / (1 + lr * weight_decay)

    Paper: Xie et al. 2022, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models".

    As sail-sg's Adan, whose checkpoints load, where all parameters of a group had a gradient in each step: it counts
    the steps of a group, and here each parameter counts its own. Its ``max_grad_norm`` is ``max_norm`` here. Differs in
    rounding otherwise.

    When to use it: to train from scratch with large batches and rates. It has the largest state of all: four arrays.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_diffs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        neg_pre_grads: state, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of m, n and v, 0 <= each of betas < 1; default (0.98, 0.92, 0.99).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: the parameter is divided by ``1 + lr * weight_decay`` after the step, a finite number >= 0;
            default 0.0.
        no_prox: multiply the parameter by ``1 - lr * weight_decay`` before the step instead; default False.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def ademamix(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_slows: Arrays,
    exp_avg_sqs: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    alpha: float = 5.0,
    t_alpha: float | None = None,
    t_beta3: float | None = None,
    eps: float = 1e-08,
    weight_decay: float = 0.01,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """AdEMAMix: Adam with a second, far longer running mean of the gradient beside the first.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        n <- B3 * n + (1 - B3) * g
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * (m / c1 + A * n) / (sqrt(v) / sqrt(c2) + eps)          ci = 1 - betai**t
        A = alpha * min(t / t_alpha, 1)
        B3 = min(beta3, exp(1 / ((1 - T) / log(beta1) + T / log(beta3))))    T = t / t_beta3; beta3 from T = 1 on

    Paper: Pagliardini, Ablin & Grangier 2024, "The AdEMAMix Optimizer: Better, Faster, Older".

    As bitsandbytes' AdEMAMix on the CPU (its CUDA kernel decays after the step). Differs in rounding. Checkpoints of it
    do not load: they have m and n in one array, ``exp_avg, exp_avg_slow = state1``, and v as ``state2``.

    When to use it: in long runs of language models, where gradients of ten thousand steps ago still tell something. Let
    ``t_alpha`` and ``t_beta3`` be the number of steps: without them the slow mean disturbs the start.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_slows: state, updated in place.
        exp_avg_sqs: state, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of m, v and n, 0 <= each of betas < 1; default (0.9, 0.999, 0.9999).
        alpha: weight of the slow mean, a finite number >= 0; default 5.0.
        t_alpha: in how many steps the weight grows to ``alpha``; None: at once, a number of steps >= 0 or None.
        t_beta3: in how many steps the factor of n grows from beta1 to beta3; None: at once, a number of steps >= 0
            or None.
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.01.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def adopt(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.9999),
    eps: float = 1e-06,
    clip_exp: float | None = 0.25,
    weight_decay: float = 0.0,
    decouple: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """ADOPT: the gradient over the root of the mean square of the gradients before it, then momentum.

    Formula::

        v <- g**2                                             first step, which leaves p as it is

        x <- g / max(sqrt(v), eps)                            later steps, with the v of before
        x <- clamp(x, -c, c)                                  c = (step - 1)**clip_exp
        m <- beta1 * m + (1 - beta1) * x
        v <- beta2 * v + (1 - beta2) * g**2
        p <- p - lr * m

    Paper: Taniguchi et al. 2024, "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate".

    As iShohei220/adopt, whose checkpoints load. Its ``clip_lambda`` is here an exponent: ``clip_exp=0.25`` is its
    default, 0.333 that of timm, and None no clipping, as it was before November 2024. Differs in rounding only.

    When to use it: where Adam is sensitive to beta2 or diverges, as in small batches: it converges with any beta2.
    Skip steps whose norm is infinite (``nonfinite="skip"``): by the formula an infinite v stops its weight for ever.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of x and of g**2, 0 <= each of betas < 1; default (0.9, 0.9999).
        eps: the least that is divided by, a finite number >= 0; default 1e-06.
        clip_exp: the bound on x is ``(step - 1)**clip_exp``; None: there is none, a finite number >= 0 or None;
            default 0.25.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        decouple: decay the parameter itself, by ``lr * weight_decay``, but not in the first step; default False.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def asgd(
    params: Arrays,
    grads: Arrays,
    axs: Arrays,
    etas: Arrays,
    mus: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    lambd: float = 0.0001,
    alpha: float = 0.75,
    t0: float = 1000000.0,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """ASGD: gradient descent with a falling rate, and a running average of the parameters beside it.

    Formula::

        p <- p - (eta * lambd * p + eta * g)                    eta starts at lr
        ax <- p if mu == 1 else ax + mu * (p - ax)              mu starts at 1
        eta <- lr / (1 + lambd * lr * step)**alpha
        mu <- 1 / max(1, step - t0)

    Papers: Polyak & Juditsky 1992; the rates: Bottou 2010.

    When to use it: on convex problems, with ``t0`` at the step from which parameters are to be averaged. The average is
    the state ``ax``; the parameters themselves are those of SGD.

    As :class:`torch.optim.ASGD`, in rounding only different. ``eta`` and ``mu`` are kept as torch keeps them, so that a
    checkpoint goes both ways.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        axs: state, updated in place.
        etas: state of one number, float32 or float64, updated in place; starts at ``lr``, where its parameter is.
        mus: state of one number, float32 or float64, updated in place; starts at 1.0, where its parameter is.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.01.
        lambd: decay of the parameters and of the rate, a finite number >= 0; default 0.0001.
        alpha: power by which the rate falls, a finite number >= 0; default 0.75.
        t0: the step after which averaging starts, a number >= 0; default 1000000.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def laprop(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    exp_avg_lr_1s: Arrays,
    exp_avg_lr_2s: Arrays,
    *,
    step: int | Sequence[int] | None = None,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-15,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """LaProp: the gradient over the root of its running mean square, then momentum of that, with the rate inside.

    Formula::

        a <- beta1 * a + (1 - beta1) * lr                              a, b: exp_avg_lr_1, exp_avg_lr_2, from 0
        b <- beta2 * b + 1 - beta2
        v <- beta2 * v + (1 - beta2) * g**2
        m <- beta1 * m + (1 - beta1) * lr * g / (sqrt(v / b) + eps)
        p <- (p - lr / a * m) * (1 - lr * weight_decay)                no step while a is 0

    Paper: Ziyin, Wang & Ueda 2020, "LaProp: Separating Momentum and Adaptivity in Adam".

    As timm's LaProp, whose checkpoints load. Its ``exp_avg_lr_1`` has float64's bits, here float32's unless torch's
    default dtype is float64. Differs in rounding only.

    When to use it: where Adam wants a small beta2 or a large beta1: momentum and adaptivity do not disturb each other.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        exp_avg_lr_1s: state of one number, float32 or float64, updated in place; starts at 0.0, where its parameter
            is.
        exp_avg_lr_2s: state of one number, float32 or float64, updated in place; starts at 0.0, where its parameter
            is.
        step: 1 in the first call, one number or one per parameter; needed for bfloat16 state.
        lr: learning rate, a finite number >= 0; default 0.0004.
        betas: factors of m, and of the running mean of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-15.
        weight_decay: the parameter is multiplied by ``1 - lr * weight_decay`` after the step, a finite number >= 0;
            default 0.0.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def lion(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Lion: steps of one size, in the direction of the sign of an average of gradient and momentum.

    Formula::

        p <- p - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g                    both with the m of before

    Paper: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.

    Differs from torch-like implementations (google/automl, lion-pytorch, timm) for a NaN alone: sign(NaN) is NaN, where
    torch.sign gives 0 and the weight would be frozen in silence. sign(0) is 0. Weight decay is decoupled.

    When to use it: with large batches, where half of Adam's state counts; at 3 to 10 times less rate and more decay.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        lr: learning rate, a finite number >= 0; default 0.0001.
        betas: factors of m: in the direction, and from step to step, 0 <= each of betas < 1; default (0.9, 0.99).
        weight_decay: decoupled decay: the parameter is multiplied by ``1 - lr * weight_decay``, a finite number >=
            0; default 0.0.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def nadam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    mu_products: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    momentum_decay: float = 0.004,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """NAdam: Adam with Nesterov's momentum, on a schedule of its own.

    Formula::

        mu_t <- beta1 * (1 - 0.5 * 0.96**(t * momentum_decay));  P <- P * mu_t          P: mu_product, starts at 1
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        d <- (1 - mu_t) / (1 - P) * g + mu_(t+1) / (1 - P * mu_(t+1)) * m
        p <- p - lr * d / (sqrt(v) / sqrt(c2) + eps)                                    c2 = 1 - beta2**t

    Paper: Dozat 2016, "Incorporating Nesterov Momentum into Adam".

    As :class:`torch.optim.NAdam`, in rounding only different: one division per element instead of two, and no libm.
    ``mu_product`` is kept as torch keeps it, so that a checkpoint goes both ways.

    When to use it: where Adam is, for a faster start at the same rate.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        mu_products: state of one number, float32 or float64, updated in place; starts at 1.0, where its parameter
            is.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.002.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        momentum_decay: how fast the momentum grows to beta1, a finite number >= 0; default 0.004.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def radam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """RAdam: Adam that starts as SGD with momentum, until enough gradients are seen to divide by their size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        R = 2 / (1 - beta2) - 1;  r = R - 2 * t * beta2**t / c2                       ci = 1 - betai**t
        p <- p - lr / c1 * f * m * sqrt(c2) / (sqrt(v) + eps)                         if r > 5
                 f = sqrt((r - 4) * (r - 2) * R / ((R - 4) * (R - 2) * r))
        p <- p - lr / c1 * m                                                          otherwise

    Paper: Liu et al. 2020.

    When to use it: where Adam diverges without a warmup of the learning rate. The first steps (5 for beta2 = 0.999) are
    of the whole ``lr`` and not divided by anything.

    As :class:`torch.optim.RAdam`: eps is added to the root that is not corrected. Differs in rounding only.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        betas: factors of the running means of g and of g**2, 0 <= each of betas < 1; default (0.9, 0.999).
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        decoupled_weight_decay: decay the parameter itself, by ``lr * weight_decay``, as AdamW does; default False.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def rmsprop(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    grad_avgs: Arrays | None = None,
    momentum_buffers: Arrays | None = None,
    *,
    step: int | Sequence[int] | None = None,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """RMSprop: the gradient over the root of its running mean square; centered, with momentum.

    Formula::

        s <- alpha * s + (1 - alpha) * g**2
        a <- alpha * a + (1 - alpha) * g                  centered
        d <- sqrt(s) + eps   or   sqrt(s - a**2) + eps    centered
        p <- p - lr * g / d
        b <- momentum * b + g / d;  p <- p - lr * b       with momentum

    Papers: Hinton 2012 (Coursera, lecture 6e); centered: Graves 2013, section 4.2.

    As :class:`torch.optim.RMSprop`: eps outside the root; centered, a variance that rounds below zero gives NaN, as
    there. Differs in rounding only.

    When to use it: in reinforcement learning and recurrent networks, whose gradients change their scale.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        square_avgs: state, updated in place.
        grad_avgs: state, updated in place; given, the update is that with ``centered``.
        momentum_buffers: state, updated in place; given if and only if ``momentum`` is not 0.
        step: 1 in the first call, one number or one per parameter; needed for bfloat16 state.
        lr: learning rate, a finite number >= 0; default 0.01.
        alpha: factor of the running averages, a finite number >= 0; default 0.99.
        eps: added to the root, a finite number >= 0; default 1e-08.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        momentum: factor of the running direction; 0: none, and no state for it, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def rprop(
    params: Arrays,
    grads: Arrays,
    prevs: Arrays,
    sizes: Arrays,
    *,
    lr: float,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-06, 50),
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Rprop: steps of a size of each element's own, which grows while the sign of its gradient stays.

    Formula::

        zero, one = rounded(0.0, p), rounded(1.0, p)
        x = g * prev
        s <- min(step_sizes[1], max(step_sizes[0], s * f))      f = etas[1] if x > 0, etas[0] if x < 0, else 1
        g <- 0 if x < 0;  prev <- g
        p <- p - sign(g) * s                                    s starts at lr

    Papers: Riedmiller & Braun 1993; without going back, iRprop-: Igel & Huesken 2000.

    When to use it: with gradients of the whole data set, as it reads nothing but signs; not with small batches, whose
    noise turns signs.

    As :class:`torch.optim.Rprop`, with the same bits; so an element whose gradient is NaN stays for this step. ``lr``
    counts when the state is made and not later.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        prevs: state, updated in place.
        sizes: state, updated in place; starts at ``lr``.
        lr: learning rate, a finite number >= 0; default 0.01.
        etas: factors of a step size, 0 < etas[0] < 1; 1 < etas[1] < inf; default (0.5, 1.2).
        step_sizes: the least and the largest step size, a number >= 0; default (1e-06, 50).
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def sgd(
    params: Arrays,
    grads: Arrays,
    momentum_buffers: Arrays | None = None,
    *,
    step: int | Sequence[int] = 1,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Gradient descent; with ``momentum``, SGD with momentum, dampening and Nesterov's variant.

    Formula::

        p <- p - lr * g                                     without momentum

        b <- g                                              first step
        b <- momentum * b + (1 - dampening) * g             later steps
        p <- p - lr * (g + momentum * b if nesterov else b)

    Papers: Polyak 1964; Nesterov's variant: Sutskever et al. 2013, section 2.

    As :class:`torch.optim.SGD`, which takes the first gradient undampened too. Differs in rounding only.

    When to use it: for convolutional networks with momentum and a tuned rate, where it generalizes best.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        momentum_buffers: state, updated in place; given if and only if ``momentum`` is not 0.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.001.
        momentum: factor of the running direction; 0: none, and no state, a finite number >= 0; default 0.0.
        dampening: the gradient counts ``1 - dampening`` in the running direction, a finite number; default 0.0.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        nesterov: look one momentum step ahead; needs a ``momentum`` and no ``dampening``; default False.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def signsgd(
    params: Arrays,
    grads: Arrays,
    momentum_buffers: Arrays | None = None,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    weight_decouple: bool = True,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """SignSGD: steps of one size, in the direction of the sign of the gradient; with ``momentum`` it is Signum, which
    takes the sign of the running mean.

    Formula::

        p <- p - lr * sign(g)                          without momentum

        b <- momentum * b + (1 - momentum) * g
        p <- p - lr * sign(b)                          with momentum

    Paper: Bernstein et al. 2018, "signSGD: Compressed Optimisation for Non-Convex Problems".

    As pytorch_optimizer's SignSGD, whose checkpoints load. Differs for a NaN, as :class:`Lion` does: sign(NaN) is NaN,
    where torch.sign gives 0 and the weight would be frozen in silence. Differs for complex parameters: each part is a
    number with a sign. sign(0) is 0.

    When to use it: where memory counts, or to find out how much of Adam is its sign: no state, or one array.
    ``momentum=0.965`` and ``weight_decay=0.01`` make it Tiger.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        momentum_buffers: state, updated in place; given if and only if ``momentum`` is not 0.
        lr: learning rate, a finite number >= 0; default 0.001.
        momentum: factor of the running mean; 0: none, and no state, 0 <= momentum < 1; default 0.9.
        weight_decay: decay of the parameter, by ``lr * weight_decay``; L2 without ``weight_decouple``, a finite
            number >= 0; default 0.0.
        weight_decouple: decay the parameter itself, as AdamW does; else ``weight_decay * p`` is added to g; default
            True.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """

def yogi(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    *,
    step: int | Sequence[int],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 0.001,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    per_tensor: bool = False,
    clip_value: float | None = None,
    nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    error_if_nonfinite: bool = False,
    norm_out: Any = None,
    stream: int | None = None,
    seed: int = 0,
    tensor: int | Sequence[int] | None = None,
    l1: float = 0.0,
    cautious: Literal[False, "unscaled"] = False,
    cautious_decay: bool = False,
    decay_mode: Literal["lr", "fixed", "relative", "squared"] = "lr",
    decay_lr: float | None = None,
    masks: Arrays | Literal["nonzero"] | None = None,
    emas: Arrays | None = None,
    ema_weight: float | None = None,
    stats_out: Any = None,
) -> Any:
    """Yogi: Adam whose mean square moves by a part of the squared gradient, and not by a part of its own size.

    Formula::

        m <- beta1 * m + (1 - beta1) * g
        v <- v - (1 - beta2) * sign(v - g**2) * g**2
        p <- p - lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)                         ci = 1 - betai**step

    Paper: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization".

    As torch_optimizer's Yogi, whose checkpoints load: m and v both start at ``initial_accumulator``. Differs in
    rounding only.

    When to use it: where gradients are sparse or rarely large: v forgets a large gradient slowly, so that the rate does
    not jump up.

    Args:
        params, grads: arrays (see the module), ``params`` updated in place.
        exp_avgs: state, updated in place.
        exp_avg_sqs: state, updated in place.
        step: 1 in the first call, one number or one per parameter.
        lr: learning rate, a finite number >= 0; default 0.01.
        betas: factor of the mean of g; 1 - beta2 is v's share of g**2, 0 <= each of betas < 1; default (0.9,
            0.999).
        eps: added to the root, a finite number >= 0; default 0.001.
        weight_decay: L2 decay: ``weight_decay * p`` is added to the gradient, a finite number >= 0; default 0.0.
        maximize: ascend instead of descend; default False.
        grad_scale: what the gradients were multiplied by (loss scaling), > 0; they are divided by it, default 1.0.
        max_norm: clip the gradients, as one vector, to this norm, in the same pass over memory, default None.
        norm_type: order of that norm: 1, 2, inf, or any p > 0, default 2.0.
        per_tensor: clip each gradient to ``max_norm`` on its own, default False.
        clip_value: bound on each element of the gradient, after ``max_norm``; not for complex ones, default None.
        nonfinite: what a norm that is infinite or NaN does: ``"propagate"``: the update is NaN where torch's would
            be; ``"skip"``: nothing is changed, the norm tells; ``"raise"``: RuntimeError, with nothing changed.
            Needs a ``max_norm``; not ``"skip"`` with ``per_tensor``, default 'propagate'.
        error_if_nonfinite: torch's word for ``nonfinite="raise"``, default False.
        norm_out: on CUDA devices: where to leave the norm, instead of returning it, default None.
        stream: on CUDA devices: the stream to work on, default None.
        seed: of the random numbers that bfloat16 state is rounded with, modulo 2**64, default 0.
        tensor: what these random numbers tell parameters apart by: a number of one parameter, or one for each, the
            same in every step; None is 0, 1, ... in the order of ``params``, default None.
        l1: L1: after each step the parameter goes by ``lr * l1`` towards zero (soft thresholding), and stays there,
            default 0.0.
        cautious: ``"unscaled"``: elements that would move against their gradient stay where they are, default
            False.
        cautious_decay: decay acts only where the step goes towards zero too, default False.
        decay_mode: what decoupled decay takes away: ``lr * weight_decay``, ``weight_decay``, ``lr / decay_lr *
            weight_decay`` or ``lr * lr / decay_lr * weight_decay``, default 'lr'.
        decay_lr: the learning rate of that, default None.
        masks: bool arrays, or None for a parameter without one: where False, the parameter and its state become
            zero (what state starts from, if that is another number); ``"nonzero"`` keeps zeros zero, default None.
        emas: moving averages of ``params``: float32, or float64 or complex as they are, default None.
        ema_weight: what those take of the parameters: ``ema += ema_weight * (param - ema)``, from 0 to 1; a
            gradient may then be None, default None.
        stats_out: a float64 array of a row of 7 for each parameter: ``reference.statistics``, default None.

    Returns:
        None; with ``max_norm``, the norm of the gradients before clipping, or a list with ``per_tensor``.
    """
