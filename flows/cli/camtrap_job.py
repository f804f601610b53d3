"""``audioset export camtrap-dp``: the rows of a package, its files, and what is left out."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import typer

from audioset_core.errors import UserError
from audioset_core.export_formats.camtrap_dp import (
    COLUMNS,
    TABLES,
    Deployment,
    Files,
    Said,
    cells,
    descriptor,
    media_row,
)
from audioset_core.export_formats.taxa import Taxon, sources_of, taxa_of
from audioset_core.export_formats.text import delimited
from audioset_core.inputs.sites import Sites
from audioset_core.inputs.start_times import ASSUMED, DIFFERS, IMPLAUSIBLE
from audioset_core.ontology.graph import Ontology
from audioset_core.records import Site, SiteRule
from audioset_core.storage.atomic_files import replacing, write_text
from db.catalog.sites import stored_sites
from db.judging.verdicts import UNKNOWN, StoredVerdict, find_verdicts
from db.reports import export_rows as exports
from db.reports.export_rows import stands_for_clip
from flows.asking import ontology_of
from flows.cli.export_job import Job
from flows.terminal import note, one_line

_DOUBTS = (ASSUMED, DIFFERS, IMPLAUSIBLE)
_LEFT_OUT = ("file", "clip", "class", "start_s", "end_s", "reason")
# The oldest date that a zip file can state: the same package is the same file, to the bit.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class PackageOptions:
    """What goes into a package, and how."""

    taxa: Annotated[
        Path | None,
        typer.Option(
            help="CSV with class, scientificName, taxonRank: taxa of your own classes, or others "
            "than the built-in ones; an empty name takes one away."
        ),
    ] = None
    classified_by: Annotated[
        Literal["human", "machine"] | None,
        typer.Option(help="Only what people judged to be there, or only what models found."),
    ] = None
    precision: Annotated[
        float | None,
        typer.Option(min=1e-6, max=10.0, help="Round the places of sites to so many degrees."),
    ] = None
    media_url: Annotated[
        str, typer.Option(help="Address of the folder --root on the web, for the files' addresses.")
    ] = ""
    public: Annotated[
        bool, typer.Option("--public", help="Everybody can read the files at --media-url.")
    ] = False

    def check(self) -> None:
        """Raises: UserError: an address is none, or public files have none."""
        is_address = self.media_url.startswith(("http://", "https://"))
        if self.media_url and (not is_address or ".." in self.media_url):
            raise UserError(f"--media-url {self.media_url!r}: an address begins with https://")
        if self.public and not self.media_url:
            raise UserError("--public needs --media-url: where everybody can read the files")


@dataclass(slots=True)
class Written:
    """What a package has, and what was left out of it."""

    deployments: dict[tuple[str, str | None, str], Deployment] = field(default_factory=dict)
    taxa: set[Taxon] = field(default_factory=set)
    judges: set[str] = field(default_factory=set)
    contradicted: list[tuple[str, ...]] = field(default_factory=list)
    n_media: int = 0
    n_machine: int = 0
    n_human: int = 0
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is being written: the rows' source, and what they are looked up in."""

    job: Job
    options: PackageOptions
    sites: Mapping[str, Site]
    stays: Mapping[str, Sequence[tuple[str, Sites]]]
    files: Files
    ontology: Ontology
    taxa: Mapping[str, Taxon]
    written: Written = field(default_factory=Written)

    def deployment(self, row: exports.RecordingRow) -> Deployment:
        """The deployment that a recording belongs to; it begins with its first recording."""
        site = self.sites[row.site or ""]
        period = self._stay(row)
        found = self.written.deployments.get(key := (site.name, row.serial, period))
        if found is None:
            start, end = _times(row)
            found = Deployment(
                site.name, site.latitude_deg, site.longitude_deg, row.serial, period, row.device,
                start, end,
            )  # fmt: skip
            self.written.deployments[key] = found
        return found

    def find_deployments(self) -> None:
        """Read all recordings once for where and when the recorders were.

        Raises:
            UserError: there is no recording with a site and a start, or one is not below the root,
                so that its name in the package would be a path of this machine.
        """
        question = self.job.question
        placed = stands_for_clip(question)
        below = self.files.root.rstrip(b"/") + b"/"
        for row in exports.recordings(self.job.conn, question, only=placed):
            if not row.path.startswith(below):
                raise UserError(f"{one_line(row.path_text)} is not below --root")
            start, end = _times(row)
            known = self.deployment(row)
            known.start, known.end = min(known.start, start), max(known.end, end)
            known.n_recordings += 1
            known.has_doubts |= any(word in (row.recorded_by or "") for word in _DOUBTS)
        if not self.written.deployments:
            raise UserError(
                "no recording has both a site and a start: see `audioset sites list` and "
                "`audioset times`"
            )

    def write(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Write the package's files; `datapackage.json` comes last and makes them a package."""
        written = self.written
        (folder / "datapackage.json").unlink(missing_ok=True)
        every = sorted(written.deployments.values(), key=lambda each: each.id)
        rows = (each.row(self.options.precision) for each in every)
        write_text(folder / "deployments.csv", _table("deployments", rows))
        with ExitStack() as open_files:
            media, observations = (
                open_files.enter_context(replacing(folder / f"{name}.csv")) for name in TABLES[1:]
            )
            for name, file in zip(TABLES[1:], (media, observations), strict=True):
                _put(file, _table(name, ()))
            self._write_recordings(media, observations)
        content = descriptor(
            metadata, every, written.taxa, datetime.now(UTC), self.options.precision
        )
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_text(folder / "datapackage.json", [text, "\n"])

    def write_left_out(self, path: Path) -> None:
        """A row for each recording and each detection that is not in the package, if any is."""
        rows = chain(self.written.contradicted, self._unplaced())
        first = next(rows, None)
        if first is None:
            path.unlink(missing_ok=True)
            return
        write_text(path, delimited(chain([_LEFT_OUT, first], rows), ","))

    def _write_recordings(self, media: BinaryIO, observations: BinaryIO) -> None:
        job, written = self.job, self.written
        kind_of = sources_of(self.ontology)
        under = {node.mid for mid in job.question.under for node in self.ontology.subtree(mid)}
        said: dict[str, list[StoredVerdict]] = {}
        for verdict in find_verdicts(job.engine):
            if not under or verdict.mid in under:
                said.setdefault(verdict.clip, []).append(verdict)
        placed = stands_for_clip(job.question)
        for recording, events in exports.labelled(job.conn, job.question, only=placed):
            deployment = self.deployment(recording).id
            written.n_media += 1
            began, _ = _times(recording)
            _put(media, _lines("media", [media_row(recording, began, deployment, self.files)]))
            judged = said.get(recording.clip, ())
            heard = chain(self._machine(recording, events, judged), self._human(recording, judged))
            rows = (
                each.row(recording, began, deployment, self._source(each.mid, kind_of(each.mid)))
                for each in heard
            )
            _put(observations, _lines("observations", rows))

    def _source(self, mid: str, kind: str) -> tuple[str, str]:
        """What kind of source a class has, and its scientific name; a taxon is an animal's."""
        taxon = self.taxa.get(mid)
        if taxon is None:
            return kind, ""
        self.written.taxa.add(taxon)
        return "animal" if kind == "unknown" else kind, taxon.name

    def _machine(
        self,
        recording: exports.RecordingRow,
        events: Iterable[exports.ModelInterval],
        judged: Sequence[StoredVerdict],
    ) -> Iterator[Said]:
        if self.options.classified_by == "human":
            return
        for event in events:
            about = [each for each in judged if _covers(each, event)]
            verdicts = sorted({each.verdict for each in about})
            if verdicts == ["absent"]:
                by = ", ".join(sorted({each.judged_by for each in about}))
                times = (str(event.start_s), str(event.end_s))
                self.written.contradicted.append(
                    (
                        recording.path_text,
                        recording.clip,
                        event.name,
                        *times,
                        f"judged absent by {by}",
                    )
                )
                continue
            self.written.n_machine += 1
            yield Said(
                event.mid, event.name, event.start_s, event.end_s,
                f"{event.model} {event.model_version}", event.labelled_at, event.peak,
                tuple(f"verdict:{verdict}" for verdict in verdicts),
            )  # fmt: skip

    def _human(
        self, recording: exports.RecordingRow, judged: Sequence[StoredVerdict]
    ) -> Iterator[Said]:
        if self.options.classified_by == "machine":
            return
        for each in judged:
            if each.verdict == "present":
                self.written.n_human += 1
                by = "" if each.judged_by == UNKNOWN else each.judged_by
                self.written.judges.add(by)
                start_s = 0.0 if each.start_s is None else each.start_s
                end_s = recording.duration_s if each.end_s is None else each.end_s
                yield Said(each.mid, each.name, start_s, end_s, by, each.judged_at)

    def _stay(self, row: exports.RecordingRow) -> str:
        """The days of the rule by which a recording belongs to its site; "" where none has days."""
        own = self.stays.get(row.site or "", ())
        if not own:
            return ""
        local_s = (row.recorded_unix_ms or 0) // 1000 + (row.recorded_utc_offset_s or 0)
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=local_s)).date().isoformat()
        fits = (
            days for days, alone in own if alone.of(row.path_text, serial=row.serial, day=day).site
        )
        return next(fits, "")

    def _unplaced(self) -> Iterator[tuple[str, ...]]:
        question = self.job.question
        unplaced = stands_for_clip(question, is_true=False)
        for row in exports.recordings(self.job.conn, question, only=unplaced):
            missing = {
                "no site": row.site is None,
                "no start": row.recorded_unix_ms is None,
            }
            reason = " and ".join(name for name, is_so in missing.items() if is_so)
            reason = reason or "a copy of another file"
            self.written.left_out[reason] = self.written.left_out.get(reason, 0) + 1
            yield row.path_text, row.clip, "", "", "", reason


@contextmanager
def package_folder(out: Path) -> Iterator[Path]:
    """The folder to write to: `out`, or one that becomes the zip file `out` at the end."""
    if not is_zip(out):
        out.mkdir(parents=True, exist_ok=True)
        yield out
        return
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".", suffix=".tmp") as name:
        yield Path(name)
        with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(name).iterdir()):
                info = zipfile.ZipInfo(path.name, _ZIP_DATE)
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                with path.open("rb") as part, archive.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(part, target)


def is_zip(out: Path) -> bool:
    """Whether the package becomes one zip file."""
    return out.suffix.lower() == ".zip"


def new_package(job: Job, options: PackageOptions, root: str | None) -> Package:
    """A package of the recordings that the question asks for.

    Raises:
        UserError: none of them has a site and a start, or the table of taxa is wrong.
    """
    ontology = ontology_of(job.engine)
    taxa = taxa_of(ontology, options.taxa)
    files = Files(job.root(root, stands_for_clip(job.question)), options.media_url, options.public)
    sites = {site.name: site for site in stored_sites(job.engine)}
    # Each rule with days alone: the first that includes a recording is the stay it was made in.
    stays = {
        site.name: [
            (_days(rule), Sites([replace(site, rules=(rule,))]))
            for rule in site.rules
            if rule.first_day or rule.last_day
        ]
        for site in sites.values()
    }
    package = Package(job, options, sites, stays, files, ontology, taxa)
    package.find_deployments()
    return package


def _times(row: exports.RecordingRow) -> tuple[tuple[int, int], tuple[int, int]]:
    began_ms, offset_s = row.recorded_unix_ms or 0, row.recorded_utc_offset_s or 0
    return (began_ms, offset_s), (began_ms + round(row.duration_s * 1000), offset_s)


def _days(rule: SiteRule) -> str:
    first, last = rule.first_day, rule.last_day
    if first and last:
        return f"{first} to {last}"
    return f"from {first}" if first else f"until {last}"


def _covers(verdict: StoredVerdict, event: exports.ModelInterval) -> bool:
    if verdict.mid != event.mid:
        return False
    if verdict.start_s is None or verdict.end_s is None:
        return True
    return verdict.start_s <= event.peak_s < verdict.end_s


def _table(name: str, rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    return chain(delimited([COLUMNS[name]], ","), _lines(name, rows))


def _lines(name: str, rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    return delimited((cells(name, row) for row in rows), ",")


def _put(file: BinaryIO, texts: Iterable[str]) -> None:
    for text in texts:
        file.write(text.encode())


def report(
    package: Package, out: Path, left_out: Path, wrong: Sequence[str] | None, has_licenses: bool
) -> None:
    """Print what the package has, what it lacks, and whether it is valid."""
    written, deployments = package.written, package.written.deployments
    n_sites = len({each.site for each in deployments.values()})
    print(
        f"{written.n_media:,} recordings of {len(deployments):,} deployments at {n_sites:,} sites; "
        f"{written.n_machine:,} observations by models, {written.n_human:,} by people: {out}"
    )
    lost = dict(sorted(written.left_out.items()))
    if written.contradicted:
        lost["detections that people judged absent"] = len(written.contradicted)
    if lost:
        parts = ", ".join(f"{reason} ({n:,})" for reason, n in lost.items())
        note(f"left out: {parts}; each is named in {one_line(str(left_out))}")
    if doubtful := sum(each.has_doubts for each in deployments.values()):
        note(
            f"{doubtful:,} deployments have recordings whose time is in doubt (timestampIssues): "
            "audioset times"
        )
    if judges := sorted(filter(None, written.judges)):
        note(f"the package names who judged: {one_line(', '.join(judges))}")
    if not has_licenses:
        note("no licences are stated, without which GBIF takes no package")
    if wrong is None:
        note("the package was not checked: pip install 'audioset-flows[publish]'")
    for problem in wrong or ():
        note(f"not valid: {one_line(problem)}")
