"""One pass over a recording for several front ends: it is opened, hashed and decoded once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

from audioset_core.arrays import F32
from audioset_core.audio.recording import Recording
from audioset_core.features.config import FrontendConfig
from audioset_core.features.patch_reader import Piece, open_reader

STEP_S = 30.0
"""Seconds that one front end may be ahead of another: so much decoded sound waits in memory, 12 MB
at 96 kHz."""


class SharedReader:
    """Patches of one recording for every front end, read in pieces.

    Args:
        recording: An open recording, of which nothing has been read.
        front_ends: For each its settings, and whether the network takes waveforms.
    """

    def __init__(
        self, recording: Recording, front_ends: Sequence[tuple[FrontendConfig, bool]]
    ) -> None:
        self.recording = recording
        rate_hz = recording.info.sample_rate_hz
        self._branches = [
            _Branch(blocks, rate_hz, config, as_waveform=as_waveform)
            for blocks, (config, as_waveform) in zip(
                _branches(recording.blocks(), len(front_ends)), front_ends, strict=True
            )
        ]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to read; the recording ends for all front ends in one call."""
        return all(branch.is_finished for branch in self._branches)

    def read(self, budget_s: float) -> list[list[Piece]]:
        """The next pieces of every front end: about ``budget_s`` more seconds, or a step of them.

        Every call reads at least one block, however small the budget.

        Raises:
            AudioError: the recording turned out to be damaged, truncated, empty, ...
        """
        # A front end reads whole blocks, so they never stop at the same sample: each reads up to
        # one place in the recording, or they would drift apart.
        step_s = budget_s if len(self._branches) == 1 else min(budget_s, STEP_S)
        until_s = max(branch.read_s for branch in self._branches) + step_s
        pieces = [[branch.read_until(until_s)] for branch in self._branches]
        if any(branch.is_finished for branch in self._branches):
            for branch, found in zip(self._branches, pieces, strict=True):
                while not branch.is_finished:
                    found.append(branch.read_until(math.inf))
        return pieces

    def close(self) -> None:
        """Close the recording."""
        self.recording.close()


def _branches(blocks: Iterator[F32], count: int) -> list[Iterator[F32]]:
    """The same blocks several times, each kept until the last has it.

    `itertools.tee` would keep up to 57 more.
    """
    waiting: list[deque[F32]] = [deque() for _ in range(count)]

    def branch(own: deque[F32]) -> Iterator[F32]:
        while True:
            if not own:
                block = next(blocks, None)
                if block is None:
                    return
                for each in waiting:
                    each.append(block)
                del block
            yield own.popleft()

    return [branch(own) for own in waiting]


class _Branch:
    """One front end, and how far it has read."""

    def __init__(
        self, blocks: Iterator[F32], rate_hz: int, config: FrontendConfig, *, as_waveform: bool
    ) -> None:
        self._n_read, self._rate_hz = 0, rate_hz
        self._reader = open_reader(self._counted(blocks), rate_hz, config, as_waveform=as_waveform)

    @property
    def is_finished(self) -> bool:
        return self._reader.is_finished

    @property
    def read_s(self) -> float:
        return self._n_read / self._rate_hz

    def read_until(self, until_s: float) -> Piece:
        """The patches up to about that place."""
        return self._reader.read(until_s - self.read_s)

    def _counted(self, blocks: Iterator[F32]) -> Iterator[F32]:
        for block in blocks:
            self._n_read += len(block)
            yield block
