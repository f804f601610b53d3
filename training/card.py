"""The data card: every source of sound with its licences and hours, as a Markdown table."""

from __future__ import annotations

import json

from training.fetch import read_packages
from training.places import Places

_PROGRAMS = {
    "espeak-ng": "speech made by the program (GPL-3+; its output is free)",
    "flite": "speech made by the program (BSD-like)",
    "fluidsynth": "random music of our own with the sound font FluidR3_GM (MIT)",
}


def data_card(places: Places) -> str:
    """The table, longest source first; recipes of `synthesis` as one row."""
    packages = {package.name: package for package in read_packages()}
    rows: list[tuple[float, str, str, str]] = []
    made_h = 0.0
    for path in places.frames.glob("*.json"):
        about, name = json.loads(path.read_text()), path.stem
        if name in packages:
            use = "held-out measures" if about["is_held_out"] else "training"
            rows.append((about["hours"], name, use, packages[name].licences))
        elif name in _PROGRAMS:
            rows.append((about["hours"], name, "training", _PROGRAMS[name]))
        else:
            made_h += about["hours"]
    rows.append((made_h, "`training/synthesis.py`", "training", "our own (MIT)"))
    rows.sort(reverse=True)
    total_h = sum(row[0] for row in rows)
    lines = [
        f"{len(rows)} sources, {total_h:.1f} hours, before altered copies.",
        "",
        "| source | hours | use | licences, as the package's copyright file names them |",
        "|---|---|---|---|",
    ]
    for hours, name, use, licences in rows:
        lines.append(f"| {name} | {hours:.2f} | {use} | {licences.replace('|', '/')} |")
    return "\n".join(lines) + "\n"
