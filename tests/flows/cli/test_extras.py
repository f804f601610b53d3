"""What is not installed with the project: each extra has a reason, each command names its line."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audioset_core.errors import UserError
from flows.run.dask_cluster import dask_cluster
from flows.run_options import ExecutionOptions
from tests.flows.build import REPOSITORY
from tests.flows.scored import Collection

Audioset = Callable[..., Any]
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()
EXTRAS = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
# Packages to keep away, and the modules of ours that have imported them in another test.
PACKAGES = {
    "plot": ("matplotlib", "flows.figures.clip_figure", "flows.figures.curve_figure"),
    "parquet": ("pyarrow",),
    "publish": ("frictionless",),
    "evaluate": ("sklearn",),
    "index": ("usearch",),
    "redact": ("silero_vad",),
    "convert": ("tensorflow", "tf_keras"),
    "dask": ("prefect_dask",),
}
FOR_DEVELOPERS = {"bench", "dev", "reference"}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """Has an extra's packages be missing; the end of the message that is to be said then."""

    def take_away(extra: str) -> str:
        for name in list(sys.modules):
            if name in PACKAGES[extra] or name.startswith(tuple(f"{p}." for p in PACKAGES[extra])):
                monkeypatch.delitem(sys.modules, name)
        for package in PACKAGES[extra]:
            if not package.startswith("flows."):
                monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setenv("PATH", str(tmp_path))  # no such program elsewhere either
        return f"pip install 'audioset-flows[{extra}]'\n"

    return take_away


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("plot", "plot CLIP"),
        ("plot", "curve --under Dog"),
        ("parquet", "export parquet OUT"),
        ("evaluate", "evaluate --truth TRUTH"),
        ("evaluate", "thresholds fit --name night --truth TRUTH --min-positives 1"),
        ("evaluate", "teach Dog --name my-sounds"),
        ("index", "index build"),
        ("redact", "redact --out OUT"),
        ("convert", "convert CHECKPOINT -o OUT --model vggish"),
        ("convert", "convert WEIGHTS -o OUT --verify"),
    ],
)
def test_a_command_names_the_line_that_installs_what_it_needs(
    audioset: Audioset,
    collection: Collection,
    without: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    placeholder: Path,
    extra: str,
    line: str,
) -> None:
    clip = collection.add("/x/a.wav", {"Dog": [0.9]})
    collection.add("/x/b.wav", {"Dog": [0.2]})
    truth, checkpoint = tmp_path / "truth.csv", tmp_path / "vggish_model.ckpt"
    truth.write_text("file,label\na.wav,Dog\nb.wav,\n")
    checkpoint.write_bytes(b"\0")
    values = {"CLIP": clip, "TRUTH": truth, "CHECKPOINT": checkpoint, "WEIGHTS": placeholder}
    arguments = [
        values.get(word, word.replace("OUT", str(tmp_path / "o"))) for word in line.split()
    ]
    home = () if extra == "convert" else ("--home", collection.home)
    ending = without(extra)
    said = audioset(*arguments, *home)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.endswith(ending)
    assert said.err.count("\n") == 1


def test_the_dask_runner_names_its_line(without: Callable[[str], str]) -> None:
    ending = without("dask")
    with (
        pytest.raises(UserError, match=re.escape(ending.strip()) + "$"),
        dask_cluster(ExecutionOptions(task_runner="dask")),
    ):
        pass


def test_every_extra_has_its_reason_and_its_line() -> None:
    assert EXTRAS.keys() == PACKAGES.keys() | FOR_DEVELOPERS
    lines = PYPROJECT.splitlines()
    for extra in EXTRAS:
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{extra} = ["))
        assert lines[at - 1].startswith("# "), extra
    named = {
        extra
        for folder in ("audioset_core", "flows")
        for path in (REPOSITORY / folder).rglob("*.py")
        for extra in re.findall(r"audioset-flows\[(\w+)\]", path.read_text())
    }
    assert named == PACKAGES.keys()
