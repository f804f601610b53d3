"""Task chunk-and-featurize: a shard's files to log-mel patches, claimed clip by clip.

Each file is opened once and hashed, and decoded once for all models of the run; content that is
labelled already, or that another run holds, is left alone. A file that cannot be read becomes a
failure with a reason.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from prefect import get_run_logger, task

from audioset_core.audio.decoders import DecodeOptions, Measures
from audioset_core.audio.recording import Recording
from audioset_core.errors import AudioError, Reason
from audioset_core.features.patch_reader import Piece
from audioset_core.features.shared_reader import SharedReader
from audioset_core.inference.engines import takes_waveforms
from audioset_core.inference.scorer import Cancelled
from audioset_core.object_storage.addresses import is_address
from audioset_core.object_storage.spool import AHEAD, Wanted, spool
from db.ledger.claims import LEASE_S, claim_clip, release_claims
from db.records import Claim, Clip, Lease, NotClaimed, WorkItem
from tasks.labelling.job import Job, Jobs, engine_for, is_stopping, now, share_cores
from tasks.labelling.shards import (
    ClipPiece,
    OpenClip,
    Shard,
    ShardCounts,
    ShardFeatures,
    failed_source,
)
from tasks.labelling.start_times import told_by_file

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

# A long file is read a little at a time, so that a cancelled run stops within seconds.
_READ_S = 300.0


@task(
    name="chunk-and-featurize",
    task_run_name="featurize shard {shard.label}",
    persist_result=False,
)
def chunk_and_featurize(jobs: Jobs, shard: Shard, previous: ShardFeatures | None) -> ShardFeatures:
    """Decode the shard, and unless a GPU does so compute frames; go on from the part before."""
    return featurize_shard(jobs, shard, previous, get_run_logger())


def featurize_shard(
    jobs: Jobs, shard: Shard, previous: ShardFeatures | None, logger: Logger
) -> ShardFeatures:
    """As the task, without Prefect."""
    share_cores()
    features = ShardFeatures()
    current = previous.open_clip if previous is not None else None
    waiting = list(reversed((previous.left if previous is not None else ()) + shard.items))
    try:
        while current is not None or waiting:
            if is_stopping(jobs[0]):
                raise Cancelled
            if features.counts.read_s >= shard.budget_s:
                features.open_clip, features.left = current, tuple(reversed(waiting))
                break
            if current is None:
                spool().fetch_ahead(_objects(waiting[-AHEAD:]))
                current = _begin(jobs, waiting.pop(), features, logger)
            else:
                current = _go_on(shard, current, features, logger)
    except BaseException:
        features.open_clip, features.left = current, tuple(reversed(waiting))
        release_shard(jobs[0], features)
        raise
    return features


def _objects(waiting: Iterable[WorkItem]) -> list[Wanted]:
    """The objects among files that wait, the last of which is the next."""
    return [
        (item.path, item.etag, item.size_bytes)
        for item in reversed(list(waiting))
        if is_address(item.path) and item.size_bytes
    ]


def _begin(jobs: Jobs, item: WorkItem, features: ShardFeatures, logger: Logger) -> OpenClip | None:
    """Open a file and claim its content; None if there is nothing to do."""
    try:
        recording = _open(jobs[0], item)
    except Exception as error:
        told = _told(error, item, logger)
        features.failures.append(failed_source(item.path, item.source_id, told))
        return None
    try:
        clip = _clip(recording)
        outcomes = _claim(jobs, item, clip, recording.mtime_ns)
        claims = {at: found for at, found in outcomes.items() if isinstance(found, Claim)}
        if claims:
            own = [jobs[at] for at in claims]
            front_ends = [(j.frontend, takes_waveforms(j.frontend, j.options.compute)) for j in own]
            return OpenClip(item, claims, SharedReader(recording, front_ends))
    except BaseException:
        recording.close()
        raise
    recording.close()
    refused = [found for found in outcomes.values() if isinstance(found, NotClaimed)]
    features.counts += counted(min(refused, key=_BEFORE_OTHERS.index), clip)
    return None


# How a file counts whose labellings are held, or done, in different ways.
_BEFORE_OTHERS = (NotClaimed.AGAIN, NotClaimed.BUSY, NotClaimed.COPY, NotClaimed.DONE)


def _claim(
    jobs: Jobs, item: WorkItem, clip: Clip, mtime_ns: int
) -> Mapping[int, Claim | NotClaimed]:
    """Claim the clip for every job, in order. A copy is left alone altogether.

    Whoever holds a labelling for another file of this run claims the others too.
    """
    outcomes: dict[int, Claim | NotClaimed] = {}
    for at, job in enumerate(jobs):
        outcomes[at] = claim_clip(
            engine_for(job.database_url), item.source_id, clip, job.variant,
            Lease(job.run_id, LEASE_S, now()), mtime_ns=mtime_ns,
        )  # fmt: skip
        if outcomes[at] is NotClaimed.COPY:
            break
    return outcomes


def counted(outcome: NotClaimed, clip: Clip) -> ShardCounts:
    """How a clip is counted that needs no labelling; AGAIN: an earlier try has labelled it."""
    match outcome:
        case NotClaimed.AGAIN:
            return ShardCounts(n_labelled=1, audio_s=clip.duration_s)
        case NotClaimed.BUSY:
            return ShardCounts(n_busy=1)
        case NotClaimed.DONE | NotClaimed.COPY:
            return ShardCounts(n_known=1)


def _open(job: Job, item: WorkItem) -> Recording:
    as_found = (item.size_bytes, item.mtime_ns)
    try:
        measures: Measures = "loudness" if job.options.loudness else "health"
        options = DecodeOptions(job.options.track, job.options.strict, measures=measures)
        version = (item.etag, item.size_bytes) if item.size_bytes else None
        recording = Recording(item.path, options, version)
    except AudioError as error:
        if error.reason is Reason.VANISHED and as_found == (0, 0):
            raise AudioError(Reason.NO_SUCH_FILE, _why_not_there(item.path)) from error
        raise
    if job.is_watched and as_found != (recording.size_bytes, recording.mtime_ns):
        recording.close()
        raise AudioError(Reason.CHANGED, "still being written; the next run tries again")
    return recording


def _why_not_there(path: bytes) -> str:
    if is_address(path):
        return ""
    if os.path.islink(path):
        return f"the link leads to {os.fsdecode(os.readlink(path))}, where nothing is"
    folder = os.path.dirname(path)
    return "" if os.path.isdir(folder) else f"nor a folder {os.fsdecode(folder)}"


def _go_on(
    shard: Shard, current: OpenClip, features: ShardFeatures, logger: Logger
) -> OpenClip | None:
    """Read more of a clip. None: the clip has ended, or failed."""
    reader = current.reader
    before_s = reader.recording.duration_s
    try:
        pieces = reader.read(min(_READ_S, max(1.0, shard.budget_s - features.counts.read_s)))
    except Exception as error:
        told = _told(error, current.item, logger)
        item, claims = current.item, current.claims.values()
        features.failures += [failed_source(item.path, item.source_id, told, c) for c in claims]
        reader.close()
        return None
    features.counts += ShardCounts(read_s=reader.recording.duration_s - before_s)
    _add_pieces(features, current, pieces)
    if not reader.is_finished:
        return current
    reader.close()
    return None


def _add_pieces(features: ShardFeatures, current: OpenClip, pieces: list[list[Piece]]) -> None:
    """Hand on what was read, for each job; the last piece of a clip tells what the clip is."""
    path, recording = current.item.path, current.reader.recording
    clip = _clip(recording) if current.reader.is_finished else None
    remarks = recording.remarks if current.reader.is_finished else ()
    for (at, claim), found in zip(current.claims.items(), pieces, strict=True):
        for n_after, piece in zip(reversed(range(len(found))), found, strict=True):
            end = None if n_after else clip
            features.pieces.append(ClipPiece(path, claim, piece, end, remarks, job=at))


def release_shard(job: Job, features: ShardFeatures) -> None:
    """Release the shard's claims and close its files, so that another run can claim at once."""
    spool().forget(_objects(reversed(features.left)))
    claims = {piece.claim for piece in features.pieces}
    if features.open_clip is not None:
        features.open_clip.reader.close()
        claims.update(features.open_clip.claims.values())
    release_claims(engine_for(job.database_url), sorted(claims, key=lambda c: c.labelling_id))


def _clip(recording: Recording) -> Clip:
    """The recording's figures: those of its header before it is decoded, then the true ones."""
    info = recording.info
    n_samples = recording.n_samples or info.promised_samples or 0
    return Clip(
        sha256=recording.sha256,
        size_bytes=recording.size_bytes,
        duration_s=n_samples / info.sample_rate_hz,
        sample_rate_hz=info.sample_rate_hz,
        n_channels=info.n_channels,
        n_samples=n_samples,
        format=info.format,
        **told_by_file(info.notes),
        notes=info.notes.statements if info.notes else (),
        health=recording.health,
    )


def _told(error: Exception, item: WorkItem, logger: Logger) -> AudioError:
    """The error as a failure of the file; a defect of ours is logged with its traceback."""
    if isinstance(error, AudioError):
        return error
    logger.exception("unexpected error in %r", item.path)
    return AudioError(Reason.INTERNAL, f"{type(error).__name__}: {error}"[:200])
