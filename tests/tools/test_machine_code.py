"""The reading of machine code (tools/machine_code.py) can find what it looks for."""

from __future__ import annotations

import sys

import pytest

from tests.helpers.tools import ROOT

sys.path.insert(0, str(ROOT / "tools"))

from machine_code import faults, functions, loops

NAME = "void step_kernel<fusedstep::Sgd, float, false, 4080>(fusedstep::cuda::Args)"
GOOD = [
    "LDG.E R0",
    "LDG.E.128 R4",
    "LDG.E.128 R8",
    "FMUL R1",
    "FADD R2",
    "STG.E.128 R4",
    "@P0 BRA 0x10",
    "DADD R2",
    "EXIT",
]


def code(*texts: str) -> list[tuple[int, str]]:
    return [(16 * k, text.removeprefix("@P0 ")) for k, text in enumerate(texts)]


def test_a_good_kernel() -> None:
    assert list(faults(NAME, code(*GOOD))) == []
    assert list(loops(code(*GOOD))) == [[t.removeprefix("@P0 ") for t in GOOD[1:7]]]


@pytest.mark.parametrize(
    ("at", "instead", "fault"),
    [
        (0, "LDL R0", "local memory"),
        (2, "LDG.E R8", "has 1 16-byte loads and 1 stores"),
        (5, "STG.E R4", "no loop with 16-byte stores"),
        (4, "DADD R2", "float64"),
        (4, "F2F.F64.F32 R2", "float64"),
        (4, "FFMA R2", "contracts"),
        (4, "LDG.E R2", "fewer than 16 bytes"),
    ],
)
def test_faults(at: int, instead: str, fault: str) -> None:
    found = list(faults(NAME, code(*GOOD[:at], instead, *GOOD[at + 1 :])))
    assert any(fault in f for f in found), found


def test_listings_are_read() -> None:
    listing = """
	Function : _Z3foov
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                    /* 0x00000a00ff017b82 */
                                                                             /* 0x000fe20000000800 */
        /*0010*/              @!P0 BRA 0xf0 ;                                /* 0x0000000000348947 */
"""
    assert list(functions(listing)) == [("foo()", [(0, "LDC R1, c[0x0][0x28]"), (16, "BRA 0xf0")])]
