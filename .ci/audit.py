"""Asks the vulnerability service about every pin of constraints.txt: `make audit`.

A known vulnerability fails. A service that cannot be asked does not, but is told: nothing was
audited then. It is asked about one pin first, so that one without an answer is not asked 200 times.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
_TIMEOUT_S = 600


class NoAnswerError(Exception):
    """The vulnerability service could not be asked."""


def ask(command: list[str], pins: list[str]) -> list[dict[str, Any]]:
    """What the service knows of each pin.

    Raises:
        NoAnswerError: it does not answer, or knows none of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pins.txt"
        listed.write_text("\n".join(pins) + "\n")
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        try:
            done = subprocess.run(  # noqa: S603 (pip-audit, named in the Makefile)
                [*command, *options, "--requirement", str(listed)],
                capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"no answer within {_TIMEOUT_S} s") from None
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise NoAnswerError(said[-1].strip()[:200]) from None
    if all("vulns" not in pin for pin in found):
        raise NoAnswerError(str(found[0].get("skip_reason", "")) if found else "nothing was asked")
    return found


def main(command: list[str]) -> int:
    """The exit code: 1 if a pin is vulnerable."""
    pins = [line for line in PINS.read_text().splitlines() if line and not line.startswith("#")]
    try:
        ask(command, pins[:1])
        found = ask(command, pins)
    except NoAnswerError as error:
        print("audit: NOTHING WAS AUDITED, the vulnerability service cannot be asked from here:")
        print(f"  {error}")
        return 0
    skipped = [pin["name"] for pin in found if "vulns" not in pin]
    bad = [(pin, flaw) for pin in found for flaw in pin.get("vulns", ())]
    for pin, flaw in bad:
        fixed = ", ".join(flaw.get("fix_versions", ())) or "no version yet"
        print(f"audit: {pin['name']} {pin['version']}: {flaw['id']}, fixed in {fixed}")
    if skipped:
        print(f"audit: not audited, the service does not know them: {', '.join(skipped)}")
    print(f"audit: {len(found) - len(skipped)} pins audited, {len(bad)} known vulnerabilities")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
