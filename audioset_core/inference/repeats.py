"""Patches that came before: digital silence, padding and loops need no network a second time.

Two patches count as equal if all their bytes are equal; then so are the bits of what the network
computes. The patches seen last are kept to be compared, the others are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np

from audioset_core.arrays import F32

_MOST_KEPT_BYTES = 8_000_000

Place = TypeVar("Place")


class Repeats(Generic[Place]):
    """The last distinct patches, and where the result of each is.

    >>> repeats = Repeats[str]()
    >>> silence = np.zeros((96, 64), np.float32)
    >>> repeats.place_of(silence, "row 0"), repeats.place_of(silence.copy(), "row 1")
    ('row 0', 'row 0')
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[F32, Place]] = OrderedDict()

    def place_of(self, patch: F32, place: Place) -> Place:
        """Where the result of an equal patch is; ``place``, which is remembered, if none was seen.

        Shape: patch ``[patch_frames, n_mels]``, float32, contiguous.
        """
        # The ends and the middle tell nearly all patches apart; the others take one place in turn.
        key = b"".join(patch[at].tobytes() for at in (0, len(patch) // 2, -1))
        found = self._kept.pop(key, None)
        # As integers: -0.0 is not 0.0, and an invalid number equals itself.
        if found is None or not np.array_equal(found[0].view(np.int32), patch.view(np.int32)):
            found = patch.copy(), place
        self._kept[key] = found
        if len(self._kept) > max(1, _MOST_KEPT_BYTES // patch.nbytes):
            self._kept.popitem(last=False)
        return found[1]
