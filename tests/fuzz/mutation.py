"""Spoilt copies of good files: a few changes of every kind, at places that matter as at any."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_HEAD = 256
"""Half of all changes are in the first bytes, where most formats say what follows."""
_NUMBERS = tuple(
    value.to_bytes(width, order, signed=False)
    for width in (1, 2, 4, 8)
    for order in ("little", "big")
    for value in (0, 1, (1 << (8 * width)) - 1, (1 << (8 * width - 1)), (1 << (8 * width - 1)) - 1)
)

Rng = np.random.Generator
Change = Callable[[Rng, bytearray, Sequence[bytes]], None]


def mutated(rng: Rng, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed one to eight times."""
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(int(rng.integers(1, 9))):
        if data:
            _CHANGES[rng.integers(len(_CHANGES))](rng, data, seeds)
    return bytes(data)


def _place(rng: Rng, data: bytearray) -> int:
    return int(rng.integers(min(len(data), _HEAD) if rng.random() < 0.5 else len(data)))


def _length(rng: Rng, data: bytearray) -> int:
    return int(min(len(data), 2 ** rng.uniform(0, 12)))


def _flip_a_bit(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    data[_place(rng, data)] ^= 1 << int(rng.integers(8))


def _another_byte(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    data[_place(rng, data)] = int(rng.integers(256))


def _a_number(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    number, at = _NUMBERS[rng.integers(len(_NUMBERS))], _place(rng, data)
    data[at : at + len(number)] = number


def _blank(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    at, length = _place(rng, data), _length(rng, data)
    data[at : at + length] = bytes(len(data[at : at + length]))


def _leave_out(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = _place(rng, data)
    del data[at : at + _length(rng, data)]


def _repeat(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at:at] = data[at : at + _length(rng, data)] * int(rng.integers(1, 5))


def _cut(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _splice(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = seeds[rng.integers(len(seeds))]
    start = int(rng.integers(max(1, len(other))))
    piece = other[start : start + _length(rng, data)]
    at = _place(rng, data)
    data[at : at + len(piece)] = piece


def _dice(rng: Rng, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at:at] = rng.bytes(min(64, _length(rng, data)))


_CHANGES: tuple[Change, ...] = (
    _flip_a_bit, _another_byte, _a_number, _a_number, _blank, _leave_out, _repeat, _cut, _splice,
    _dice,
)  # fmt: skip
