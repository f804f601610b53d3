"""``audioset redact``: copies of recordings that may leave, without the speech in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from flows.cli.shared_options import Files, NotUnder, Store, mids, question_of
from flows.terminal import clock, note, progress_lines

_LOWEST_HZ, _HIGHEST_HZ = 20.0, 400.0
"""Above, words may be understood; docs/redaction.md says what is left below."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which recordings are copied, by what is heard in them."""

    all_of: Annotated[
        list[str] | None, typer.Option(help="Only recordings in which this reaches --min-score.")
    ] = None
    not_under: NotUnder = None
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest score of --all-of and --not-under.")
    ] = 0.5

    def of_question(self, engine: Engine) -> Mapping[str, Any]:
        """Fields of the `Question`."""
        return {
            "all_of": mids(engine, self.all_of), "not_under": mids(engine, self.not_under),
            "min_score": self.min_score,
        }  # fmt: skip


def redact(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]...", help="Files or folders. [default: all recordings]"),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="The folder for the copies.")],
    which: Which,
    files: Files,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Also redact this class and all below it. Repeat it."),
    ] = None,
    low_pass: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="Low-pass the spans instead of silence: 20 to 400 Hz."),
    ] = None,
    label_score: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Least stored score of a voice.")
    ] = 0.1,
    voice_probability: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Least probability by the voice detector.")
    ] = 0.2,
    padding: Annotated[
        float, typer.Option(min=0.0, max=60.0, help="Seconds before and after each span.")
    ] = 0.5,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that names are relative to. [default: the deepest with all files in it]"
        ),
    ] = None,
    store: Store,
) -> None:
    """Copy recordings, with silence in place of speech and other voices.

    Voices are found by the stored scores and by a voice detector. All else stays as it is, to the
    bit where the format is lossless; lossy recordings become FLAC. redactions.csv has a row for
    each span, failures.csv what could not be copied: the exit code is then 1. Not all speech is
    found: docs/redaction.md has the measured shares.
    """
    from audioset_core.export_formats.file_names import common_folder
    from audioset_core.inputs.walk import PassedOver, find_recordings, read_inputs
    from audioset_core.redaction.settings import VOICE_CLASSES, Redaction
    from audioset_core.redaction.voice import voice_network
    from db.reports.redactable import count_redactable, redactable
    from db.types import path_text
    from flows.cli.clips_job import scanned_folder
    from flows.cli.redact_job import RedactJob, Wanted, locked

    if low_pass is not None and not _LOWEST_HZ <= low_pass <= _HIGHEST_HZ:
        raise UserError(
            f"--low-pass {low_pass:g}: {_LOWEST_HZ:g} to {_HIGHEST_HZ:g} Hz; above, words may be "
            "understood"
        )
    files.refuse_sun("copies of whole recordings")
    if paths and files.source:
        raise UserError("name PATHs or --source, not both")
    inputs = read_inputs(paths) if paths else None
    voice_network()  # a missing package is told before anything is read
    with store.database() as engine:
        question = question_of(engine, which, files)
        if inputs is not None:
            named = tuple(map(os.fsdecode, (*inputs.files, *inputs.folders)))
            question = replace(question, paths=named)
        ontology = store.ontology()
        added = mids(engine, also)
        starts = [*(ontology.find(name).mid for name in VOICE_CLASSES), *added]
        voices = {node.mid for mid in starts for node in ontology.subtree(mid)}
        settings = Redaction(
            label_score=label_score, voice_probability=voice_probability, padding_s=padding,
            low_pass_hz=low_pass, also=added,
        )  # fmt: skip
        n_files = count_redactable(engine, question)
        if folder := scanned_folder(engine, out):
            note(
                f"{out} is inside {folder}, which was labelled: the next label run there labels "
                "the copies too, unless a folder's name in between begins with a dot"
            )
        start = (
            common_folder(file.path for file in redactable(engine, question))
            if root is None
            else bytes(root.absolute())
        )
        wanted = Wanted(store.home, out, start, settings, tuple(sorted(voices)))
        with locked(out):
            job = RedactJob(engine, wanted)
            show = progress_lines("recordings")
            known, own = set[bytes](), bytes(out.absolute()) + b"/"
            try:
                for n_done, file in enumerate(redactable(engine, question), start=1):
                    job.redact(file)
                    known.add(file.path)
                    show(n_done, n_files)
                if inputs is not None and not (which.all_of or which.not_under):
                    for found in find_recordings(inputs, PassedOver()):
                        if found.path not in known and not found.path.startswith(own):
                            job.fail(path_text(found.path), "not labelled: audioset label")
            finally:
                job.write_tables()
    _tell(job.counts, out)
    if job.counts["failed"]:
        raise typer.Exit(1)


def _tell(counts: Counter[str], out: Path) -> None:
    n_copies = counts["written"] + counts["there"]
    share = counts["ms"] / counts["of ms"] if counts["of ms"] else 0.0
    print(
        f"{n_copies:,} copies, {counts['spans']:,} spans redacted, {clock(counts['ms'] / 1000)} of "
        f"{clock(counts['of ms'] / 1000)} ({share:.1%}): {out}"
    )
    for key, what in (
        ("there", "copies were there already"),
        ("clean", "copies have no span: neither the scores nor the voice detector found a voice"),
        ("converted", "copies have another format than the recording, without its tags"),
    ):
        if counts[key]:
            note(f"{counts[key]:,} {what}")
    if counts["failed"]:
        note(f"not copied: {counts['failed']:,} recordings, see {out / 'failures.csv'}")
