"""What `audioset label` costs end to end, against the plainest script for the same job.

    make bench                       (15 minutes of audio)
    .venv/bin/python benchmarks/label.py --minutes 60

Both label the same generated 44.1 kHz stereo FLAC files with the same weights, one after the other,
in processes of their own. The baseline is what people write first: whole file in memory, channel
mean, resample, log-mel of the whole, the network as published (batch norm not folded) in batches of
128, scores kept in memory and nothing stored. Ours includes Prefect, hashing, claims, fsynced score
files and SQL rows. Times without start-up are taken inside the processes; the machine is noisy, so
compare ratios. Weights are found as `audioset label` finds them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 44_100
FILE_S = 300

BASELINE = """
import sys, time, numpy as np, soundfile, soxr, torch
from safetensors.torch import load_file
from audioset_core.bundle import YAMNET
from audioset_core.frontend import log_mel, patches
from audioset_core.weights import prepare
network = YAMNET.build().eval()
network.load_state_dict(load_file(prepare(YAMNET).path))
began = time.perf_counter()
kept = []
for path in sys.argv[1:]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, 16000, "HQ")
    frames = torch.from_numpy(patches(log_mel(mono, YAMNET.frontend), YAMNET.frontend).copy())
    with torch.inference_mode():
        kept.append(torch.cat([network(batch)[0].sigmoid() for batch in frames.split(128)]))
print(time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_files = max(1, round(options.minutes * 60 / FILE_S))
        # In a process of its own: a child's peak memory begins with its parent's.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_corpus, args=(folder / "corpus", n_files)
        )
        maker.start()
        maker.join()
        files = sorted((folder / "corpus").iterdir())
        audio_s = len(files) * FILE_S
        rows = [
            ("baseline script", *run([sys.executable, "-c", BASELINE, *map(str, files)])),
            ("audioset label", *label(folder, files)),
            ("nothing to do", *label(folder, files)),
        ]
        helped = run([sys.executable, "-m", "flows.cli", "--help"])
        rows.append(("audioset --help", helped[0], helped[0], helped[2]))
    base = rows[0][2]
    print(f"{audio_s / 60:.0f} minutes of 44.1 kHz stereo FLAC, hop 0.48 s, CPU\n")
    print(f"{'':18}{'wall s':>9}{'work s':>9}{'x real time':>13}{'ratio':>8}{'peak MB':>9}")
    for what, wall_s, work_s, peak_mb in rows:
        worked = what in ("baseline script", "audioset label")
        speed = f"{audio_s / work_s:.0f}" if worked else ""
        ratio = f"{base / work_s:.2f}" if worked else ""
        print(f"{what:18}{wall_s:9.1f}{work_s:9.1f}{speed:>13}{ratio:>8}{peak_mb:9.0f}")
    if options.json:
        options.json.write_text(json.dumps({"audio_s": audio_s, "rows": rows}, indent=1))


def make_corpus(folder: Path, n_files: int) -> None:
    """Files of five minutes: noise that swells, with tones in it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    time_s = np.arange(FILE_S * RATE_HZ) / RATE_HZ
    for number in range(n_files):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * number) * time_s) * (np.sin(time_s / 3) > 0)
        noise = 0.1 * rng.standard_normal((len(time_s), 2)) * np.abs(np.sin(time_s / 7))[:, None]
        stereo = (tone[:, None] + noise).clip(-1, 1)
        soundfile.write(folder / f"{number:04}.flac", stereo, RATE_HZ)


def label(folder: Path, files: list[Path]) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "flows.cli", "label", *map(str, files)]
    return run([*command, "--home", str(folder / "home"), "--device", "cpu"])


def run(command: list[str]) -> tuple[float, float, float]:
    """(wall seconds, seconds of work as the process says, its peak resident MB)."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - began
        output.seek(0)
        printed = output.read()
    if child.returncode:
        sys.exit(f"{' '.join(command[:4])} ... ended with {child.returncode}:\n{printed}")
    said = re.search(r"([\d.]+) s in all", printed) or re.fullmatch(r"([\d.]+)\n", printed)
    return wall_s, float(said[1]) if said else wall_s, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
