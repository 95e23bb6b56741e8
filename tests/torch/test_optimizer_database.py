"""torch's own list of constructor arguments, good and bad, for each optimizer that is in torch too.

``torch.testing._internal.common_optimizers.optim_db`` is what torch's tests of its optimizers are made from. It names
the options of each optimizer that are worth a test, and arguments with the exception that they must raise.

What it leaves to each test: ``foreach`` and ``differentiable`` are refused here (tests/torch/test_step.py), and
``fused=True`` is run too wherever torch has it on the CPU. Entries for GPUs have ``capturable``, which torch's step and
this package refuse for CPU tensors: they run without it, for the sake of their other options.
"""

import copy
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import fusedstep.torch as fst
from tests.helpers import tools
from tests.helpers.torch_spec import IN_TORCH, TIGHT, assert_close, make_params, set_grads

STEPS = 8  # RAdam changes its form in the sixth


@pytest.fixture(scope="module")
def database():
    """The entry of each optimizer, by its name."""
    if find_spec("expecttest") is None:
        tools.missing("torch.testing._internal needs expecttest")
    from torch.testing._internal import common_optimizers

    torch.backends.__allow_nonbracketed_mutation_flag = True  # as it was before that import
    return {info.optim_cls.__name__: info for info in common_optimizers.optim_db}


@pytest.fixture
def in_float64():
    """States of one number too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def described(inputs):
    return [(each.desc, {k: v for k, v in each.kwargs.items() if k != "capturable"}) for each in inputs]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("name", IN_TORCH)
def test_options(database, name, dtype):
    info = database[name]
    assert info.supports_complex  # here all are
    cases = described(info.optim_inputs_func("cpu")) + described(info.optim_inputs_func("cuda"))
    assert len(cases) > 4
    fused = [False, True] if "cpu" in info.supports_fused_on else [False]
    for desc, options in cases:
        for own in [{"fused": True} if each else {} for each in fused]:
            if own and dtype.is_complex:
                continue  # torch's fused kernels are for real numbers
            pair = []
            for module, only in ((fst, {}), (torch.optim, {} if own else {"foreach": False})):
                params = make_params(dtype)
                groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.02}]
                opt = getattr(module, name)(groups, **copy.deepcopy(options), **own, **only)
                for seed in range(STEPS):
                    set_grads(params, seed)
                    opt.step()
                pair.append(opt)
                moved = [not torch.equal(p, q) for p, q in zip(params, make_params(dtype), strict=True) if p.numel()]
                assert all(moved), desc
            for state in pair[1].state.values():
                if own and "step" in state:
                    state["step"] = state["step"].double()  # torch's fused kernels count in float32 alone
            try:
                assert_close(*pair, **TIGHT)
            except AssertionError as error:
                raise AssertionError(f"{name}, {desc}, {options | own}") from error


@pytest.mark.parametrize("name", IN_TORCH)
def test_errors(database, name):
    inputs = database[name].optim_error_inputs_func("cpu", torch.float64)
    assert len(inputs) > 6
    for each in inputs:
        given, kind = each.optimizer_error_input, each.error_type
        assert each.error_on.name == "CONSTRUCTION_ERROR"
        for cls in (getattr(torch.optim, name), getattr(fst, name)):
            params = [nn.Parameter(torch.zeros(2, dtype=torch.float64))] if given.params is None else given.params
            if issubclass(kind, Warning):
                with pytest.warns(kind, match=each.error_regex):
                    cls(params, **given.kwargs)
                continue
            with pytest.raises(kind) as info:
                cls(params, **given.kwargs)
            assert info.type is kind, f"{cls.__module__}, {given.desc}: {info.value!r}"


def test_the_database_has_every_class_of_torch(database):
    """So that an optimizer that it lacks is not passed over in silence, and one that torch gains is seen."""
    assert set(IN_TORCH) <= set(database)
    without_ours = {"Adafactor", "LBFGS", "Muon", "SparseAdam"}
    assert set(database) - set(IN_TORCH) <= without_ours
