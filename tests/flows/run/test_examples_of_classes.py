"""Which patches are examples: marks of spans and of whole recordings."""

from __future__ import annotations

import numpy as np

from db.score_files.labelled import ScoredClip
from tasks.teaching.examples import Mark, labels_of, thinned

CLIP = ScoredClip(
    labelling_id=1, clip_id=1, clip_sha256="a" * 64, duration_s=5.0, model_id=1, n_classes=0,
    window_s=0.96, patch_hop_s=0.48, steps_per_row=1, n_patches=10, score_dtype="float16",
    scores_path=None, scores_sha256=None, embeddings_path="x", embeddings_sha256="b" * 64,
    embedding_dim=8,
)  # fmt: skip
# Bark is below Dog; Rain is no kin of theirs.
MIDS = ("dog", "bark", "rain")
BELOW = (frozenset({"dog", "bark"}), frozenset({"bark"}), frozenset({"rain"}))
DOG, BARK, RAIN = range(3)


def columns(*marks: Mark) -> list[str]:
    """Each class's patches: + present, - absent, . unknown."""
    labels = labels_of(marks, CLIP, BELOW, MIDS)
    return ["".join({1: "+", 0: "-", -1: "."}[value] for value in own) for own in labels.T]


def test_patches_whose_centre_lies_in_a_span_are_examples() -> None:
    # Centres at 0.48, 0.96, 1.44, ... s; the end of a span is not in it.
    assert columns(Mark(DOG, True, (0.9, 1.92))) == [".++.......", "..........", ".--......."]
    # A span between two centres has the nearest patch, also behind the last one.
    assert columns(Mark(DOG, True, (1.0, 1.1)))[DOG] == ".+........"
    assert columns(Mark(DOG, True, (90.0, 91.0)))[DOG] == ".........+"


def test_a_recording_as_a_whole_and_a_yes_within_a_no() -> None:
    assert columns(Mark(RAIN, True, None)) == ["----------", "----------", "++++++++++"]
    said = columns(Mark(BARK, True, (0.0, 1.0)), Mark(BARK, False, None))
    assert said == ["..........", "++--------", "--........"]


def test_what_is_in_one_recording_is_no_counterexample() -> None:
    said = columns(Mark(DOG, True, (0.0, 1.0)), Mark(RAIN, True, (3.0, 5.0)))
    assert said[DOG] == "++........"
    assert said[RAIN] == "......++++"  # the centre of the seventh is at 3.36 s


def test_long_recordings_are_thinned_evenly() -> None:
    labels = np.array([[1]] * 90 + [[0]] * 5 + [[-1]] * 5, dtype=np.int8)
    kept = thinned(labels, 4)[:, 0]
    assert np.flatnonzero(kept == 1).tolist() == [0, 30, 59, 89]
    assert (kept == 0).sum() == 4
    assert (thinned(labels, 99) == labels).all()
