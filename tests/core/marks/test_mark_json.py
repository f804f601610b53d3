"""Marks in JSON, as Label Studio and others write them."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audioset_core.errors import UserError
from audioset_core.marks.names import keys_of_address
from tests.core.marks.marked import BIRD, CAT, DOG, SIREN, read_text, said


def _region(
    label: str, start: float, end: float, id: str = "x", **more: object
) -> dict[str, object]:
    value = {"start": start, "end": end, "channel": 0, "labels": [label]}
    return {"id": id, "type": "labels", "original_length": 10.0, "value": value, **more}


class TestLabelStudio:
    def test_what_was_removed_from_a_prediction_is_absent(self, tmp_path: Path) -> None:
        task = {
            "id": 4,
            "data": {"audio": "/data/local-files/?d=s/a%20b.wav", "clip": "c" * 64},
            "predictions": [
                {"result": [_region("Dog", 0, 2), _region("Cat", 3, 4), _region("Bird", 6, 7)]}
            ],
            "annotations": [
                {
                    "completed_by": {"id": 3, "email": "anna@x.org"},
                    "updated_at": "2026-05-01T10:00:00.123456Z",
                    "result": [_region("Dog", 0.5, 2), _region("Siren", 6, 7)],
                },
                {"completed_by": 4, "was_cancelled": True, "result": [_region("Siren", 1, 2)]},
            ],
        }
        found = read_text(tmp_path / "export.json", json.dumps([task]))
        assert said(found) == [
            ((0.5, 2.0), DOG, "present"), ((6.0, 7.0), SIREN, "present"),
            ((3.0, 4.0), CAT, "absent"), ((6.0, 7.0), BIRD, "absent"),
        ]  # fmt: skip
        mark = found.marks[0]
        assert (mark.by, mark.place) == ("anna@x.org", "task 4")
        assert mark.at == datetime(2026, 5, 1, 10, 0, 0, 123456, tzinfo=UTC)
        assert mark.keys == ("c" * 64, "s/a b.wav", "a b.wav")

    def test_the_reduced_format_choices_and_taxonomies(self, tmp_path: Path) -> None:
        rows = [
            {"audio": "/data/upload/2/0a1b2c3d-a.wav", "id": 1, "annotator": 2, "annotation_id": 9,
             "label": [{"start": 1, "end": 2, "channel": 0, "labels": ["Dog", "Cat"]}],
             "updated_at": "2026-05-01T10:00:00Z", "lead_time": 1.5},
        ]  # fmt: skip
        found = read_text(tmp_path / "min.json", json.dumps(rows))
        assert said(found) == [((1.0, 2.0), DOG, "present"), ((1.0, 2.0), CAT, "present")]
        assert found.marks[0].keys == ("0a1b2c3d-a.wav", "a.wav")
        assert found.marks[0].by == "2"
        whole = [
            {"type": "choices", "value": {"choices": ["Dog"]}},
            {"type": "taxonomy", "value": {"taxonomy": [["Animal", "Cat"]]}},
        ]
        task = {"data": {"audio": "s3://b/x/a.wav"}, "annotations": [{"result": whole}]}
        found = read_text(tmp_path / "t.json", json.dumps(task))
        assert said(found) == [(None, DOG, "present"), (None, CAT, "present")]

    @pytest.mark.parametrize(
        "told", [{"choice": "Dog"}, {"choice": {"choices": ["Dog"]}}, {"label": "Dog"}]
    )
    def test_a_single_choice_is_a_text(self, tmp_path: Path, told: dict[str, object]) -> None:
        """label-studio-frontend issue 259 has the like in the full format as well."""
        row = {"audio": "a.wav", "annotation_id": 1, **told}
        assert said(read_text(tmp_path / "m.json", json.dumps([row]))) == [(None, DOG, "present")]
        value = {"value": {"choices": "Dog"}}
        task = {"data": {"audio": "a.wav"}, "annotations": [{"result": [value]}]}
        assert said(read_text(tmp_path / "t.json", json.dumps([task]))) == [(None, DOG, "present")]

    def test_a_region_of_a_video_is_refused(self, tmp_path: Path) -> None:
        value = {"ranges": [{"start": 1, "end": 30}], "timelinelabels": ["Dog"]}
        task = {"data": {"video": "a.mp4"}, "annotations": [{"result": [{"value": value}]}]}
        found = read_text(tmp_path / "v.json", json.dumps([task]))
        assert (found.marks, len(found.problems)) == ([], 1)
        assert "in frames" in found.problems[0].text

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[1, 2", "is not JSON"),
            ("[1, 2]", "neither an export of Label Studio nor a list of objects"),
            ('{"model": 1, "model_categories": [], "predictions": {}}', "the scores of a model"),
        ],
    )
    def test_other_json(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            read_text(tmp_path / "x.json", text)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("/data/local-files/?d=s/a%20b.wav", ("s/a b.wav", "a b.wav")),
        ("/data/2020%3A51.flac?d=%2Fa%2Fb", ("/a/b/2020:51.flac", "a/b/2020:51.flac")),
        ("/data/upload/3/12345678-a.wav", ("12345678-a.wav", "a.wav")),
        ("12345678-a.wav", ("12345678-a.wav", "a.wav")),
        ("https://h:80/x/a.wav?token=1", ("/x/a.wav", "x/a.wav", "a.wav")),
        ("s3://bucket/x/a.wav", ("/x/a.wav", "x/a.wav", "a.wav")),
    ],
)
def test_addresses_of_label_studio(text: str, keys: tuple[str, ...]) -> None:
    assert keys_of_address(text)[: len(keys)] == keys


_NAMES = st.sampled_from(
    ["data", "audio", "annotations", "predictions", "result", "value", "start", "end", "labels",
     "choices", "annotation_id", "completed_by", "updated_at", "label", "id", "clip"]
)  # fmt: skip
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("Dog"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(_NAMES, _ANYTHING, max_size=6), max_size=3))
@pytest.mark.slow
def test_any_json_is_read_or_refused_in_a_line(tmp_path: Path, found: list[Any]) -> None:
    with suppress(UserError):
        for mark in read_text(tmp_path / "x.json", json.dumps(found)).marks:
            assert mark.keys
            assert "\0" not in mark.place + mark.by
