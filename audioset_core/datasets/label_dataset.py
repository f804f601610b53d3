"""`label_dataset`: labels waveforms in memory, for people with their own loader.

Memory holds one group of patches, the logits of one unfinished item, and 32 bytes per id. The files
are described in `audioset_core.datasets.journal`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from audioset_core.datasets.items import (
    ArrayDecoder,
    ItemReason,
    MapDataset,
    RefusedError,
    fields_of,
    id_of,
    items_of,
    meta_of,
    one_line,
)
from audioset_core.datasets.journal import SCORES_FOLDER, IdSet, LabelFolder, digest
from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.export_formats.seed_json import Prediction, write_seed_json
from audioset_core.features.config import FrontendConfig
from audioset_core.features.patch_reader import PatchReader, Piece, open_reader
from audioset_core.inference.engines import takes_waveforms
from audioset_core.inference.interface import ComputeOptions, Device
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import Framing, find_bundle
from audioset_core.scores.pooling import pooled_rows
from audioset_core.storage.score_files import check_scores
from audioset_core.weights.locate import prepare

ScoreDtype = Literal["float16", "float32"]
Progress = Callable[[int, int | None], None]
"""Called with (items done, items in all; None where the dataset has no length)."""

MAX_LISTED_FAILURES = 1000
"""Most failures in a report; the file has all of them."""

# Patches scored and written at a time: 50 MB of YAMNet's frames, or of the sound under them.
_GROUP_PATCHES, _GROUP_PATCHES_OF_WAVEFORMS = 2000, 500
_TOO_SHORT = "too short for a patch under this framing: no scores"


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """One item that was not labelled; `id` is None if the item has no valid id."""

    index: int
    id: str | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """The result of a call. `n_items` = labelled + skipped (finished before) + failed.

    `stopped` is the error of the dataset's iterator that ended the call early; else None.
    """

    json_path: Path
    failures_path: Path
    model: str
    model_version: str
    n_items: int
    n_labelled: int
    n_skipped: int
    n_failed: int
    failures: tuple[ItemFailure, ...]
    stopped: str | None
    audio_s: float
    elapsed_s: float


def label_dataset(
    dataset: Iterable[Mapping[str, Any]] | MapDataset[Mapping[str, Any]],
    out: str | Path,
    *,
    model: str = "yamnet",
    weights: str | Path | None = None,
    device: Device = "auto",
    patch_hop_s: float | None = None,
    framing: Framing = "reference",
    score_dtype: ScoreDtype = "float32",
    progress: Progress | None = None,
) -> DatasetReport:
    """Label every item of a dataset; see docs/python-api.md.

    An item is `{"id": text, "data": array or tensor, "sr": rate in Hz, "meta": JSON object}`,
    meta optional. Floats are used as they are; int16 and int32 are scaled to [-1, 1]. Items that
    an earlier call finished in this folder with the same model and parameters are skipped; those of
    other parameters are labelled again. A bad item is reported, and the call continues. `progress`
    is called after every item; an error that it raises ends the call.

    Shape:
        data: [n_channels, n_samples]; written: [n_patches, n_classes], logits

    Raises:
        UserError: a wrong model, weights file, device, parameter, dataset or folder.
        OSError: the disk is full, ...; finished items stay finished.
    """
    started_s = time.monotonic()
    bundle = find_bundle(model)
    config = bundle.framed(patch_hop_s=patch_hop_s, framing=framing)
    if score_dtype not in get_args(ScoreDtype):
        raise UserError(f"score_dtype {score_dtype!r}: choose float16 or float32")
    items, n_total = items_of(dataset)
    ready = prepare(bundle, Path(weights) if weights is not None else None)
    compute = ComputeOptions(device)
    scorer = Scorer(bundle, ready, compute)
    scorer.score([], config)  # raises for weights without scores, before an item is read
    # Results of the same variant are equal.
    variant = (
        f"{bundle.name} {ready.version}, a patch every {config.row_hop_s:g} s, "
        f"tail {'padded' if config.pads_tail else 'dropped'}, {score_dtype}"
    )
    with LabelFolder(Path(out), variant) as folder:
        as_waveform = takes_waveforms(config, compute)
        run = _Run(folder, scorer, config, np.dtype(score_dtype), as_waveform=as_waveform)
        stopped = run.take_all(items, n_total, progress)
        predictions = (_prediction(entry, ready.version) for entry in folder.entries())
        write_seed_json(folder.json_path, bundle.name, bundle.categories, predictions)
        return DatasetReport(
            json_path=folder.json_path,
            failures_path=folder.failures_path,
            model=bundle.name,
            model_version=ready.version,
            n_items=run.n_items,
            n_labelled=run.n_labelled,
            n_skipped=run.n_skipped,
            n_failed=run.n_failed,
            failures=tuple(run.failures),
            stopped=stopped,
            audio_s=run.audio_s,
            elapsed_s=time.monotonic() - started_s,
        )


@dataclass(slots=True)
class _Clip:
    """An item that is being labelled."""

    index: int
    id: str
    meta: str
    duration_s: float
    reader: PatchReader
    logits: list[NDArray[Any]] = field(default_factory=list)


class _Run:
    """One call: items are read, their patches collected, and groups of them scored and written."""

    def __init__(
        self,
        folder: LabelFolder,
        scorer: Scorer,
        config: FrontendConfig,
        dtype: np.dtype[Any],
        *,
        as_waveform: bool,
    ) -> None:
        self.n_items = self.n_labelled = self.n_skipped = self.n_failed = 0
        self.audio_s = 0.0
        self.failures: list[ItemFailure] = []
        self._folder, self._scorer, self._config, self._dtype = folder, scorer, config, dtype
        self._as_waveform = as_waveform
        self._blas = ThreadpoolController()
        self._group = _GROUP_PATCHES_OF_WAVEFORMS if as_waveform else _GROUP_PATCHES
        self._seen = IdSet()
        self._clips: list[_Clip] = []
        self._pieces: list[tuple[_Clip, Piece]] = []
        self._n_pending = 0

    def take_all(
        self, items: Iterator[object], n_total: int | None, progress: Progress | None
    ) -> str | None:
        """Label all items; returns the error that ended the iterator early, or None."""
        stopped = None
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:  # the dataset's own code may raise anything
                stopped = one_line(error)
                break
            self._take(item)
            self.n_items += 1
            if progress is not None:
                progress(self.n_items, n_total)
        self._flush()
        return stopped

    def _take(self, item: object) -> None:
        """Refuse or skip one item, or collect its patches; a full group is scored at once."""
        item_id: str | None = None
        clip: _Clip | None = None
        try:
            fields = fields_of(item)
            item_id = id_of(fields)
            if not self._seen.add(digest(item_id)):
                raise RefusedError(ItemReason.DUPLICATE, "only the first item with this id counts")
            meta = meta_of(fields)
            if self._folder.is_finished(item_id):
                self.n_skipped += 1
                return
            decoder = ArrayDecoder(fields)
            rate_hz = decoder.info.sample_rate_hz
            reader = open_reader(
                decoder.blocks(), rate_hz, self._config, as_waveform=self._as_waveform
            )
            clip = _Clip(self.n_items, item_id, meta, decoder.n_samples / rate_hz, reader)
            self._clips.append(clip)
            while (piece := self._read(clip)) is not None:
                self._collect(clip, piece)
        except (RefusedError, AudioError) as error:
            self._fail(self.n_items, item_id, error.reason, error.detail, clip)
        if self._n_pending >= self._group:
            self._flush()

    def _read(self, clip: _Clip) -> Piece | None:
        """The next patches of a clip, as many as fit into the group; None at the clip's end."""
        if clip.reader.is_finished:
            return None
        want = max(1, self._group - self._n_pending)
        try:
            # More threads split the sums of a large mel matrix otherwise, and these scores would
            # differ from those of `audioset label` in the fifth digit.
            with self._blas.limit(limits=1, user_api="blas"):
                return clip.reader.read(want * self._config.patch_hop_s)
        except AudioError:
            raise
        except Exception as error:  # an unusual kind of array
            raise AudioError(Reason.INTERNAL, one_line(error)) from error

    def _collect(self, clip: _Clip, piece: Piece) -> None:
        self._pieces.append((clip, piece))
        # Clips without a patch count as well.
        self._n_pending += max(1, piece.n_patches)
        if self._n_pending >= self._group and not clip.reader.is_finished:
            self._flush()

    def _flush(self) -> None:
        """Score the collected patches, and write the clips that are complete."""
        pieces, self._pieces, self._n_pending = self._pieces, [], 0
        scored = self._scorer.score([piece for _, piece in pieces], self._config)
        for (clip, _), logits in zip(pieces, scored, strict=True):
            # Half precision ends at 65,504; larger values become infinite and are refused below.
            rows = pooled_rows(logits, self._config.steps_per_row, mode="max")
            with np.errstate(over="ignore"):
                clip.logits.append(rows.astype(self._dtype, copy=False))
        complete = [clip for clip in self._clips if clip.reader.is_finished]
        self._clips = [clip for clip in self._clips if not clip.reader.is_finished]
        finished: list[tuple[_Clip, NDArray[Any]]] = []
        for clip in complete:
            whole = np.concatenate(clip.logits)
            clip.logits.clear()
            try:
                check_scores(whole, self._scorer.n_classes)
                finished.append((clip, whole))
            except AudioError as error:
                self._fail(clip.index, clip.id, error.reason, error.detail)
        self._folder.finish([(self._entry(clip, whole), whole) for clip, whole in finished])
        self.n_labelled += len(finished)
        self.audio_s += sum(clip.duration_s for clip, _ in finished)

    def _entry(self, clip: _Clip, logits: NDArray[Any]) -> dict[str, Any]:
        return {
            "id": clip.id,
            "meta": json.loads(clip.meta),
            "patch_hop_s": self._config.row_hop_s,
            "n_patches": len(logits),
            "duration_s": clip.duration_s,
        }

    def _fail(
        self, index: int, item_id: str | None, reason: str, detail: str, clip: _Clip | None = None
    ) -> None:
        if clip is not None:
            self._clips = [other for other in self._clips if other is not clip]
            self._pieces = [(other, piece) for other, piece in self._pieces if other is not clip]
            self._n_pending = sum(max(1, piece.n_patches) for _, piece in self._pieces)
        failure = ItemFailure(index=index, id=item_id, reason=str(reason), detail=detail)
        self.n_failed += 1
        if len(self.failures) < MAX_LISTED_FAILURES:
            self.failures.append(failure)
        self._folder.note_failure(asdict(failure))


def _prediction(entry: Mapping[str, Any], model_version: str) -> Prediction:
    return Prediction(
        id=entry["id"],
        scores_file=f"{SCORES_FOLDER}/{entry['file']}",
        patch_hop_s=entry["patch_hop_s"],
        meta=entry["meta"],
        extra={
            "n_patches": entry["n_patches"],
            "duration_s": entry["duration_s"],
            "model_version": model_version,
            **({} if entry["n_patches"] else {"note": _TOO_SHORT}),
        },
    )
