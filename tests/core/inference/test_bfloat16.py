"""How far ``--precision bf16`` moves the taggers' logits: as far as 8 bits do."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audioset_core.errors import UserError
from audioset_core.features.log_mel import log_mel
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import ComputeOptions, EngineName
from audioset_core.inference.torch_engine import load_network
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.registry import BUNDLES, ModelBundle
from audioset_core.weights.convert import convert
from audioset_core.weights.locate import ReadyWeights
from tests.core.models import rule_weights

pytestmark = [pytest.mark.slow, pytest.mark.numeric]


def weights_by_rule(bundle: ModelBundle, path: Path) -> None:
    layout = bundle.layouts()[0]
    drawn = {
        target.name: torch.from_numpy(rule_weights.weight(theirs, target.published_shape))
        for theirs, target in layout.targets.items()
    }
    save_file(drawn, path)


@pytest.fixture(scope="module", params=["mn04, published", "mn04", "dymn04", "ced_tiny"])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ReadyWeights:
    name, _, is_published = request.param.partition(", ")
    path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
    if is_published:
        assets: Path = request.getfixturevalue("assets")
        convert(assets / "weights" / "mn04_as_mAP_432.pt", path, model=name)
    else:
        weights_by_rule(BUNDLES[name], path)
    return ReadyWeights(path, name, "1-0", "0")


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_logits_move_as_far_as_eight_bits_say(ready: ReadyWeights, engine: EngineName) -> None:
    bundle = BUNDLES[ready.model]
    try:
        network = open_network(bundle, ready, ComputeOptions("cpu", engine, "bf16"))
    except UserError as error:
        assert engine == "openvino"  # torch computes in bfloat16 anywhere, if slowly
        pytest.skip(str(error))
    network.enter_lane()
    found, exact, rounded = [], [], []
    folded = fold_batch_norm(load_network(bundle, ready)).eval()
    coarse = in_eight_bits(folded)
    for name in ("clip3", "clip10"):
        samples = rule_weights.clip(name, bundle.frontend.sample_rate_hz)
        patch = log_mel(samples, replace(bundle.frontend, pads_tail=True))
        batch = torch.from_numpy(patch[np.newaxis, : bundle.frontend.patch_frames].copy())
        logits, _ = network.forward(batch if engine == "torch" else batch.numpy())
        found.append(np.asarray(logits))
        with torch.inference_mode():
            exact.append(folded(batch)[0].numpy())
            rounded.append(coarse(batch)[0].numpy())
    moved, expected = (size(np.subtract(them, exact)) for them in (found, rounded))
    # Engines also round between layers, or keep single layers in float32: two bits either way.
    assert expected / 4 < moved < 4 * expected


def size(differences: Any) -> float:
    return float(np.sqrt(np.mean(np.square(differences))))


def in_eight_bits(network: nn.Module) -> nn.Module:
    """A copy whose layers get inputs and weights of 8 bits, and sum up in float32."""
    coarse = copy.deepcopy(network)

    def round_inputs(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.bfloat16().float() for x in inputs)

    for module in coarse.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(round_inputs)
            module.weight.data = module.weight.data.bfloat16().float()
    return coarse
