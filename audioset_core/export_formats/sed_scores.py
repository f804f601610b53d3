"""Scores over time as sed_scores_eval reads them: a TSV per recording, a column per class.

Rows are frames without gaps. A score covers a window (0.96 s), and windows overlap: each moment
gets the score of the window whose centre is nearest, so a frame is as long as the hop. The first
frame begins with the recording and the last one ends with it.

Source: github.com/fgnt/sed_scores_eval, `write_sed_scores` and `validate_score_dataframe`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from audioset_core.arrays import Floats, row_blocks
from audioset_core.export_formats.text import number, one_line
from audioset_core.scores.pooling import sigmoid

_RESERVED = frozenset({"onset", "offset"})
_BLOCK_VALUES = 2**16


def frame_borders(
    n_patches: int, patch_hop_s: float, window_s: float, duration_s: float
) -> list[float]:
    """Onsets of all frames, and the offset of the last one, in seconds.

    Shape: ``[n_patches + 1]``.

    >>> frame_borders(3, patch_hop_s=0.5, window_s=1.0, duration_s=2.0)
    [0.0, 0.75, 1.25, 2.0]
    """
    lead_s = (window_s - patch_hop_s) / 2
    borders = [0.0, *(round(n * patch_hop_s + lead_s, 6) for n in range(1, n_patches))]
    last_s = borders[-1]
    end_s = duration_s if duration_s > last_s else last_s + patch_hop_s
    return [*borders, round(end_s, 6)]


def column_names(classes: Sequence[tuple[str, str]]) -> list[str]:
    """Column titles of classes (MID, name), unique also where two classes share a name."""
    names = [one_line(name) for _, name in classes]
    twice = Counter(names)
    return [
        f"{name} ({mid})" if twice[name] > 1 or name in _RESERVED else name
        for name, (mid, _) in zip(names, classes, strict=True)
    ]


def sed_scores_texts(
    logits: Floats, columns: Sequence[int], names: Sequence[str], borders: Sequence[float]
) -> Iterator[str]:
    """The table of one recording; reads the logits in blocks, so they may be memory-mapped.

    Shape:
        logits: ``[n_patches, n_classes]``; columns index its classes, names are theirs;
        borders: ``[n_patches + 1]``.
    """
    yield "\t".join(["onset", "offset", *map(_quoted, names)]) + "\n"
    chosen = list(columns)
    # Nine digits give back every float32.
    line = "\t".join(["%s", "%s", *["%.9g"] * len(chosen)]) + "\n"
    for first, rows in row_blocks(logits, _BLOCK_VALUES):
        scores = sigmoid(rows[:, chosen]).tolist()
        for at, row in enumerate(scores, start=first):
            yield line % (number(borders[at]), number(borders[at + 1]), *row)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if '"' in name else name
