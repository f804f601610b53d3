"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from audioset_core.weights.convert import convert
from audioset_core.weights.locate import ReadyWeights
from tests import bounds

# A time per example would be read off a machine: a busy one takes longer. Tests that hang are
# ended by pytest-timeout.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ratios", metavar="FILE", help="write how much of each bound was used up")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """For the table of `tests.numeric`."""
    if path := session.config.getoption("--ratios"):
        ratios = {test: astuple(ratio) for test, ratio in bounds.seen.items()}
        Path(path).write_text(json.dumps(ratios))


_NO_ASSETS = "AUDIOSET_ASSETS is not set"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """TensorFlow's import alone takes as long as a hundred tests: all that need it are slow."""
    for item in items:
        if item.get_closest_marker("tf"):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line on what was not tested for want of weights, golden vectors and recordings."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", ())]
    n_skipped = sum(_NO_ASSETS in str(why) for why in skipped)
    if n_skipped:
        terminalreporter.write_line(
            f"{n_skipped} tests were skipped, {_NO_ASSETS}: they need weights, golden vectors or "
            f"recordings that are not part of the project"
        )


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of weights, golden vectors and recordings, which are not part of the project."""
    if "AUDIOSET_ASSETS" in os.environ:
        return Path(os.environ["AUDIOSET_ASSETS"])
    if "CI" in os.environ:
        pytest.fail(f"{_NO_ASSETS}: the strongest tests would be skipped")
    pytest.skip(_NO_ASSETS)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20_170_305)


@pytest.fixture(scope="session")
def yamnet_weights(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> ReadyWeights:
    """YAMNet, converted once per session from the file with real batch-norm statistics."""
    target = tmp_path_factory.mktemp("weights") / "yamnet.safetensors"
    found = convert(assets / "weights" / "yamnet_bn.h5", target)
    return ReadyWeights(target, "yamnet", found["version"], found["source_sha256"])
