"""``make formats``: the matrix, run, as the tables of docs/formats.md."""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from audioset_core.system import n_cores
from tests.formats.kinds import KINDS, Kind
from tests.formats.matrix import UNTOLD, Heard, fault, made, ours, theirs
from tests.formats.plights import PLIGHTS

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
_BEGIN, _END = "<!-- the matrix: make formats -->\n", "<!-- end of the matrix -->\n"

Cell = tuple[str, str, str]
"""Plight, verdict, what is wrong with it."""


def main() -> int:
    """Run every cell and put the tables into the page; the number of wrong cells."""
    with ProcessPoolExecutor(n_cores()) as pool:
        rows = dict(zip(KINDS, pool.map(_row, KINDS), strict=True))
    wrong = [
        f"{kind.name}, {plight}: {said}"
        for kind, row in rows.items()
        for plight, _, said in row
        if said
    ]
    page = PAGE.read_text()
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(before + _BEGIN + "\n".join(_tables(rows)) + "\n" + _END + after)
    print(f"{sum(map(len, rows.values())):,} cells, {len(wrong)} wrong: {PAGE}")
    for line in wrong:
        print(f"  {line}", file=sys.stderr)
    return min(1, len(wrong))


def _row(kind: Kind) -> list[Cell]:
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        for plight in PLIGHTS:
            data = made(kind, plight)
            if data is not None:
                path.write_bytes(data)
                heard = ours(path)
                verdict = _verdict(heard, whole_s=plight.length_s)
                cells.append((plight.name, verdict, fault(kind, plight, heard, theirs(path))))
    return cells


def _verdict(heard: Heard, whole_s: float) -> str:
    """As `Heard.verdict`; what is silently shorter, as FFmpeg plays it, is not called whole."""
    if heard.verdict == "whole" and heard.length_s < 0.9 * whole_s:
        return "as far as it goes"
    return heard.verdict


def _tables(rows: dict[Kind, list[Cell]]) -> list[str]:
    alike: dict[tuple[str, tuple[Cell, ...]], list[str]] = defaultdict(list)
    for kind, row in rows.items():
        if row:
            alike[kind.muxer, tuple(row)].append(kind.codec)
    n_cells = sum(map(len, rows.values()))
    lines = [f"{n_cells:,} files, {len(rows)} kinds of recordings.", ""]
    lines += ["| container: codings | whole | with a remark | refused |", "|---|---|---|---|"]
    for (muxer, row), codecs in alike.items():
        groups: dict[str, list[str]] = defaultdict(list)
        for plight, verdict, _ in row:
            groups[verdict].append(plight)
        whole = ", ".join(groups.pop("whole", []))
        refused = {v: groups.pop(v) for v in list(groups) if v.startswith("refused")}
        why = f" ({UNTOLD[muxer]})" if muxer in UNTOLD else ""
        lines.append(
            f"| **{muxer}**: {', '.join(codecs)} | {whole} | {_listed(groups)} | "
            f"{_listed(refused).replace('refused: ', '')}{why} |"
        )
    return lines


def _listed(groups: dict[str, list[str]]) -> str:
    return "; ".join(f"*{verdict}*: {', '.join(plights)}" for verdict, plights in groups.items())


if __name__ == "__main__":
    sys.exit(main())
