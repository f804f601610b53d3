"""What the command line prints: data on stdout, everything else on stderr.

On a terminal tables have lines and progress is a bar; elsewhere both are plain text.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from types import TracebackType

    from tasks.labelling.shards import Receipt
    from tasks.labelling.worklist import Discovery

_PLAIN_LINE_EVERY_S = 10.0
_DIGITS = 9
"""Decimals of numbers in JSON and CSV; for hours, the last one is 4 microseconds."""
_FULL_PROGRESS = 100
"""Least width of a terminal for a bar, the speed and the remaining time."""


def note(text: str) -> None:
    """A line on stderr."""
    print(_wrapped(text, sys.stderr), file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line on stdout for people."""
    print(_wrapped(one_line(text), sys.stdout))


def _wrapped(text: str, stream: TextIO) -> str:
    """On a terminal, the text in lines of its width, the later ones indented; else unchanged."""
    if not stream.isatty():
        return text
    first = len(text) - len(text.lstrip(" "))
    return textwrap.fill(
        text.strip(" "), shutil.get_terminal_size().columns, initial_indent=" " * first,
        subsequent_indent=" " * (first + 2), break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def one_line(text: str) -> str:
    """Escape everything in the name of a file that could move the cursor or end the line."""
    printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(printable).encode("utf-8", "backslashreplace").decode()


def clock(seconds: float) -> str:
    """``75.5`` -> ``1:15.5``; ``3725`` -> ``1:02:05.0``."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def when(unix_ms: int | None, utc_offset_s: int = 0) -> str:
    """A moment on the recorder's clock, to the second: ``2024-05-18 04:30:00``."""
    if unix_ms is None:
        return ""
    local = datetime(1970, 1, 1) + timedelta(milliseconds=unix_ms, seconds=utc_offset_s)
    return f"{local:%Y-%m-%d %H:%M:%S}"


def shown_path(path_text: str | None) -> str:
    """A path, relative to the current folder where it lies below it."""
    if path_text is None:
        return "(no longer anywhere)"
    path = Path(path_text)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path_text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows for people: boxed on a terminal, else tab-separated; columns '>x' are right-aligned."""
    names = [column.removeprefix(">") for column in columns]
    if not sys.stdout.isatty():
        for row in [names, *rows] if any(names) else rows:
            print("\t".join(one_line(cell) for cell in row))
        return
    from rich.console import Console

    from flows.table_layout import column_widths, record_lines

    console = Console(highlight=False)
    cells = [[one_line(cell) for cell in row] for row in rows]
    fit = column_widths(columns, cells, console.width)
    if fit is None:
        for line in record_lines(columns, cells, console.width):
            print(line)
    else:
        console.print(_boxed(columns, cells, *fit))


def _boxed(
    columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], gap: int
) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from flows.table_layout import PATHS, shortened

    names = [column.removeprefix(">") for column in columns]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, gap // 2), show_header=any(names))
    for column, name, width in zip(columns, names, widths, strict=True):
        is_number = column.startswith(">")
        table.add_column(
            Text(name), justify="right" if is_number else "left", width=width, overflow="fold"
        )
    for row in rows:
        shown = zip(names, row, widths, strict=True)
        table.add_row(*(Text(shortened(c, w) if n == PATHS else c) for n, c, w in shown))
    return table


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    text = json.dumps(plain(value), indent=1, ensure_ascii=False, default=str)
    # Half a surrogate pair is not valid in UTF-8; it becomes JSON's escape for it.
    print(text.encode("utf-8", "backslashreplace").decode())


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """CSV with a header on stdout."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(plain, rows))


def plain(value: Any) -> Any:
    """The value with rounded numbers, without the stray digits of sums and products."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def progress_lines(what: str) -> Callable[[int, int], None]:
    """A function that writes how many of how many are done, now and then, to stderr."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_LINE_EVERY_S:
            last = time.monotonic()
            note(f"{done / total:4.0%}  {done:,}/{total:,} {what}")

    return show


class LabelProgress:
    """Shows the progress of a labelling flow: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._is_narrow = False
        self._began = time.monotonic()
        self._last_line = self._began
        self._total_s = self._done_s = self._read_s = 0.0
        self._n_items = self._n_done = self._n_failed = 0
        self._told: tuple[int, int] | None = None

    def __enter__(self) -> LabelProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
            from rich.progress import TimeRemainingColumn as Remaining

            console = Console(stderr=True)
            self._is_narrow = console.width < _FULL_PROGRESS
            bar = () if self._is_narrow else (BarColumn(bar_width=30),)
            eta = () if self._is_narrow else (TextColumn("ETA"), Remaining())
            self._bar = Progress(
                SpinnerColumn(), *bar, TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.description}"), *eta, console=console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, what: str) -> None:
        """Show what happens before there is anything to count."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)
        else:
            note(what)

    def begin(self, found: Discovery) -> None:
        """The work list is known."""
        self._began = time.monotonic()
        self._total_s, self._n_items = max(found.estimated_s, 1e-9), found.n_items
        self._show()

    def advance(self, receipt: Receipt) -> None:
        """A shard is in the database."""
        self._done_s += receipt.estimated_s
        self._read_s += receipt.counts.read_s
        failed = len(receipt.failures)
        self._n_failed += failed
        counts = receipt.counts
        self._n_done += counts.n_labelled + counts.n_known + counts.n_busy + failed
        self._show()

    def _show(self) -> None:
        wall_s = time.monotonic() - self._began
        speed = self._read_s / wall_s if wall_s > 0 else 0.0
        clips, failed = f"{self._n_done:,}/{self._n_items:,} clips", f"{self._n_failed:,} failed"
        heard = f"{self._read_s / 3600:.2f} h, {speed:,.0f} x real time"
        text = f"{clips}, {failed}" if self._is_narrow else f"{clips}, {heard}, {failed}"
        # The estimated length may be reached early; 100 % means that every clip is done.
        is_over = self._n_done >= self._n_items
        done = 1.0 if is_over else min(0.99, self._done_s / self._total_s)
        if self._bar is not None:
            self._bar.update(self._task, total=1.0, completed=done, description=text)
            return
        # A clip that turns out to be known may have parts left, which find nothing to do.
        is_news = is_over and self._told != (self._n_done, self._n_failed)
        if is_news or time.monotonic() - self._last_line >= _PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._told = self._n_done, self._n_failed
            eta = f", ETA {clock(wall_s * (1 - done) / done)}" if 0 < done < 1 else ""
            note(f"{done:4.0%}  {text}{eta}")
