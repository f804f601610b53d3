"""The numeric tests under several instruction sets, each in processes of its own, one by one.

Usage: python -m tests.numeric [SETTING ...]

Tolerances must hold on processors that nobody here has. Libraries choose their code by what the
processor can do, and can be told that it can do less: other vector widths, with and without fused
multiply-add, are other orders of summation and other roundings. What a setting had an effect on
is asked of the libraries before its tests run; an instruction set that this processor lacks is left
out, and said so. The last table shows how much of each bound was used up: above a half a bound
leaves too little room for the next processor.

Not switched: soxr, pocketfft (scipy.fft), libsndfile and FFmpeg, whose vector code is chosen when
they are built or has no variable. A table without assets shows what holds for anybody.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROOM = 0.5
"""Of a bound, used up: more is looked at by a person, and fails here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Variables of the environment, and what the libraries must then say (regular expressions)."""

    name: str
    needs: str = ""
    """A feature by numpy's name."""
    variables: dict[str, str] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)
    has_assets: bool = True


SETTINGS = (
    Setting(name="as it is"),
    Setting(
        name="avx512",
        needs="AVX512F",
        variables={
            "ATEN_CPU_CAPABILITY": "avx512",
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
            "OPENBLAS_CORETYPE": "SkylakeX",
            "MKL_CBWR": "AVX512",
        },
        says={"torch": "AVX512", "onednn": "AVX-512", "openblas": "SkylakeX"},
    ),
    Setting(
        name="avx2",
        needs="AVX2",
        variables={
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "OPENBLAS_CORETYPE": "Haswell",
            "MKL_CBWR": "AVX2",
            "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        },
        says={
            "torch": "AVX2",
            "onednn": "AVX2$",
            "openvino": "avx2|sse",
            "openblas": "Haswell",
            "numpy": "^((?!X86_V4).)*$",
        },
    ),
    Setting(
        name="sse4",
        needs="SSE41",
        variables={
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "OPENBLAS_CORETYPE": "Nehalem",
            "MKL_CBWR": "COMPATIBLE",
            "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        },
        says={
            "torch": "DEFAULT",
            "onednn": "SSE4.1$",
            "openvino": "sse",
            "openblas": "Nehalem",
            "mkl": "COMPATIBLE",
            "numpy": "^((?!X86_V[34]).)*$",
        },
    ),
    Setting(name="no assets", has_assets=False),
)


def main(names: list[str]) -> int:
    """Run the settings of these names, or all; 0 where all tests passed with room."""
    if names == ["--probe"]:
        probe()
        return 0
    known = {setting.name: setting for setting in SETTINGS}
    if unknown := [name for name in names if name not in known]:
        print(f"unknown setting {unknown[0]!r}; there is {', '.join(known)}", file=sys.stderr)
        return 2
    ratios: dict[str, dict[str, tuple[float, float]]] = {}
    failed: list[str] = []
    for setting in (known[name] for name in names or known):
        began = time.monotonic()
        print(f"--- {setting.name}", flush=True)
        if setting.needs and not _has(setting.needs):
            print(f"left out: this processor has no {setting.needs}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            environment = _environment(setting, Path(folder))
            if not _is_in_effect(setting, environment):
                failed.append(setting.name)
            code, ratios[setting.name] = _tested(environment, Path(folder) / "ratios.json")
        if code:
            failed.append(setting.name)
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    crowded = _print_table(ratios)
    for name in dict.fromkeys(failed):
        print(f"FAILED: {name}")
    return int(bool(failed or crowded))


def probe() -> None:
    """Let every library say what code it chooses here."""
    import numpy as np
    import scipy.linalg  # noqa: F401
    import threadpoolctl
    import torch
    from numpy._core import _multiarray_umath as core

    features = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    print("numpy:", *features)
    libraries = threadpoolctl.threadpool_info()
    print("openblas:", *(each["architecture"] for each in libraries if "architecture" in each))
    print("torch:", torch.backends.cpu.get_cpu_capability())
    given = np.ones((4, 16, 32, 32), np.float32), np.ones((32, 16, 3, 3), np.float32)
    print("openvino:", _openvino_kernel(*given), flush=True)
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        torch.nn.functional.conv2d(*map(torch.from_numpy, given))
    with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
        torch.ones(99, 99) @ torch.ones(99, 99)


def _openvino_kernel(images: object, kernels: object) -> str:
    try:
        import openvino
        from openvino import opset13 as op
    except ImportError:
        return "not installed"
    given = op.parameter(images.shape, images.dtype)  # type: ignore[attr-defined]
    convolved = op.convolution(given, op.constant(kernels), [1, 1], [1, 1], [1, 1], [1, 1])
    compiled = openvino.Core().compile_model(
        openvino.Model([convolved], [given]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    kinds = [
        node.get_rt_info()["primitiveType"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    return " ".join(kinds)


def _has(feature: str) -> bool:
    from numpy._core._multiarray_umath import __cpu_features__

    return bool(
        __cpu_features__.get(feature, feature == "SSE41" and os.uname().machine == "x86_64")
    )


def _environment(setting: Setting, folder: Path) -> dict[str, str]:
    """This process's variables and the setting's; numpy is told only of what it would use."""
    found = {**os.environ, **setting.variables}
    if names := setting.variables.get("NPY_DISABLE_CPU_FEATURES"):
        found["NPY_DISABLE_CPU_FEATURES"] = " ".join(filter(_has, names.split()))
    found["AUDIOSET_CACHE"] = str(folder / "cache")
    # One core: beside other work, threads that wait for each other cost more than they gain.
    found |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if not setting.has_assets:
        found.pop("AUDIOSET_ASSETS", None)
        found.pop("CI", None)  # there, missing assets are a failure
    return found


def _is_in_effect(setting: Setting, environment: dict[str, str]) -> bool:
    """Ask the libraries, print what they say, and compare it with what they must say."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.numeric", "--probe"],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = dict(re.findall(r"^(numpy|openblas|torch|openvino): ?(.*)$", done.stdout, re.MULTILINE))
    said |= {
        name: found[1]
        for name, pattern in (
            ("onednn", r"verbose.*,cpu,isa:(.*)"),
            ("mkl", r"MKL_VERBOSE.* CNR:(\S*)"),
        )
        if (found := re.search(pattern, done.stdout))
    }
    print("; ".join(f"{name}: {value}" for name, value in said.items()), flush=True)
    ignored = [
        name for name, wanted in setting.says.items() if not re.search(wanted, said.get(name, ""))
    ]
    for name in ignored:
        print(
            f"the setting had no effect on {name}: {said.get(name)!r}, not {setting.says[name]!r}"
        )
    return not ignored


def _tested(
    environment: dict[str, str], ratios: Path
) -> tuple[int, dict[str, tuple[float, float]]]:
    """The exit status of the tests, and how much of each bound they used up."""
    options = ("-q", "--no-header", "-p", "no:cacheprovider", "--ratios", str(ratios))
    tests = ("-m", "numeric and not slow", "tests/core", "tests/test_bounds.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=REPOSITORY, env=environment,
    )  # fmt: skip
    found = json.loads(ratios.read_text()) if ratios.exists() else {}
    return done.returncode, {name: tuple(pair) for name, pair in found.items()}


def _print_table(ratios: dict[str, dict[str, tuple[float, float]]]) -> bool:
    """Largest part of each bound used up, by test and setting; whether any is above ``ROOM``."""
    tests = sorted({test for each in ratios.values() for test in each})
    print("\nPart of the bound used up: by the worst value, and by the mean where one is asked for")
    print(f"{'':64}", *(f"{name:>11}" for name in ratios))
    crowded = False
    for test in tests:
        row = [each.get(test) for each in ratios.values()]
        cells = [
            "" if pair is None else f"{pair[0]:.2f}" + (f" / {pair[1]:.2f}" if pair[1] else "")
            for pair in row
        ]
        is_crowded = any(max(pair) > ROOM for pair in row if pair)
        crowded |= is_crowded
        name = test.removeprefix("tests/core/").replace(".py::", " ")
        print(f"{name:64.64}", *(f"{cell:>11}" for cell in cells), *["<"] * is_crowded)
    if crowded:
        print(
            f"<: more than {ROOM} of a bound is used up; it leaves too little to the next processor"
        )
    return crowded


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
