"""How to label: what a person may choose.

A field is a parameter of the flows, whose docstring Prefect's form shows as description, and an
option of ``audioset label``. Tasks read the value from `Job.options`. A field that changes what
is stored also stands in `RESULT_OPTIONS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from audioset_core.inference.interface import ComputeOptions, Device, EngineName, Precision
from audioset_core.models.registry import BUNDLES, POCKET, Framing

MOST_MODELS = 8
"""Of one run, which keeps all their networks in memory."""
MOST_TRACKS = 100

ScoreDtype = Literal["float16", "float32"]


def _known_track(value: Any) -> Any:
    is_number = str(value).isdecimal() and 1 <= int(value) <= MOST_TRACKS
    if is_number or value in ("default", "all"):
        return value
    raise ValueError(f"give a number from 1 to {MOST_TRACKS}, 'default' or 'all'")


Track = Annotated[
    Annotated[int, Field(ge=1, le=MOST_TRACKS)] | Literal["default", "all"],
    BeforeValidator(_known_track),
]


def _distinct(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """A single name, or several that differ."""
    names = (value,) if isinstance(value, str) else value
    if not 1 <= len(names) <= MOST_MODELS:
        raise ValueError(f"name 1 to {MOST_MODELS} models")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is named twice")
    return names[0] if len(names) == 1 else names


class LabelOptions(BaseModel):
    """How to label."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: Annotated[str | tuple[str, ...], AfterValidator(_distinct)] = Field(
        "yamnet",
        description=f"Which model labels: {', '.join(BUNDLES)} ({POCKET.name} is a small one that "
        "needs no download). Several label in one run, which reads each file once; queries show "
        "the first one's labels.",
    )
    weights: Path | None = Field(None, title="Weights file")
    """Weights as published (.h5, .pth, checkpoint, SavedModel) or converted (.safetensors). If none
    are given: AUDIOSET_WEIGHTS (for other models than YAMNet AUDIOSET_WEIGHTS_MODEL), or the
    official download."""
    patch_hop_s: float | None = Field(None, title="Patch hop (s)")
    """Seconds from one score to the next: a multiple of 0.01 up to the model's window (0.96 for
    YAMNet, 10 for mn04). If none are given: the model's own, 0.48 and 7.5."""
    framing: Framing = "reference"
    """'reference' as the model's authors (YAMNet fills the last patch, VGGish drops the tail);
    'pad' drops no audio; 'seed' repeats the older port's chunks (0.96 s, tail dropped) to compare
    with old results."""
    device: Device = "auto"
    """Where the network runs; auto takes a GPU if there is one."""
    engine: EngineName = "auto"
    """What computes the network; auto takes OpenVINO on a CPU, torch on a GPU. Scores are the same
    within 0.00001."""
    precision: Precision = "float32"
    """What the network computes in. Both others are faster on processors that have bfloat16: fast
    (YAMNet) moves a recording's mean scores by up to about 0.01, bf16 a score by up to 0.2."""
    score_dtype: ScoreDtype = Field("float16", title="Score type")
    """How results are stored in the .npy files."""
    embeddings: bool = False
    """Store the embeddings of every patch as well."""
    track: Track = Field("default", title="Audio track")
    """Audio track: 'default' as FFmpeg chooses, a number from 1, or 'all' for the mean of all. A
    remark names the tracks that are left out."""
    strict: bool = False
    """Refuse recordings of which something is missing (cut, spoilt, with gaps), instead of
    labelling what is there with a remark."""
    loudness: bool = False
    """Measure the loudness of every recording too (LUFS by ITU-R BS.1770-4). That takes about a
    tenth longer; what else audioset health shows is measured anyway."""
    follow_symlinks: bool = Field(False, title="Follow links")
    """Follow symbolic links in the folders as well, wherever they lead. No folder is entered
    twice."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all models, in the order given."""
        return (self.model,) if isinstance(self.model, str) else self.model

    @property
    def compute(self) -> ComputeOptions:
        """How the network is computed."""
        return ComputeOptions(self.device, self.engine, self.precision)


RESULT_OPTIONS = ("precision", "embeddings", "track")
"""Options that are stored as parameters of a labelling, if they are not the default.

So labellings from before an option existed keep their parameters.
"""
