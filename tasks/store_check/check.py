"""Do tables and files agree? A check, and on request the repair.

Without Prefect and torch, so that a look costs little; `tasks.verify_store` is the task.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from audioset_core.errors import AudioError, UserError, WeightsError
from audioset_core.features.config import FrontendConfig
from audioset_core.models.registry import find_bundle
from audioset_core.object_storage.addresses import is_address
from audioset_core.object_storage.stores import Look, look_at_each
from audioset_core.storage.score_file_check import (
    KINDS,
    Checked,
    Fault,
    Promise,
    check_file,
    fitting_patches,
    is_place_of,
)
from audioset_core.storage.score_files import Kind, read_scores
from audioset_core.teaching.heads import read_heads
from db.engine import reading
from db.integrity import audit, repair
from db.integrity.audit import DoneLabelling, Labels, StoredVariant
from db.integrity.closure import closure_differences, rebuild_closure
from db.ledger.label_rows import category_nodes
from db.records import Variant
from db.score_files.combinable import part_labellings
from db.totals.recount import check_totals
from db.types import path_text
from tasks.combining.recipe import Planned, Recipe, Variants, basis_of, recipe_of, repair_plan
from tasks.combining.taught import lost_heads
from tasks.evaluation.derive_intervals import checked_scores
from tasks.store_check.expected_labels import (
    as_rows,
    difference,
    pooled_labels,
    without_steps,
)
from tasks.store_check.report import Damage, Finding, Outcome, Report
from tasks.store_check.stray_files import sweep

# Put right by labelling again: nothing that is stored tells what it should be.
_LOST = frozenset({Damage.MISSING, Damage.DAMAGED, Damage.UNNAMED, Damage.LENGTH})
_GONE = "; kept, as no source file is left to label again"
_NO_PARTS = "; kept, as the scores that were combined are not all there"
_TEACH = (
    "; labels are kept, and nothing new is scored: put a copy of the file back, or teach again "
    "with the same examples and --name"
)
_NO_SOURCE = "; kept, as its embeddings and taught weights are not all there"

Progress = Callable[[int, int], None]


def check_store(
    engine: Engine,
    home: Path,
    *,
    is_deep: bool,
    is_repair: bool,
    progress: Progress | None = None,
) -> Report:
    """Check every finished labelling, its files, the tables and the folders; repair on request.

    What only labelling again can put right is reset; `db.integrity.audit.iter_undone` lists it
    afterwards. `progress` is called with (labellings done, all) after each.

    Raises:
        UserError: a folder that the tables have files in is not there.
    """
    return _Check(engine, home, Report(is_deep), is_repair).run(progress)


def existing_source(engine: Engine, clip_id: int) -> bytes | None:
    """A file that still is what the clip was read from, by its size and time."""
    for path, *as_read in audit.iter_sources(engine, clip_id):
        if _size_and_time(path) == tuple(as_read):
            return path
    return None


def _size_and_time(path: bytes) -> tuple[int, int] | None:
    """Those of a file or an object; None where there is none, or it cannot be asked."""
    if is_address(path):
        (look,) = look_at_each([path])
        return (look.size_bytes, look.mtime_ns) if isinstance(look, Look) else None
    try:
        found = os.stat(path)  # noqa: PTH116 (bytes)
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


@dataclass(frozen=True, slots=True)
class _Rules:
    """What follows from a labelling's model and parameters."""

    stored: StoredVariant
    frontend: FrontendConfig | None
    """None: a model that this version does not know."""
    node_of: Mapping[int, int]
    recipe: Recipe | None
    """Of a combined model; None: a single model."""
    plan: Planned | None
    """How a combined labelling is made again; None if it cannot be."""

    def n_columns(self, kind: Kind) -> int | None:
        """How wide the model's results are."""
        return self.stored.n_classes if kind == "scores" else self.stored.embedding_dim

    def is_promised(self, kind: Kind) -> bool:
        """Whether a clip with patches has such a file."""
        if kind == "scores":
            return self.stored.n_classes > 0
        return self.stored.n_classes == 0 or bool(self.stored.extra.get("embeddings"))


class _Check:
    """One check; findings go to the report as they are met."""

    def __init__(self, engine: Engine, home: Path, report: Report, is_repair: bool) -> None:
        self.engine, self.home, self.report, self.is_repair = engine, home, report, is_repair

    def run(self, progress: Progress | None) -> Report:
        self._undone()
        total = audit.count_done(self.engine)
        for done in audit.iter_done(self.engine):
            self._labelling(done)
            self.report.n_labellings += 1
            if progress is not None:
                progress(self.report.n_labellings, max(total, self.report.n_labellings))
        self._taught_weights()
        self._tables()
        sweep(self.engine, self.home, self.report, is_repair=self.is_repair)
        unknown = [r.stored.model for r in self._rules.values() if r.frontend is None]
        if unknown:
            names = ", ".join(sorted(set(unknown)))
            self.report.notes.append(f"durations not compared for models not known here: {names}")
        return self.report

    def _add(self, what: Damage, where: str, reason: str, is_repaired: bool = False) -> None:
        outcome = Outcome.REPAIRED if is_repaired else Outcome.LEFT
        self.report.add(Finding(what, where, reason, outcome))

    # --- labellings ---

    @cached_property
    def _rules(self) -> dict[Any, _Rules]:
        variants = audit.stored_variants(self.engine)
        with reading(self.engine) as conn:
            return {
                variant: _rules(variant, variants, category_nodes(conn, variant.model_id))
                for variant in variants
            }

    def _undone(self) -> None:
        outcome = Outcome.RESET if self.is_repair else Outcome.LEFT
        for variant, rules in self._rules.items():
            for undone in audit.iter_undone(self.engine, variant):
                path = existing_source(self.engine, undone.clip_id)
                reason = f"label again: {path_text(path)}" if path else "no source file is left"
                if rules.recipe is not None:
                    verb = "combine" if rules.recipe.heads is None else "score"
                    reason = f"{verb} again: {rules.stored.title}"
                self.report.add(Finding(Damage.UNDONE, undone.clip_sha256, reason, outcome))

    def _labelling(self, done: DoneLabelling) -> None:
        """Look at everything that one labelling promises, then decide about it as a whole."""
        rules = self._rules.get(done.variant)
        if rules is None:  # registered and committed since the check began: the next one sees it
            return
        findings, checked = self._files(done, rules)
        lost = [finding for finding in findings if finding.what in _LOST]
        if any(finding.what is Damage.UNREADABLE for finding in findings):
            outcome = Outcome.LEFT
        elif lost:
            outcome, findings = self._reset(done, findings, rules)
        else:
            outcome = self._correct(done, checked) if findings else Outcome.LEFT
            if self.report.is_deep:
                self._labels(done, rules)
        for finding in findings:
            self.report.add(Finding(finding.what, finding.where, finding.reason, outcome))

    def _files(
        self, done: DoneLabelling, rules: _Rules
    ) -> tuple[list[Finding], dict[Kind, Checked]]:
        findings: list[Finding] = []
        checked: dict[Kind, Checked] = {}
        for kind in KINDS:
            path, sha256 = _named(done, kind)
            if path is None:
                if rules.is_promised(kind) and done.n_patches != 0:
                    what = f"no {kind}, though it has patches"
                    findings.append(Finding(Damage.UNNAMED, done.clip_sha256, what))
                continue
            if not is_place_of(path, kind, rules.stored.model, done.clip_sha256):
                what = f"names {path!r}, which is not where this clip's {kind} belong"
                findings.append(Finding(Damage.UNNAMED, done.clip_sha256, what))
                continue
            self._must_be_there(kind)
            promise = Promise(sha256, done.n_patches, done.score_dtype, rules.n_columns(kind))
            result = check_file(self.home / path, promise, is_deep=self.report.is_deep)
            self.report.n_files += 1
            checked[kind] = result
            if result.fault is not None:
                # Every fault of a file is a damage of the same name.
                findings.append(Finding(Damage[result.fault.name], path, result.reason))
        if not any(finding.what in _LOST for finding in findings):
            findings += _misfits(done, rules, checked)
        return findings, checked

    def _must_be_there(self, kind: Kind) -> None:
        """A missing folder is most likely a mistake, and no reason to label everything again."""
        if not (self.home / kind).is_dir():
            raise UserError(
                f"the tables name files in {self.home / kind}, which is not there: is --home "
                f"right, is its disk mounted? If the files are lost, make that folder first"
            )

    def _reset(
        self, done: DoneLabelling, findings: list[Finding], rules: _Rules
    ) -> tuple[Outcome, list[Finding]]:
        gone = self._gone(done, rules)
        if gone:
            return Outcome.LEFT, [Finding(f.what, f.where, f.reason + gone) for f in findings]
        if not self.is_repair:
            return Outcome.LEFT, findings
        # A finished labelling is no run's work any more: no run holds a claim on it.
        is_reset = repair.reset_labelling(self.engine, done)
        return (Outcome.RESET if is_reset else Outcome.REPAIRED), findings

    def _gone(self, done: DoneLabelling, rules: _Rules) -> str:
        """Why the labelling cannot be made again; "" if it can."""
        if rules.recipe is None:
            return "" if existing_source(self.engine, done.clip_id) else _GONE
        why = _NO_PARTS if rules.recipe.heads is None else _NO_SOURCE
        if rules.plan is None:
            return why
        own = part_labellings(self.engine, done.clip_id, rules.plan.parts)
        recipe = rules.plan.recipe
        try:
            n_whole = len([checked_scores(self.home, each, recipe.reads) for each in own])
            if recipe.heads is not None:
                read_heads(self.home / recipe.heads.file, recipe.heads.sha256)
        except (AudioError, WeightsError):
            return why
        return "" if n_whole == len(rules.plan.parts) else why

    def _correct(self, done: DoneLabelling, checked: Mapping[Kind, Checked]) -> Outcome:
        if not self.is_repair:
            return Outcome.LEFT
        values: dict[str, Any] = {}
        for kind, result in checked.items():
            if result.fault is Fault.PROMISE:
                values |= {"n_patches": result.n_patches, "score_dtype": result.dtype}
                values[f"{kind}_sha256"] = result.sha256
        repair.correct_labelling(self.engine, done, values)
        return Outcome.REPAIRED

    def _labels(self, done: DoneLabelling, rules: _Rules) -> None:
        """The rows against what the stored scores pool to."""
        right = Labels({}, {})
        if done.scores_path is not None:
            scores = read_scores(self.home / done.scores_path, mmap=True)
            right = pooled_labels(scores, rules.stored.parameters, rules.node_of)
        stored = audit.labels_of(self.engine, done.labelling_id)
        where, steps_per_row = done.scores_path or done.clip_sha256, rules.stored.steps_per_row
        if steps_per_row > 1:
            # The file has no steps: wrong rows are put right by labelling again.
            reason = difference(as_rows(stored, steps_per_row), without_steps(right))
            if reason:
                finding = Finding(Damage.LABELS, where, reason)
                outcome, findings = self._reset(done, [finding], rules)
                self.report.add(replace(findings[0], outcome=outcome))
            return
        reason = difference(stored, right)
        if reason:
            is_repaired = self.is_repair and repair.rewrite_labels(self.engine, done, right)
            self._add(Damage.LABELS, where, reason, is_repaired)

    # --- taught models ---

    def _taught_weights(self) -> None:
        """Nothing here can make them again: the examples can, or a copy of the file."""
        for file, wrong in lost_heads(self.engine, self.home):
            is_there = (self.home / file.file).exists()
            self._add(Damage.DAMAGED if is_there else Damage.MISSING, file.file, wrong + _TEACH)

    # --- tables ---

    def _tables(self) -> None:
        for labelling_id, clip in audit.iter_stray_labels(self.engine):
            # Safe beside its run: under the clip's lock, and a commit writes its rows afresh.
            is_repaired = self.is_repair and repair.remove_stray_labels(self.engine, labelling_id)
            self._add(Damage.STRAY, clip, "unfinished, yet it has labels", is_repaired)
        for clip_id, clip in audit.iter_without_current(self.engine):
            if self.is_repair:
                # Safe beside a commit, which makes its labelling current under the same lock.
                repair.choose_current(self.engine, clip_id)
            self._add(Damage.SPEECHLESS, clip, "queries do not see it", self.is_repair)
        wrong = closure_differences(self.engine)
        if wrong and self.is_repair:
            # Safe: derived from the edges inside the transaction, as a run would store it.
            rebuild_closure(self.engine)
        for pair in wrong:
            where = f"{pair.ancestor} > {pair.descendant}"
            reason = f"depth {_or_none(pair.stored)}, by the edges {_or_none(pair.right)}"
            self._add(Damage.CLOSURE, where, reason, self.is_repair)
        # Last: what was put right before has changed the counts with it.
        for mid, n_wrong in check_totals(self.engine, is_repair=self.is_repair).items():
            self._add(Damage.TOTALS, mid, f"{n_wrong:,} of its counts", self.is_repair)


def _rules(variant: Variant, variants: Variants, node_of: Mapping[int, int]) -> _Rules:
    stored = variants[variant]
    recipe = recipe_of(stored)
    plan = repair_plan(recipe, variant, variants) if recipe else None
    return _Rules(stored, _frontend(basis_of(stored, variants)), node_of, recipe, plan)


def _frontend(stored: StoredVariant) -> FrontendConfig | None:
    try:
        return find_bundle(stored.model, has_scores=stored.n_classes > 0).framed(
            patch_hop_s=stored.row_hop_s, framing=stored.extra["framing"]
        )
    except (UserError, KeyError):
        return None


def _named(done: DoneLabelling, kind: Kind) -> tuple[str | None, str | None]:
    if kind == "scores":
        return done.scores_path, done.scores_sha256
    return done.embeddings_path, done.embeddings_sha256


def _misfits(
    done: DoneLabelling, rules: _Rules, checked: Mapping[Kind, Checked]
) -> Iterator[Finding]:
    """Numbers of patches that cannot be true, of files that are as they were written."""
    counts = {kind: result.n_patches for kind, result in checked.items()}
    if len(set(counts.values())) > 1:
        said = " and ".join(f"{count} patches of {kind}" for kind, count in counts.items())
        yield Finding(Damage.LENGTH, done.clip_sha256, said)
        return
    n_patches = next(iter(counts.values()), done.n_patches)
    if rules.frontend is None or n_patches is None:
        return
    fitting = fitting_patches(rules.frontend, done.n_samples, done.sample_rate_hz)
    if n_patches not in fitting:
        reason = (
            f"{n_patches} patches; {done.n_samples:,} samples at {done.sample_rate_hz} Hz make "
            f"{fitting[0]}" + (f" to {fitting[-1]}" if len(fitting) > 1 else "")
        )
        yield Finding(Damage.LENGTH, done.clip_sha256, reason)


def _or_none(depth: int | None) -> str:
    return "none" if depth is None else str(depth)
