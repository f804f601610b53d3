"""The start of every command that asks: its CPU time, compared with the libraries that it needs.

    .venv/bin/python -m benchmarks.asking --home demo-data [--repeats 5]

Printed is each command's ratio to ``python -c 'import typer, rich.console, sqlalchemy'``: of its
``--help``, and of its whole answer from a home of few clips (`make demo` makes one). All take
turns, and the fastest turn of each counts. The goal for the start is 1.5.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.processes import run_python

BASELINE = ("-c", "import typer, rich.console, sqlalchemy")


def asking_commands(clip: Path, home: Path, out: Path) -> list[tuple[str, ...]]:
    """Every command that asks; what is written goes to the folder `out`."""
    recording = str(clip)
    asked: list[tuple[str, ...]] = [
        ("query", "--under", "Animal", "--min-score", "0.1"),
        ("hours",),
        ("rank", "--under", "Animal"),
        ("similar", recording),
        ("show", recording),
        ("failures",),
        ("models",),
        ("diff", "yamnet", "yamnet"),
        ("classes", "list"),
        ("ontology", "show", "Dog"),
        ("sql", "SELECT name FROM class_hours LIMIT 1"),
        ("times",),
        ("thresholds", "list"),
        ("verdicts", "list"),
        ("verdicts", "show"),
        ("verdicts", "history"),
        ("curve", "--under", "Animal", "--json"),
        ("export", "csv", "-"),
        ("export", "json", str(out / "labels.json")),
        ("export", "raven", str(out / "raven"), "--overwrite"),
    ]
    return [
        *((*each, "--home", str(home)) for each in asked),
        ("ontology", "tree", "--depth", "1"),
        ("ontology", "search", "dog"),
        ("ontology", "missing", "Vehicle"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="a home with labels")
    parser.add_argument("--clip", type=Path, help="a recording that it has labelled")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    home = asked.home.absolute()
    clip = asked.clip or next(iter(sorted((home / "audio").iterdir())))
    with tempfile.TemporaryDirectory() as folder:
        answers = asking_commands(clip.absolute(), home, Path(folder))
        lines: dict[tuple[str, ...], tuple[str, ...]] = {(): BASELINE}
        for answer in answers:
            lines[answer] = ("-m", "flows.cli.program", *answer)
            n_words = 2 if answer[0] in ("classes", "ontology", "thresholds", "export") else 1
            lines[*answer, "--help"] = ("-m", "flows.cli.program", *answer[:n_words], "--help")
        compiled = f"{folder}/compiled"
        environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
        fastest = dict.fromkeys(lines, float("inf"))
        for turn in range(-1, asked.repeats):  # the first fills the caches
            for what, line in lines.items():
                cpu_s = run_python(line, environment=environment).cpu_s
                if turn >= 0:
                    fastest[what] = min(fastest[what], cpu_s)
    print(f"{'':44}{'--help':>8}{'answer':>8}   (1 is {fastest[()]:.3f} s of CPU)")
    for answer in answers:
        ratios = [fastest[each] / fastest[()] for each in ((*answer, "--help"), answer)]
        words = answer[: answer.index("--home")] if "--home" in answer else answer
        name = " ".join(Path(word).name if word.startswith("/") else word for word in words)
        print(f"{name:44}" + "".join(f"{ratio:8.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
