"""Against answers that are known by hand."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import UserError
from audioset_core.evaluation.bootstrap import ranking_precision, weighted_ap_and_auc
from audioset_core.evaluation.metrics import UNKNOWN, Measures, best_threshold, d_prime, measure

pytest.importorskip("sklearn", reason="needs the extra 'evaluate'")
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

pytestmark = pytest.mark.numeric


def measured(scores: Any, labels: Any, **options: Any) -> Measures:
    table = np.array(scores, dtype=np.float32)
    mids = [f"/{k}" for k in range(table.shape[1])]
    return measure(table, np.array(labels, dtype=np.int8), mids, **options)


def one_class(scores: list[float], labels: list[int]) -> Any:
    (found,) = measured([[s] for s in scores], [[t] for t in labels]).classes
    return found


class TestOneClass:
    def test_known_ranks(self) -> None:
        """+ - + -: AP = (1/1 + 2/3) / 2, AUC = 3 of 4 pairs in order."""
        found = one_class([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0])
        assert (found.n_positives, found.n_negatives) == (2, 2)
        assert found.ap == pytest.approx(5 / 6)
        assert found.auc == pytest.approx(3 / 4)
        # z(3/4) = 0.67449 (the quartile of a normal distribution)
        assert found.d_prime == pytest.approx(math.sqrt(2) * 0.6744897501960817)

    def test_ties_count_half_and_are_taken_in_together(self) -> None:
        found = one_class([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0])
        assert found.auc == pytest.approx(0.5)
        assert found.d_prime == pytest.approx(0.0)
        assert found.ap == pytest.approx(1 / 4)

    def test_perfect_and_upside_down(self) -> None:
        perfect = one_class([0.9, 0.8, 0.2], [1, 1, 0])
        # An infinite distance is no number.
        assert (perfect.ap, perfect.auc, perfect.d_prime) == (1.0, 1.0, None)
        wrong = one_class([0.1, 0.8, 0.9], [1, 0, 0])
        assert (wrong.auc, wrong.ap) == (0.0, pytest.approx(1 / 3))

    @pytest.mark.parametrize(("labels", "counts"), [([0, 0], (0, 2)), ([1, 1], (2, 0))])
    def test_without_positives_or_negatives_nothing_is_said(
        self, labels: list[int], counts: tuple[int, int]
    ) -> None:
        found = one_class([0.3, 0.4], labels)
        assert (found.n_positives, found.n_negatives) == counts
        assert (found.ap, found.auc, found.d_prime, found.best) == (None, None, None, None)

    def test_what_is_not_known_does_not_count(self) -> None:
        with_unknown = one_class([0.9, 0.85, 0.8, 0.7, 0.1], [1, UNKNOWN, 0, 1, 0])
        assert with_unknown.ap == pytest.approx(5 / 6)
        assert (with_unknown.n_positives, with_unknown.n_negatives) == (2, 2)

    def test_the_best_threshold_is_halfway_to_what_it_leaves_out(self) -> None:
        best = one_class([0.9, 0.7, 0.5, 0.1], [1, 1, 0, 0]).best
        assert (best.f1, best.precision, best.recall) == (1.0, 1.0, 1.0)
        assert best.threshold == pytest.approx(0.6)
        # + - + -: all three give F1 = 4/5, the first alone 2/3.
        best = one_class([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]).best
        assert best.f1 == pytest.approx(0.8)
        assert best.threshold == pytest.approx(0.4)
        # Everything is let in: nothing below to be halfway to.
        assert one_class([0.9, 0.5], [0, 1]).best.threshold == pytest.approx(0.5)

    @given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.4, 0.7]), st.booleans()), max_size=12))
    def test_no_other_threshold_is_better(self, pairs: list[tuple[float, bool]]) -> None:
        scores = np.array([s for s, _ in pairs], dtype=np.float32)
        labels = np.array([t for _, t in pairs], dtype=np.int8)
        best = best_threshold(scores, labels)
        if best is None:
            assert labels.all() or not labels.any()
            return

        def f1(threshold: float) -> float:
            is_in = scores >= threshold
            hits = int((is_in & (labels == 1)).sum())
            return 2 * hits / int(is_in.sum() + labels.sum())

        assert best.f1 == pytest.approx(f1(best.threshold))
        assert best.f1 == pytest.approx(max(f1(float(each)) for each in scores))


class TestAllClasses:
    def test_means_are_over_classes_that_can_be_measured(self) -> None:
        scores = [[0.9, 0.9, 0.5], [0.8, 0.1, 0.5], [0.7, 0.8, 0.5], [0.1, 0.2, 0.5]]
        labels = [[1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
        found = measured(scores, labels)
        assert found.n_classes_in_means == 2
        assert found.mean_ap == pytest.approx((5 / 6 + 1) / 2)
        assert found.auc == pytest.approx((3 / 4 + 1) / 2)
        # d' is that of the mean AUC, which is finite where a class's own is not.
        assert found.d_prime == pytest.approx(d_prime(7 / 8))
        assert [c.ap for c in found.classes] == [pytest.approx(5 / 6), 1.0, None]

    def test_lwlrap_by_hand(self) -> None:
        """Ranks of the labels: 1 and 3 of three, then 2: (1/1 + 2/3 + 1/2) / 3 labels."""
        found = measured([[0.9, 0.5, 0.4], [0.9, 0.5, 0.4]], [[1, 0, 1], [0, 1, 0]])
        assert found.lwlrap == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)

    def test_lwlrap_of_ties_and_of_items_without_labels(self) -> None:
        """A tie takes the worse rank; an item without a label says nothing."""
        found = measured([[0.5, 0.5], [0.9, 0.1]], [[1, 0], [0, 0]])
        assert found.lwlrap == pytest.approx(1 / 2)
        assert measured([[0.5, 0.5]], [[0, 0]]).lwlrap is None
        assert measured([[0.5, 0.4]], [[1, UNKNOWN]]).lwlrap is None

    def test_one_class_only(self) -> None:
        found = measured([[0.9], [0.8], [0.7], [0.1]], [[1], [0], [1], [0]])
        assert (found.mean_ap, found.lwlrap) == (pytest.approx(5 / 6), 1.0)
        assert found.zero_shot is None

    def test_zero_shot_is_the_share_of_right_picks(self) -> None:
        scores = [[0.3, 0.2], [0.1, 0.6], [0.2, 0.9], [0.4, 0.3]]
        labels = [[1, 0], [0, 1], [1, 0], [1, 0]]
        assert measured(scores, labels, is_exclusive=True).zero_shot == pytest.approx(3 / 4)

    def test_nothing_measurable(self) -> None:
        found = measured([[0.5]], [[0]], n_resamples=5)
        assert (found.mean_ap, found.auc, found.d_prime, found.lwlrap) == (None, None, None, None)
        assert found.intervals == {}


class TestIntervals:
    @pytest.fixture
    def table(self, rng: np.random.Generator) -> tuple[Any, Any]:
        labels = rng.integers(0, 2, size=(60, 2))
        return labels * 0.3 + rng.random((60, 2)), labels

    def test_they_are_seeded_and_hold_the_value(self, table: tuple[Any, Any]) -> None:
        first = measured(*table, n_resamples=200, seed=3)
        assert first == measured(*table, n_resamples=200, seed=3)
        assert first.intervals != measured(*table, n_resamples=200, seed=4).intervals
        low, high = first.intervals["mAP"]
        assert low < first.mean_ap < high  # type: ignore[operator]
        assert set(first.intervals) == {"mAP", "AUC", "d_prime", "lwlrap"}
        assert all(each.ap_interval is not None for each in first.classes)

    def test_items_of_a_clip_are_drawn_together(self, table: tuple[Any, Any]) -> None:
        """Each item four times over is no more evidence than once, if they are of one clip."""
        scores, labels = (np.repeat(each, 4, axis=0) for each in table)
        clips = [f"{n:03d}" for n in np.repeat(np.arange(60), 4)]
        once = measured(*table, n_resamples=200).intervals["AUC"]
        together = measured(scores, labels, clips=clips, n_resamples=200)
        assert together.n_clips == 60
        assert together.intervals["AUC"] == pytest.approx(once)
        apart = measured(scores, labels, n_resamples=200).intervals["AUC"]
        assert apart[1] - apart[0] < 0.75 * (once[1] - once[0])

    def test_one_clip_alone_has_none(self) -> None:
        scores, labels = [[0.9], [0.8], [0.1]], [[1], [0], [0]]
        assert measured(scores, labels, clips=["a"] * 3, n_resamples=9).intervals == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.1, 0.2, 0.4, 0.7]), st.sampled_from([0, 1]), st.integers(0, 3)
        ),
        max_size=12,
    )
)
def test_resampled_measures_are_those_of_scikit_learn(rows: list[tuple[float, int, int]]) -> None:
    scores = np.array([row[0] for row in rows], dtype=np.float32)
    truth = np.array([row[1] for row in rows], dtype=np.int8)
    weights = np.array([row[2] for row in rows], dtype=np.float64)
    (ap,), (auc,) = weighted_ap_and_auc(scores, truth, weights[np.newaxis])
    if not (weights[truth == 1].any() and weights[truth == 0].any()):
        assert math.isnan(ap)
        assert math.isnan(auc)
        return
    assert ap == pytest.approx(average_precision_score(truth, scores, sample_weight=weights))
    assert auc == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights))


def test_ranking_precision_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 4, size=(40, 5)).astype(np.float32)
    labels = rng.integers(0, 2, size=(40, 5)).astype(np.int8)
    labels[:, 0] = 1
    found = ranking_precision(scores, labels)
    assert found.mean() == pytest.approx(
        label_ranking_average_precision_score(labels.astype(int), scores)
    )
    assert ranking_precision(scores, labels * 0).tolist() == [0.0] * 40


def test_without_scikit_learn_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(UserError, match=r"audioset-flows\[evaluate\]"):
        measured([[0.5]], [[1]])
