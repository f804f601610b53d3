"""What a person's options mean for a run: its front end, and the parameters of its results."""

from __future__ import annotations

from audioset_core.features.config import FrontendConfig
from audioset_core.models.registry import find_bundle
from db.records import Parameters
from flows.run_options import LabelOptions
from tasks.labelling.job import labelling_parameters


def labelling_settings(options: LabelOptions) -> tuple[FrontendConfig, Parameters]:
    """The front end and the parameters of a labelling with these options.

    Raises:
        UserError: no such model, or a hop or framing that it does not have.
    """
    frontend = find_bundle(options.model).framed(
        patch_hop_s=options.patch_hop_s, framing=options.framing
    )
    return frontend, labelling_parameters(
        frontend,
        framing=options.framing,
        score_dtype=options.score_dtype,
        precision=options.precision,
        embeddings=options.embeddings,
        track=options.track,
    )
