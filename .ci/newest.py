"""Prints what pyproject.toml asks for, without upper bounds: `make test-newest`.

Left out are TensorFlow and torchaudio, which tie other packages to their own releases, and what
only benchmarks need.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = ("bench", "convert", "reference")


def without_bounds(pyproject: Path) -> list[str]:
    """The requirements of the package and its extras, with lower bounds alone."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"].items()
    asked = [*project["dependencies"], *(r for e, rs in extras if e not in LEFT_OUT for r in rs)]
    own = f"{project['name']}["
    return [
        re.sub(r",?<[\d.]+", "", asking).replace("==", ">=")
        for asking in asked
        if not asking.startswith(own)
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(without_bounds(Path("pyproject.toml"))) + "\n")
