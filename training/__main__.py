"""`python -m training STEP --work FOLDER`: make the embedded model's weights, step by step."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.places import Places

_STEPS = ("fetch", "sounds", "frames", "mixtures", "train", "export", "evaluate", "card", "classes")


def main() -> None:
    """Run one step, or all of them in turn; what is done already is not done again."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("step", choices=("all", *_STEPS))
    parser.add_argument("--work", type=Path, default=Path("training-data"), help="working folder")
    parser.add_argument("--shards", type=int, default=160, help="shards of 8,192 mixtures")
    parser.add_argument("--samples", type=int, default=5_000_000, help="mixtures to train on")
    parser.add_argument("--only-free", action="store_true", help="no CC BY-SA, no GPL sounds")
    chosen = parser.parse_args()
    places = Places(chosen.work.absolute())
    for step in _STEPS if chosen.step == "all" else (chosen.step,):
        _run(step, places, chosen)


def _run(step: str, places: Places, chosen: argparse.Namespace) -> None:
    if step == "fetch":
        from training.fetch import fetch

        fetch(places)
    elif step == "sounds":
        from training.programs import make_music, make_speech

        make_speech(places)
        make_music(places)
    elif step == "frames":
        from training.corpus import build as build_frames

        build_frames(places)
    elif step == "mixtures":
        from training.mixtures import build

        build(places, "held-out", 2, only_free=False)
        build(places, "train", chosen.shards, only_free=chosen.only_free)
    elif step == "train":
        from training.train import train

        train(places, chosen.samples)
    elif step == "export":
        from training.export import export

        print(f"written: {export(places)}")
    elif step == "classes":
        from training.evaluate import classes

        print(classes(places, places.weights if places.weights.exists() else None), end="")
    elif step == "card":
        from training.card import data_card

        print(data_card(places), end="")
    else:
        from training.evaluate import evaluate

        evaluate(places, places.weights if places.weights.exists() else None)


if __name__ == "__main__":
    main()
