"""The storage formats, to the bit: how float32 is stored in 16 bits and read back, and the random numbers of
stochastic rounding.

``bfloat16`` is the upper half of a float32: 8 bits of precision and the whole range. It stores parameters, gradients
and state. ``float16`` has 11 bits and ends at 65,504. It stores parameters and gradients. It stores no state: a second
moment below 6e-8 would become zero. ``bfloat16_stochastic`` is bfloat16 that is encoded in another way. It stores
running means of squares. One step changes those by less than half the distance of two bfloat16 numbers, so rounding to
nearest would never move them.

Everything here is arithmetic on integers, so that nothing depends on a floating-point mode. A NaN is stored as one
canonical NaN: its position is part of the contract, its sign and payload are not. Arrays of bfloat16 are known by the
name of their dtype (those of the package ``ml_dtypes`` have it), so no package is needed for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SIXTEEN_BITS = ("bfloat16", "float16", "bfloat16_stochastic")

# ------------------------------------------------------------------------------------------------- encode and decode


def encode(x: Array, format: str, *, key: int = 0, first: int = 0) -> Array:
    """float32 as the uint16 codes of ``format``: ``"bfloat16"``, ``"float16"`` or ``"bfloat16_stochastic"``.

    The last draws a random number for each element: those of ``key`` (:func:`stochastic_key`), for the elements from
    ``first`` on, in row-major order.
    """
    if x.dtype != np.float32:
        raise TypeError(f"encode: x has dtype {x.dtype}, expected float32")
    bits = np.ravel(x).view(np.uint32)  # row-major, whatever the layout in memory
    if format == "bfloat16":
        codes = _to_bfloat16(bits)
    elif format == "float16":
        codes = _to_float16(bits)
    elif format == "bfloat16_stochastic":
        codes = _to_bfloat16_stochastic(bits, random_bits(key, first, bits.size))
    else:
        raise ValueError(f"encode: format is {format!r}, expected one of {', '.join(SIXTEEN_BITS)}")
    return codes.reshape(x.shape)


def decode(a: Array, format: str | None = None) -> Array:
    """What is stored, in float32: uint16 codes of ``format``, or an array whose dtype says what it is.

    float64 stays float64, and whatever is no 16-bit format is returned as it is. Exact.
    """
    if format is None:
        format = a.dtype.name
        if format not in SIXTEEN_BITS:
            return a
    codes = np.ravel(a).view(np.uint16).astype(np.uint32)
    if format in ("bfloat16", "bfloat16_stochastic"):
        values: Array = (codes << 16).view(np.float32)
    elif format == "float16":
        values = _from_float16(codes)
    else:
        raise ValueError(f"decode: format is {format!r}, expected one of {', '.join(SIXTEEN_BITS)}")
    result: Array = values.reshape(a.shape)
    return result


def encode_like(x: Array, like: Array, key: int | None = None) -> Array:
    """``x`` as it is stored in an array of the dtype of ``like``: to nearest, or stochastically with a ``key``."""
    format = like.dtype.name
    if format not in SIXTEEN_BITS:
        return x
    stochastic = format == "bfloat16" and key is not None
    codes = encode(x, "bfloat16_stochastic", key=key or 0) if stochastic else encode(x, format)
    result: Array = codes.view(like.dtype)
    return result


def _canonical(bits: Array) -> Array:
    """The bits of float32, of a NaN those of the canonical one."""
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, np.uint32(0x7FC00000), bits)


def _to_bfloat16(bits: Array) -> Array:
    """The upper half, to nearest, ties to even: ``(c + 0x7fff + (c >> 16 & 1)) >> 16`` of canonical bits c.

    A carry out of the significand goes into the exponent, which is right, up to Inf for what lies above the largest.
    """
    c = _canonical(bits)
    rounded: Array = c + 0x7FFF + (c >> 16 & 1)
    return (rounded >> 16).astype(np.uint16)


def _to_bfloat16_stochastic(bits: Array, random: Array) -> Array:
    """``(c + r) >> 16`` of canonical bits c and 16 random bits r: away from zero in ``c & 0xffff`` of 65,536 cases.

    So the mean over r is the value itself, and what bfloat16 can hold, Inf and NaN among it, never moves.
    """
    return ((_canonical(bits) + random) >> 16).astype(np.uint16)


def _to_float16(bits: Array) -> Array:
    """To nearest, ties to even, subnormals kept; from 65,520 on Inf.

    A normal result: the exponent is re-biased from 127 to 15 and 13 bits of the significand are rounded away. A
    subnormal one: the significand, with its leading bit, is shifted to units of ``2**-24`` and rounded there.
    """
    sign, size = bits >> 16 & 0x8000, bits & 0x7FFFFFFF
    normal = _shifted(size - (112 << 23), np.uint32(13))
    shift = np.clip(126 - (size >> 23).astype(np.int64), 1, 25).astype(np.uint32)  # by 25 or more: zero
    subnormal = _shifted((size & 0x7FFFFF) | 0x800000, shift)
    code = np.where(size < 0x38800000, subnormal, normal)  # 2**-14, the smallest normal number
    code = np.where(size >= 0x47800000, 0x7C00, code)  # 2**16; between 65,520 and that, the carry gives Inf
    code = np.where(size > 0x7F800000, 0x7E00, sign | code)
    return code.astype(np.uint16)


def _shifted(x: Array, shift: Array) -> Array:
    """``x / 2**shift`` to nearest, ties to even."""
    half = np.uint32(1) << (shift - 1)
    result: Array = (x + (half - 1) + (x >> shift & 1)) >> shift
    return result


def _from_float16(codes: Array) -> Array:
    """The exponent is re-biased from 15 to 127; a subnormal is so many ``2**-24``."""
    sign, size = (codes & 0x8000) << 16, codes & 0x7FFF
    normal = (size << 13) + np.uint32(112 << 23)
    special = (size << 13) | 0x7F800000
    subnormal = (size.astype(np.float32) * np.float32(2.0**-24)).view(np.uint32)  # exact, and normal in float32
    bits = np.where(size >= 0x7C00, special, np.where(size < 0x400, subnormal, normal))
    return (sign | bits).view(np.float32)


# ------------------------------------------------------------------------------------------------------ random numbers

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd
_OF_STEP = 0xD1342543DE82EF95
_BLOCK_BITS = 33  # of an index, that the hash sees; a key of its own for what is above


def stochastic_key(seed: int, step: int, tensor: int, stream: int) -> int:
    """The 64-bit key of the random numbers that one array of one tensor draws in one step.

    ``step`` is 1 in the first step. ``stream`` is 0 for the parameter and 1 + its position for a state array. All are
    taken modulo 2**64::

        base = mix(mix(seed + phi) ^ (step * 0xD1342543DE82EF95))
        key  = mix(base + (8 * tensor + stream) * phi + 1)                 phi = 0x9E3779B97F4A7C15
    """
    base = _mix(_mix(seed + _GOLDEN) ^ (step * _OF_STEP & _MASK))
    return _mix(base + (8 * tensor + stream) * _GOLDEN + 1)


def random_bits(key: int, first: int, count: int) -> Array:
    """16 random bits for each of ``count`` elements from index ``first`` on, as uint32.

    Element ``i`` has the lower half of the hash of ``i >> 1`` if it is even, else the upper. Where ``i >> 33`` is not
    zero, the key is ``mix(key + (i >> 33))``: the hash takes 32 bits. So a number depends on key and index alone, not
    on how the elements are divided.
    """
    parts, last = [np.zeros(0, np.uint32)], first + count
    while first < last:
        block, at = divmod(first, 2**_BLOCK_BITS)
        here = min(last - first, 2**_BLOCK_BITS - at)
        parts.append(_of_block(_mix(key + block) if block else key, at, here))
        first += here
    return np.concatenate(parts)


def _of_block(key: int, first: int, count: int) -> Array:
    pairs = np.arange(first >> 1, (first + count + 1) >> 1, dtype=np.uint64).astype(np.uint32)
    hashes = _hash(pairs, key)
    both = np.stack([hashes & 0xFFFF, hashes >> 16], axis=-1).reshape(-1)
    return both[first & 1 :][:count]


def _hash(x: Array, key: int) -> Array:
    """32 bits of 32: two multiplications, each between shifts, and one half of the key before each of them.

    Its constants were found by search, for the least bias that two multiplications allow (TheIronBorn 2022, issue 19 of
    skeeto/hash-prospector). With one key, or with one multiplication, the numbers of neighbouring elements or of
    following steps are correlated.
    """
    x = x + np.uint32(key & 0xFFFFFFFF)
    x = (x ^ (x >> 16)) * np.uint32(0x21F0AAAD)
    x = x ^ np.uint32(key >> 32)
    x = (x ^ (x >> 15)) * np.uint32(0xD35A2D97)
    hashed: Array = x ^ (x >> 15)
    return hashed


def _mix(z: int) -> int:
    """The finaliser of SplitMix64: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators"."""
    z &= _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)
