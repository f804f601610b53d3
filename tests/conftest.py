"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of weights, golden vectors and recordings, which are not part of the project."""
    if "AUDIOSET_ASSETS" in os.environ:
        return Path(os.environ["AUDIOSET_ASSETS"])
    if "CI" in os.environ:
        pytest.fail("AUDIOSET_ASSETS is not set: the strongest tests would be skipped")
    pytest.skip("AUDIOSET_ASSETS is not set")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20_170_305)
