"""The line that calibrates one model's logits, from recordings that are known to hold a sound."""

from __future__ import annotations

import numpy as np

from audioset_core.errors import UserError
from audioset_core.evaluation.calibration import Platt, fit_platt
from audioset_core.evaluation.metrics import UNKNOWN
from tasks.evaluation.score_truth import Scored

# Scores are float32, of which 1 is the logit of everything from 17 on.
_MOST = 1 - 2.0**-25
_LEAST = float(np.finfo(np.float32).tiny)


def calibrate(model: str, scored: Scored) -> Platt:
    """Fit the line to all classes together; scores are peaks of recordings, or of spans.

    Raises:
        UserError: the truth is too small or one-sided, or the scores do not agree with it.
    """
    is_known = scored.labels != UNKNOWN
    scores = np.clip(scored.scores[is_known].astype(np.float64), _LEAST, _MOST)
    try:
        return fit_platt(np.log(scores) - np.log1p(-scores), scored.labels[is_known] == 1)
    except UserError as error:
        raise UserError(f"{model}: {error}") from None
