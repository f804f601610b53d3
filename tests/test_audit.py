"""`make audit` fails for a vulnerable pin, and never passes for an audit in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit.py"
CLEAN = {"name": "alembic", "version": "1", "vulns": []}
BAD = {"name": "h11", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
UNKNOWN = {"name": "zipp", "skip_reason": "Dependency not found: zipp (4.1.2)"}


def audit(folder: Path, report: list[dict[str, Any]] | None) -> tuple[int, str]:
    """Run it with a pip-audit that reports this; None: it has no network."""
    fake = folder / "fake.py"
    answer = None if report is None else json.dumps({"dependencies": report})
    fake.write_text(
        f"import sys\nanswer = {answer!r}\n"
        "assert '--disable-pip' in sys.argv and '--no-deps' in sys.argv\n"
        "if answer is None:\n    sys.exit('ConnectionError: no such host')\n"
        "print(answer)\nsys.exit('CVE' in answer)\n"
    )
    done = subprocess.run(
        [sys.executable, AUDIT, sys.executable, fake], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("report", "code", "said"),
    [
        ([CLEAN], 0, "1 pins audited, 0 known vulnerabilities"),
        ([CLEAN, BAD], 1, "h11 1: CVE-1, fixed in 2"),
        ([CLEAN, UNKNOWN], 0, "not audited, the service does not know them: zipp"),
        ([BAD, UNKNOWN], 1, "1 pins audited, 1 known vulnerabilities"),
        ([UNKNOWN], 0, "NOTHING WAS AUDITED"),
        ([], 0, "NOTHING WAS AUDITED"),
        (None, 0, "NOTHING WAS AUDITED"),
    ],
)
def test_what_an_audit_comes_to(
    tmp_path: Path, report: list[dict[str, Any]] | None, code: int, said: str
) -> None:
    found, printed = audit(tmp_path, report)
    assert found == code
    assert said in printed


def test_why_there_was_no_audit_is_told(tmp_path: Path) -> None:
    assert "no such host" in audit(tmp_path, None)[1]
