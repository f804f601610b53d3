"""What is fuzzed: everything that reads a file somebody else made.

A target has good files to begin from, written by program, and a check: it returns if the file was
read or refused as it should be, and raises whatever else came of it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from audioset_core.audio.recording import Recording
from audioset_core.checkpoints.readers import find_container, open_container
from audioset_core.errors import AudioError, Reason, UserError, WeightsError
from audioset_core.inputs.walk import PassedOver, find_recordings, read_inputs
from audioset_core.ontology.graph import Ontology
from audioset_core.storage.score_files import npy_bytes, read_scores
from audioset_core.weights.convert import read_metadata
from tests.torture.makers import FORMATS, constant_flac, encoded, id3, noise, with_ffmpeg

_SHAPES = {"conv/kernel": (3, 3, 1, 4), "conv/bias": (4,), "dense": (8, 5)}


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of file. ``suffix`` is the ending that it is given."""

    suffix: str
    seeds: Callable[[], list[bytes]]
    check: Callable[[Path], None]


def sound_seeds() -> list[bytes]:
    """A short sound in every format."""
    rates = {"vorbis": 44_100, "opus": 48_000, "mp3": 44_100}
    seeds = [
        encoded(name, noise(rate_hz, min(2, most), 0.2), rate_hz)
        for name, (_, _, found, most, _) in FORMATS.items()
        for rate_hz in (rates.get(name, found[0]),)
    ]
    seeds += [constant_flac(600), id3(64, bytes(64)) + seeds[-1]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        for codec, container in (
            ("aac", "ipod"), ("alac", "mov"), ("libopus", "webm"), ("flac", "matroska"),
            ("aac", "adts"), ("pcm_s16le", "avi"),
        ):  # fmt: skip
            with_ffmpeg(path, noise(48_000, 1, 0.2), 48_000, codec, container)
            seeds.append(path.read_bytes())
    return seeds


def check_sound(path: Path) -> None:
    try:
        with Recording(os.fsencode(path)) as recording:
            n_samples = 0
            for block in recording.blocks():
                assert block.dtype == np.float32
                assert np.isfinite(block).all()
                n_samples += len(block)
            assert n_samples == recording.n_samples > 0
    except AudioError as error:
        # What the decoder's process died of is contained; a defect of ours is not.
        if error.reason is Reason.INTERNAL:
            raise
        _check_message(error)


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {name: rng.random(shape, np.float32) for name, shape in _SHAPES.items()}


def h5_seeds() -> list[bytes]:
    import h5py

    seeds = []
    for options in ({}, {"chunks": True, "compression": "gzip", "shuffle": True}):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for name, array in _arrays().items():
                file.create_dataset(name, data=array, **options)
            file.attrs["layer_names"] = ["conv", "dense"]
        seeds.append(buffer.getvalue())
    return seeds


def torch_seeds() -> list[bytes]:
    import torch

    seeds = []
    for is_zip in (True, False):
        for state in (_arrays(), {"model": _arrays(), "steps": np.arange(3)}):
            plain = {k: torch.from_numpy(v) for k, v in (state.get("model", state)).items()}
            buffer = io.BytesIO()
            torch.save(
                {"model": plain, "steps": state["steps"]} if "model" in state else plain,
                buffer,
                _use_new_zipfile_serialization=is_zip,
            )
            seeds.append(buffer.getvalue())
    return seeds


def check_container(path: Path) -> None:
    try:
        container = find_container(path)
        assert container is not None
        with open_container(container) as stored:
            for name, array in stored.items():
                # As layouts do: nothing is read that has another shape than the model's.
                if array.shape == _SHAPES.get(name.replace(".", "/")):
                    assert np.asarray(array).shape == array.shape
    except WeightsError as error:
        _check_message(error)


def safetensors_seeds() -> list[bytes]:
    from safetensors.numpy import save

    metadata = {"model": "yamnet", "version": "1-0", "source_sha256": "0" * 64}
    return [save(_Tiny.arrays(), metadata=metadata)]


class _Tiny:
    """A bundle of a small network."""

    @staticmethod
    def arrays() -> dict[str, Any]:
        return {"weight": np.ones((5, 8), np.float32), "bias": np.zeros(5, np.float32)}

    def build(self) -> Any:
        import torch

        return torch.nn.Linear(8, 5)


def check_safetensors(path: Path) -> None:
    from audioset_core.inference.torch_engine import load_network
    from audioset_core.weights.locate import ReadyWeights

    try:
        metadata = read_metadata(path)
        assert all(isinstance(value, str) for value in metadata.values())
    except WeightsError as error:
        _check_message(error)
    try:
        load_network(cast(Any, _Tiny()), ReadyWeights(path, "tiny", "1", "0"))
    except WeightsError as error:
        _check_message(error)


def csv_seeds() -> list[bytes]:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["path", "id", "meta", "site"])
    rows.writerow(["a.wav", "1", '{"n": 1, "deep": [1, {"x": null}]}', "north"])
    rows.writerow(["ü, b.wav", "", "", "sou\nth"])
    excel = (
        "sep=;\r\nFile;Recorded at;meta\r\n~/a.wav;18.05.2024;\r\nsub\\b.wav;1716006600123;{}\r\n"
    )
    return [
        text.getvalue().encode(),
        b"\xef\xbb\xbfpath\na.wav\nsub/../b.wav\n",
        excel.encode(),
        excel.encode("utf-16"),
    ]


def jsonl_seeds() -> list[bytes]:
    lines = [{"path": "a.wav", "id": 7, "meta": {"é": [1.5, None]}}, {"path": "b.wav", "x": "y"}]
    return ["\n".join(json.dumps(line) for line in lines).encode()]


def check_manifest(path: Path) -> None:
    try:
        inputs = read_inputs([], path)
        for found in find_recordings(inputs, PassedOver()):
            json.dumps(found.meta, allow_nan=False).encode()
            (found.user_id or "").encode()
    except UserError as error:
        _check_message(error)


def ontology_seeds() -> list[bytes]:
    nodes: list[dict[str, object]] = [
        {"id": "/m/a", "name": "Sounds", "description": "All.", "citation_uri": "http://x",
         "positive_examples": ["y"], "child_ids": ["/m/b", "/m/c"], "restrictions": ["abstract"]},
        {"id": "/m/b", "name": "Bird", "description": "", "citation_uri": "",
         "positive_examples": [], "child_ids": ["/m/c"], "restrictions": []},
        {"id": "/m/c", "name": "Crow", "description": "", "citation_uri": "",
         "positive_examples": [], "child_ids": [], "restrictions": ["blacklist"]},
    ]  # fmt: skip
    return [json.dumps(nodes, indent=1).encode(), json.dumps(nodes).encode()]


def check_ontology(path: Path) -> None:
    try:
        ontology = Ontology.from_official_json(path)
        for node in ontology.nodes.values():
            node.name.encode()
        assert len(list(ontology.closure())) >= len(ontology.nodes)
    except UserError as error:
        _check_message(error)


def npy_seeds() -> list[bytes]:
    rng = np.random.default_rng(2)
    return [npy_bytes(rng.random((4, 7)).astype(kind)) for kind in ("float16", "float32")]


def check_npy(path: Path) -> None:
    for mmap in (False, True):
        try:
            assert read_scores(path, mmap=mmap).ndim == 2
        except AudioError as error:
            _check_message(error)


def _check_message(error: Exception) -> None:
    """What a person reads: one line of text that any terminal can be sent."""
    assert "\n" not in str(error), repr(str(error))
    str(error).encode("utf-8", "surrogateescape")


TARGETS: dict[str, Target] = {
    "sound": Target("", sound_seeds, check_sound),
    "h5": Target(".h5", h5_seeds, check_container),
    "torch": Target(".pth", torch_seeds, check_container),
    "safetensors": Target(".safetensors", safetensors_seeds, check_safetensors),
    "csv": Target(".csv", csv_seeds, check_manifest),
    "jsonl": Target(".jsonl", jsonl_seeds, check_manifest),
    "ontology": Target(".json", ontology_seeds, check_ontology),
    "npy": Target(".npy", npy_seeds, check_npy),
}
