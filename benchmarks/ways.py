"""The ways of labelling that are compared: what to run, and at which hops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# What glibc is told so that memory which a batch has used is not given back to the kernel.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A child process by `benchmarks.peers.protocol`.

    Slow ways, which take one file after the other, get files for about ``enough_s`` of audio only.
    """

    name: str
    title: str
    hops_s: tuple[float, ...]
    module: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    enough_s: float = float("inf")


PIPELINE = "pipeline"

WAYS = {
    way.name: way
    for way in (
        Way(
            name=PIPELINE, title="our pipeline, all of it", hops_s=(0.48, 0.96),
            module="benchmarks.peers.pipeline",
        ),
        Way(
            name="engine", title="our engine alone", hops_s=(0.48, 0.96),
            module="benchmarks.peers.engine",
        ),
        Way(
            name="predecessor", title="the predecessor's way", hops_s=(0.96,),
            module="benchmarks.peers.predecessor",
        ),
        Way(
            name="predecessor-helped", title="  with batch 16 and malloc settings", hops_s=(0.96,),
            module="benchmarks.peers.predecessor", arguments=("--batch", "16"),
            environment=_KEEP_MEMORY,
        ),
        Way(
            name="google", title="Google's script", hops_s=(0.48,),
            module="benchmarks.peers.google_script", enough_s=300.0,
        ),
        Way(
            name="google-helped", title="  with soxr and tf.function", hops_s=(0.48,),
            module="benchmarks.peers.google_script", arguments=("--resampler", "soxr", "--graph"),
            enough_s=900.0,
        ),
        Way(
            name="tflite", title="TFLite, window by window", hops_s=(0.48,),
            module="benchmarks.peers.tflite_windows", enough_s=900.0,
        ),
    )
}  # fmt: skip
