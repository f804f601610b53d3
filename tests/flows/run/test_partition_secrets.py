"""What partitions are given, Prefect stores and shows: no password may be among it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from audioset_core.errors import UserError
from flows.run.partitions import label_partitions
from flows.run_options import ExecutionOptions
from flows.run_report.summary import Summary


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@h/n", "postgresql://h/n?password=s3cret"])
def test_a_password_is_refused_before_anything_is_started(url: str) -> None:
    nothing: Any = None
    with pytest.raises(UserError, match="AUDIOSET_DB in its environment") as caught:
        label_partitions(
            nothing, nothing, ExecutionOptions(partitions=2), SecretStr(url), Summary(), nothing,
            nothing,
        )  # fmt: skip
    assert "s3cret" not in str(caught.value)
