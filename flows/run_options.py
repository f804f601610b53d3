"""The parameters of the flows, with the titles and descriptions that the UI's form shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from audioset_core.models.registry import BUNDLES, POCKET
from flows.options import MOST_TRACKS


class LabelOptions(BaseModel):
    """How to label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        default="yamnet",
        title="Model",
        description=f"Which model labels: {', '.join(BUNDLES)} ({POCKET.name} is a small one that "
        "needs no download).",
    )
    weights: Path | None = Field(
        default=None,
        title="Weights file",
        description="Published (.h5, .pth, checkpoint, SavedModel) or converted (.safetensors) "
        "weights. Empty: AUDIOSET_WEIGHTS (for another model than YAMNet AUDIOSET_WEIGHTS_MODEL), "
        "or the official download.",
    )
    patch_hop_s: float | None = Field(
        default=None,
        title="Patch hop (s)",
        description="Seconds from one score to the next: a multiple of 0.01 up to 0.96. "
        "Empty: the model's own, 0.48 for YAMNet.",
    )
    framing: Literal["reference", "pad", "seed"] = Field(
        default="reference",
        title="Framing",
        description="'reference' as the model's authors (YAMNet fills the last patch, VGGish drops "
        "the tail); 'pad' drops nothing; 'seed' repeats the older port's chunks (0.96 s, tail "
        "dropped) to compare with old results.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        title="Device",
        description="Where the network runs; auto takes a GPU if any.",
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        default="auto",
        title="Engine",
        description="What computes the network; auto takes OpenVINO on a CPU, torch on a GPU. "
        "Scores are the same within 0.00001.",
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        title="Precision",
        description="What the network computes in. bf16 is faster on hardware that has it, and "
        "moves scores by up to about 0.1.",
    )
    score_dtype: Literal["float16", "float32"] = Field(
        default="float16",
        title="Score type",
        description="How results are stored in the .npy files.",
    )
    embeddings: bool = Field(
        default=False,
        title="Embeddings",
        description="Store the embeddings of every patch as well.",
    )
    track: Annotated[int, Field(ge=1, le=MOST_TRACKS)] | Literal["default", "all"] = Field(
        default="default",
        title="Audio track",
        description="Of recordings with several audio tracks: 'default' as FFmpeg chooses, a "
        "number from 1, or 'all' for their mean. Tracks that are left out are a remark.",
    )
    strict: bool = Field(
        default=False,
        title="Strict",
        description="Refuse recordings of which something is missing (cut, spoilt, with gaps) "
        "instead of labelling what is there with a remark.",
    )
    follow_symlinks: bool = Field(
        default=False,
        title="Follow links",
        description="Also label what symbolic links in the folders lead to, which may lie "
        "anywhere. No folder is entered twice. What is named outright may be a link anyway.",
    )


class WatchOptions(BaseModel):
    """Which files of a watched folder are ready."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settle_s: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        title="Settle time (s)",
        description="A new or changed file waits for the next run until nothing has touched it for "
        "this long: it may still be being written.",
    )


class ExecutionOptions(BaseModel):
    """Where the tasks of a run are carried out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_runner: Literal["threads", "dask"] = Field(
        default="threads",
        title="Task runner",
        description="'threads' in the flow's own process; 'dask' on a Dask cluster "
        "(pip install 'audioset-flows[dask]').",
    )
    dask_address: str | None = Field(
        default=None,
        title="Dask scheduler",
        description="Address of a running scheduler, such as tcp://host:8786. Empty: a cluster of "
        "processes on this machine, for the length of the run.",
    )
    dask_workers: int = Field(
        default=2,
        ge=1,
        le=256,
        title="Dask processes",
        description="Processes of the cluster on this machine; not used with an address.",
    )
    partitions: int = Field(
        default=0,
        ge=0,
        le=1_000,
        title="Partitions",
        description="Many machines: cut the open work into so many child runs of the deployment "
        "below, each taken up by one of its work pool's workers. 0: this run does all the work.",
    )
    partition_deployment: str = Field(
        default="label-partition/machines",
        title="Deployment of the partitions",
        description="FLOW/DEPLOYMENT whose workers label the partitions.",
    )


class AlertOptions(BaseModel):
    """When a run sends the event ``audioset.failures`` for an automation to act on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failed_files: int = Field(
        default=10,
        ge=1,
        title="Failed files, at least",
        description="No event below so many failures in one run.",
    )
    failed_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        title="Failed share, at least",
        description="No event below this share of the files that the run opened.",
    )
