"""Tables and weights that are part of the package, and their folder."""

from pathlib import Path

FOLDER = Path(__file__).parent
