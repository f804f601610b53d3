from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from audioset_core.errors import WeightsError
from audioset_core.features.config import VGGISH as FRONTEND
from audioset_core.features.log_mel import log_mel, patches
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.registry import VGGISH
from audioset_core.models.vggish import VGGish
from audioset_core.weights.convert import convert, file_sha256, load_published, tensors_sha256
from audioset_core.weights.locate import find_source, peek, prepare
from tests.bounds import assert_possible, assert_rounding, layers_sigma, sum_bound

F32 = NDArray[np.float32]

Arrays = dict[str, F32]

# The variables of Google's checkpoint, written down without our own code.
VARIABLES: dict[str, tuple[int, ...]] = {
    "vggish/conv1": (3, 3, 1, 64),
    "vggish/conv2": (3, 3, 64, 128),
    "vggish/conv3/conv3_1": (3, 3, 128, 256),
    "vggish/conv3/conv3_2": (3, 3, 256, 256),
    "vggish/conv4/conv4_1": (3, 3, 256, 512),
    "vggish/conv4/conv4_2": (3, 3, 512, 512),
    "vggish/fc1/fc1_1": (12_288, 4096),
    "vggish/fc1/fc1_2": (4096, 4096),
    "vggish/fc2": (4096, 128),
}
PORTS_NAMES = [f"features.{i}" for i in (0, 3, 6, 8, 11, 13)]
PORTS_NAMES += [f"embeddings.{i}" for i in (0, 2, 4)]
NAMES = (
    "sine440", "chirp", "noise", "silence", "impulses", "short",
    "esc_dog", "esc_baby", "esc_clock", "esc_chainsaw",
)  # fmt: skip


def by_rule(name: str, shape: tuple[int, ...]) -> F32:
    """The golden vectors' `__weights_rule__`."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(
        shape, dtype=np.float32
    )
    scale = np.sqrt(2 / np.prod(shape[:-1])) if name.endswith("weights") else 0.1
    return np.asarray(values * np.float32(scale))


@pytest.fixture(scope="module")
def variables() -> Arrays:
    """Deterministic weights under the names and with the axes of Google's checkpoint."""
    found: Arrays = {}
    for name, shape in VARIABLES.items():
        found[f"{name}/weights"] = by_rule(f"{name}/weights", shape)
        found[f"{name}/biases"] = by_rule(f"{name}/biases", shape[-1:])
    return found


def port_state(variables: Arrays, *, with_head: bool) -> dict[str, torch.Tensor]:
    """The same weights as the PyTorch ports keep them."""
    state: dict[str, torch.Tensor] = {}
    for port, name in zip(PORTS_NAMES, VARIABLES, strict=True):
        kernel = torch.from_numpy(variables[f"{name}/weights"])
        moved = kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        state[f"{port}.weight"] = moved.contiguous()
        state[f"{port}.bias"] = torch.from_numpy(variables[f"{name}/biases"])
    if with_head:
        rng = torch.Generator().manual_seed(3)
        for name, shape in (("0.weight", (100, 128)), ("0.bias", (100,)),
                            ("2.weight", (527, 100)), ("2.bias", (527,))):  # fmt: skip
            state[f"classifier.{name}"] = torch.randn(shape, generator=rng) / 8
    return state


@pytest.fixture(scope="module")
def folder(variables: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Published files; removed at the end, for they are large."""
    folder = tmp_path_factory.mktemp("vggish")
    torch.save(port_state(variables, with_head=True), folder / "vggish_with_classifier.pth")
    yield folder
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def network(arrays: Arrays) -> VGGish:
    model = VGGish(has_head="head.classes.bias" in arrays).eval()
    model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    return fold_batch_norm(model)


@pytest.fixture(scope="module")
def arrays(folder: Path) -> Arrays:
    return load_published(folder / "vggish_with_classifier.pth")


@pytest.fixture(scope="module")
def model(arrays: Arrays) -> VGGish:
    return network(arrays)


@pytest.fixture(scope="module")
def golden(assets: Path) -> Any:
    return np.load(assets / "golden" / "vggish_golden.npz")


@pytest.mark.numeric
def test_embeddings_equal_the_reference(model: VGGish, golden: Any, assets: Path) -> None:
    waveforms = np.load(assets / "golden" / "yamnet_golden.npz")
    inputs = [patches(log_mel(waveforms[f"{name}/waveform"], FRONTEND), FRONTEND) for name in NAMES]
    wanted = [golden[f"{name}/embeddings_detweights"] for name in NAMES]
    assert [len(views) for views in inputs] == [len(rows) for rows in wanted]
    given = np.concatenate([golden[f"{name}/examples"] for name in NAMES])
    expected = np.concatenate(wanted)
    for batch in (given, np.concatenate(inputs)):
        with torch.inference_mode():
            _, embeddings = model(torch.from_numpy(batch.copy()))
        assert_rounding(embeddings, expected, 2 * layers_sigma(model, expected))


@pytest.mark.numeric
def test_flattening_in_another_order_is_noticed(
    model: VGGish, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "permute", lambda x, *axes: x)
    with torch.inference_mode():
        _, embeddings = model(torch.from_numpy(golden["noise/examples"].copy()))
    assert np.abs(embeddings.numpy() - golden["noise/embeddings_detweights"]).max() > 1e-2


@pytest.mark.numeric
def test_the_head_reads_the_embedding_after_a_relu(model: VGGish, arrays: Arrays) -> None:
    with torch.inference_mode():
        logits, embeddings = model(torch.randn(3, 96, 64, generator=torch.manual_seed(0)))
    assert logits is not None
    assert (embeddings < 0).any()
    hidden = np.maximum(np.maximum(embeddings.numpy(), 0) @ arrays["head.hidden.weight"].T
                        + arrays["head.hidden.bias"], 0)  # fmt: skip
    expected = hidden @ arrays["head.classes.weight"].T + arrays["head.classes.bias"]
    # numpy's own two sums, in float32 as well.
    terms = hidden[:, np.newaxis] * arrays["head.classes.weight"]
    assert_possible(logits, expected, 4 * sum_bound(terms, 2) + 1e-6)


@pytest.mark.numeric
def test_same_function_as_the_port(model: VGGish, folder: Path) -> None:
    # The port ends in a ReLU: the embedding before it is what Google publishes.
    state = torch.load(folder / "vggish_with_classifier.pth", weights_only=True)
    patch = torch.randn(2, 1, 96, 64, generator=torch.manual_seed(4))
    x = patch.double()
    for index in (0, 3, 6, 8, 11, 13):
        weight, bias = (state[f"features.{index}.{part}"].double() for part in ("weight", "bias"))
        x = functional.conv2d(x, weight, bias, padding=1).relu()
        if index not in (6, 11):
            x = functional.max_pool2d(x, 2, 2)
    x = x.transpose(1, 3).transpose(1, 2).reshape(2, -1)
    for index in (0, 2, 4):
        weight, bias = (state[f"embeddings.{index}.{part}"].double() for part in ("weight", "bias"))
        x = functional.linear(x, weight, bias)
        x = x.relu() if index < 4 else x
    with torch.inference_mode():
        _, embeddings = model(patch[:, 0])
    assert_rounding(embeddings, x, layers_sigma(model, x.numpy()))


@pytest.mark.slow
def test_the_port_without_a_head(variables: Arrays, arrays: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "vggish_orig.pth"
    torch.save(port_state(variables, with_head=False), path)
    found = load_published(path)
    path.unlink()
    headless = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    assert tensors_sha256(found) == tensors_sha256(headless)


@pytest.mark.slow
def test_the_head_gives_scores(
    folder: Path, arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    monkeypatch.setenv("AUDIOSET_WEIGHTS_VGGISH", str(folder / "vggish_with_classifier.pth"))
    ready = prepare(VGGISH)
    assert ready.has_scores
    assert ready.version == f"1-{tensors_sha256(arrays)[:12]}"
    assert peek(VGGISH) == ready
    clip = LogMelPiece(np.zeros((96, 64), np.float32), 1)
    scorer = Scorer(VGGISH, ready, ComputeOptions("cpu"))
    ready.path.unlink()
    assert scorer.score([clip], FRONTEND)[0].shape == (1, 527)


def test_a_head_that_is_cut_off_is_noticed(variables: Arrays, tmp_path: Path) -> None:
    state = port_state(variables, with_head=True)
    del state["classifier.2.bias"]
    # Shapes are looked at one by one: nothing large need be written for this.
    small = {name: tensor.flatten()[:1] for name, tensor in state.items()}
    torch.save(small, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"1 datasets missing, such as 'classifier\.2\.bias'"):
        load_published(tmp_path / "cut.pth", model="vggish")


# --- Google's checkpoint ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(variables: Arrays, folder: Path) -> Path:
    """The checkpoint as TensorFlow writes it, in both of its formats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf = pytest.importorskip("tensorflow", reason="needs the extra 'convert'")
        v1 = tf.compat.v1
        for version in ("V1", "V2"):
            (folder / version).mkdir()
            with tf.Graph().as_default(), v1.Session() as session:
                feed: dict[Any, F32] = {}
                assigned = []
                for name, array in variables.items():
                    held = v1.placeholder(tf.float32, array.shape)
                    variable = v1.get_variable(name, array.shape, use_resource=False)
                    assigned.append(v1.assign(variable, held).op)
                    feed[held] = array
                session.run(assigned, feed)
                saver = v1.train.Saver(write_version=getattr(v1.train.SaverDef, version))
                saver.save(session, str(folder / version / "vggish_model.ckpt"))
    return folder


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_googles_checkpoint_gives_the_same_weights(
    checkpoints: Path, arrays: Arrays, tmp_path: Path, version: str
) -> None:
    source = checkpoints / version / "vggish_model.ckpt"
    headless = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    if version == "V1":
        target = tmp_path / "vggish.safetensors"
        metadata = convert(source, target)
        target.unlink()
        assert (metadata["model"], metadata["has_scores"]) == ("vggish", "false")
        assert metadata["version"] == f"1-{tensors_sha256(headless)[:12]}"
        assert metadata["source_sha256"] == file_sha256(source.parent)
    else:
        assert tensors_sha256(load_published(source)) == tensors_sha256(headless)
    assert find_source(VGGISH, source) == source
