from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from audioset_core.errors import WeightsError
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.registry import BUNDLES, OfficialWeights
from audioset_core.models.yamnet import YAMNet
from audioset_core.weights.conversion_proof import NETWORK_BAR
from audioset_core.weights.convert import (
    convert,
    file_sha256,
    load_published,
    read_metadata,
    tensors_sha256,
)
from tests.bounds import assert_within

DEPTHWISE = "layer9/depthwise_conv/layer9/depthwise_conv/depthwise_kernel:0"


@pytest.fixture(scope="module")
def h5(assets: Path) -> Path:
    return assets / "weights" / "yamnet_bn.h5"


@pytest.fixture(scope="module")
def published(h5: Path) -> dict[str, Any]:
    return load_published(h5)


@pytest.fixture
def own_h5(h5: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    path = tmp_path / "own.h5"
    path.write_bytes(h5.read_bytes())
    path.chmod(0o600)
    return path


def predecessor_state(ours: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Our arrays under the older port's names, written down without our own code."""
    state: dict[str, torch.Tensor] = {}
    for name, array in ours.items():
        if name.startswith("classifier"):
            old = name
        elif name.startswith("layers.layer1."):
            old = "layer1.fused." + name.removeprefix("layers.layer1.")
        else:
            old = name.removeprefix("layers.")
        state[old] = torch.from_numpy(array)
        if old.endswith("running_var"):
            state[old.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return state


def one_line(path: Path, match: str = ".", *, model: str = "yamnet") -> str:
    with pytest.raises(WeightsError, match=match) as caught:
        load_published(path, model=model)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


# --- what must be read --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["yamnet.h5", "yamnet_bn.h5"])
def test_every_dataset_of_the_published_file_is_used(assets: Path, name: str) -> None:
    path = assets / "weights" / name
    arrays = load_published(path)
    sizes = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
    scales = [array for key, array in arrays.items() if key.endswith("bn.weight")]
    assert sum(array.size for array in arrays.values()) == sum(sizes) + sum(s.size for s in scales)
    assert all((scale == 1).all() for scale in scales)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    wanted = {
        key: tuple(tensor.shape)
        for key, tensor in YAMNet().state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert {key: array.shape for key, array in arrays.items()} == wanted


def test_axes_move_as_they_should(h5: Path, published: dict[str, Any]) -> None:
    with h5py.File(h5) as file:
        hwio = file["layer5/pointwise_conv/layer5/pointwise_conv/kernel:0"][()]
        hwcm = file[DEPTHWISE][()]
        dense = file["logits/logits/kernel:0"][()]
    np.testing.assert_array_equal(
        published["layers.layer5.pointwise_conv.conv.weight"], np.moveaxis(hwio, (3, 2), (0, 1))
    )
    np.testing.assert_array_equal(
        published["layers.layer9.depthwise_conv.conv.weight"], np.moveaxis(hwcm, (2, 3), (0, 1))
    )
    np.testing.assert_array_equal(published["classifier.weight"], dense.T)


def test_the_file_is_closed_after_reading(own_h5: Path) -> None:
    load_published(own_h5)
    # HDF5 locks a file that is still open: writing would fail.
    with h5py.File(own_h5, "r+") as file:
        file["logits/logits/bias:0"][0] = np.nan
    one_line(own_h5)
    with h5py.File(own_h5, "r+"):
        pass


def test_the_predecessors_file_gives_the_same_weights(
    h5: Path, published: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "yamnet.pth"
    torch.save(predecessor_state(published), path)
    again = load_published(path)
    assert tensors_sha256(again) == tensors_sha256(published)
    from_pth = convert(path, tmp_path / "pth.safetensors")
    from_h5 = convert(h5, tmp_path / "h5.safetensors")
    assert from_pth["version"] == from_h5["version"]
    assert from_pth["source_sha256"] != from_h5["source_sha256"]


@pytest.mark.numeric
def test_the_predecessors_scale_is_kept(published: dict[str, Any], tmp_path: Path) -> None:
    # The same network under other numbers, were the scale ignored it would show.
    state = predecessor_state({key: array.copy() for key, array in published.items()})
    for key in [key for key in state if key.endswith("bn.weight")]:
        state[key] *= 2
        state[key.replace("bn.weight", "bn.running_mean")] *= 2
        state[key.replace("bn.weight", "conv.weight")] *= 2
        # 2 (2x - 2m) / sqrt(v' + eps) = (x - m) / sqrt(v + eps)
        variance = state[key.replace("bn.weight", "bn.running_var")]
        variance.mul_(16).add_(15e-4)
    path = tmp_path / "scaled.pth"
    torch.save(state, path)
    patches = torch.from_numpy(
        np.random.default_rng(0).normal(-3, 2, (2, 96, 64)).astype(np.float32)
    )
    scores = []
    for arrays in (published, load_published(path)):
        model = YAMNet().eval()
        model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
        with torch.inference_mode():
            scores.append(torch.sigmoid(fold_batch_norm(model)(patches)[0]).numpy())
    assert_within(scores[0], scores[1], NETWORK_BAR)


@pytest.mark.parametrize("legacy", [True, False])
def test_both_kinds_of_pytorch_file_load(
    published: dict[str, Any], tmp_path: Path, legacy: bool
) -> None:
    path = tmp_path / "yamnet.pt"
    state = {key: torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
             for key, tensor in predecessor_state(published).items()}  # fmt: skip
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert tensors_sha256(load_published(path)) == tensors_sha256(published)


@pytest.mark.parametrize("prefix", ["module.", "model.", "net._orig_mod."])
def test_names_below_a_wrapper(published: dict[str, Any], tmp_path: Path, prefix: str) -> None:
    state = {prefix + key: tensor for key, tensor in predecessor_state(published).items()}
    torch.save({"state_dict": state}, tmp_path / "wrapped.ckpt")
    assert tensors_sha256(load_published(tmp_path / "wrapped.ckpt")) == tensors_sha256(published)
    torch.save(state | {"loss.weight": torch.zeros(3)}, tmp_path / "more.pt")
    one_line(tmp_path / "more.pt", "is not yamnet: 1[0-9][0-9] datasets missing")


def test_state_dicts_are_read_from_safetensors_too(
    published: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "someone's.safetensors"
    save_file(predecessor_state(published), path, metadata={"format": "pt"})
    assert tensors_sha256(load_published(path)) == tensors_sha256(published)
    path.write_bytes(b"x")
    one_line(path, "is not a readable safetensors file")


# --- models of the same arrays ------------------------------------------------------------------


@pytest.fixture(scope="module")
def mn10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zeros in the shapes of mn10, which other front ends share, under a name that says nothing."""
    path = tmp_path_factory.mktemp("mn10") / "weights.pt"
    (layout,) = BUNDLES["mn10"].layouts()
    torch.save({n: torch.zeros(t.published_shape) for n, t in layout.targets.items()}, path)
    return path


def renamed(path: Path, name: str) -> Path:
    link = path.with_name(name)
    if not link.exists():
        link.hardlink_to(path)
    return link


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("mn10_as_mAP_471.pt", "mn10"),
        ("mn10.pt", "mn10"),
        ("mn10_as_hop_5_mAP_475.pt", "mn10_hop5"),
        ("mn10_as_hop_15.pt", "mn10_hop15"),
        ("mn10_as_mels_256.pt", "mn10_mels256"),
        ("mn10_hop25.pt", "mn10_hop25"),
    ],
)
def test_the_file_s_name_tells_front_ends_apart(
    mn10: Path, tmp_path: Path, name: str, model: str
) -> None:
    source = renamed(mn10, name)
    for given in (None, model):
        assert convert(source, tmp_path / "a.safetensors", model=given)["model"] == model


def test_a_name_that_says_nothing_asks_for_the_model(mn10: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights\.pt could be mn10, mn10_hop5, .*--model"):
        convert(mn10, tmp_path / "a.safetensors")
    for model in ("mn10", "mn10_hop5", "mn10_mels40"):
        assert convert(mn10, tmp_path / "a.safetensors", model=model)["model"] == model


def test_a_name_that_contradicts_the_model_is_refused(mn10: Path, tmp_path: Path) -> None:
    hop5 = renamed(mn10, "mn10_as_hop_5_mAP_475.pt")
    for model in ("mn10", "mn10_mels64"):
        one_line(hop5, f"holds mn10_hop5 weights, not {model}, by its name: rename", model=model)
    # A longer name may be somebody's own: mn10_... trained with hops of 5 ms.
    assert load_published(renamed(mn10, "mn10_ours.pt"), model="mn10_hop5")
    one_line(hop5, "holds mn10_hop5 weights, not mn20$", model="mn20")


def test_a_published_digest_is_proof(
    mn10: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    official = OfficialWeights(url="", file_name="", sha256=file_sha256(mn10))
    monkeypatch.setitem(BUNDLES, "mn10", dataclasses.replace(BUNDLES["mn10"], official=official))
    assert convert(mn10, tmp_path / "a.safetensors")["model"] == "mn10"
    one_line(mn10, "holds mn10 weights, not mn10_hop5$", model="mn10_hop5")
    assert load_published(renamed(mn10, "mn10_as_hop_5.pt"), model="mn10")


@pytest.mark.parametrize("variant", ["fc", "fc_s2221", "fc_s2211"])
def test_another_head_is_another_model(tmp_path: Path, variant: str) -> None:
    (layout,) = BUNDLES[f"mn10_{variant}"].layouts()
    path = tmp_path / f"mn10_as_{variant}_mAP_465.pt"
    torch.save({n: torch.zeros(t.published_shape) for n, t in layout.targets.items()}, path)
    assert convert(path, tmp_path / "a.safetensors")["model"] == f"mn10_{variant}"
    one_line(path, f"holds mn10_{variant} weights, not mn10$", model="mn10")


# --- what is written ----------------------------------------------------------------------------


def test_metadata_says_what_it_is_and_where_from(h5: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "yamnet.safetensors"
    metadata = convert(h5, path)
    assert re.fullmatch("1-[0-9a-f]{12}", metadata["version"])
    assert metadata["source_sha256"].startswith("de9b8d22")
    assert read_metadata(path) == {k: metadata[k] for k in metadata if k != "source_name"}
    assert (metadata["model"], metadata["has_scores"]) == ("yamnet", "true")
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
    assert os.listdir(path.parent) == ["yamnet.safetensors"]  # noqa: PTH208


def test_the_same_input_gives_the_same_bytes(h5: Path, tmp_path: Path) -> None:
    files = {tmp_path / f"{i}.safetensors" for i in range(4)}
    for path in files:
        convert(h5, path)
    assert len({path.read_bytes() for path in files}) == 1


def test_the_tensors_survive(h5: Path, published: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    convert(h5, tmp_path / "a.safetensors")
    assert tensors_sha256(load_file(tmp_path / "a.safetensors")) == tensors_sha256(published)


def test_version_changes_with_any_value(published: dict[str, Any]) -> None:
    other = {**published, "classifier.bias": published["classifier.bias"] + np.float32(1e-3)}
    assert tensors_sha256(other) != tensors_sha256(published)
    renamed = {key + "x": array for key, array in published.items()}
    assert tensors_sha256(renamed) != tensors_sha256(published)


def test_a_failed_conversion_leaves_nothing(own_h5: Path, tmp_path: Path) -> None:
    with h5py.File(own_h5, "r+") as file:
        file["logits/logits/bias:0"][3] = np.inf
    target = tmp_path / "out" / "yamnet.safetensors"
    with pytest.raises(WeightsError, match=r"not finite in classifier\.bias"):
        convert(own_h5, target)
    assert not target.parent.exists()


# --- what must be refused -----------------------------------------------------------------------


def replace(name: str, **how: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def delete(file: Any) -> None:
    del file["logits/logits/bias:0"]


def add(file: Any) -> None:
    file["more/of/it"] = np.zeros(3, np.float32)


def external_link(file: Any) -> None:
    del file["logits/logits/bias:0"]
    file["logits/logits/bias:0"] = h5py.ExternalLink("/etc/hostname.h5", "/x")


def soft_link(file: Any) -> None:
    file["logits/logits/more"] = h5py.SoftLink("/logits/logits/bias:0")


def external_storage(file: Any) -> None:
    del file["logits/logits/bias:0"]
    file.create_dataset(
        "logits/logits/bias:0", (521,), "f4", external=[("/etc/passwd", 0, 521 * 4)]
    )


def virtual(file: Any) -> None:
    del file["logits/logits/bias:0"]
    layout = h5py.VirtualLayout((521,), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (521,))
    file.create_virtual_dataset("logits/logits/bias:0", layout)


def named_type(file: Any) -> None:
    file["type"] = np.dtype("f4")


def endless(file: Any) -> None:
    file["logits/again"] = file["logits"]


BIAS = "logits/logits/bias:0"
SPOILT: dict[str, tuple[Callable[[Any], None], str]] = {
    "missing": (delete, "1 datasets missing, such as 'logits/logits/bias:0'"),
    "spare": (add, "1 unknown datasets, such as 'more/of/it'"),
    "520 classes": (replace(BIAS, data=np.zeros(520, "f4")), r"shape \(520,\), expected \(521,\)"),
    "misshapen": (
        replace(DEPTHWISE, data=np.zeros((3, 3, 1, 512), "f4")),
        r"\(3, 3, 1, 512\), expected \(3, 3, 512, 1\)",
    ),
    "fill-value bomb": (replace(BIAS, shape=(1 << 40,), dtype="f4", chunks=(1 << 20,)), "expected"),
    "NaN": (replace(BIAS, data=np.full(521, np.nan, "f4")), "not finite in classifier.bias"),
    "beyond float32": (replace(BIAS, data=np.full(521, 1e300)), "not finite|too large"),
    "complex": (replace(BIAS, data=np.zeros(521, "c8")), "not floats"),
    "text": (replace(BIAS, data=[b"x"] * 521), "not floats"),
    "variable text": (replace(BIAS, data=["x"] * 521, dtype=h5py.string_dtype()), "not floats"),
    "null": (replace(BIAS, data=h5py.Empty("f4")), "shape None"),
    "external link": (external_link, "is a link"),
    "soft link": (soft_link, "is a link"),
    "external storage": (external_storage, "points to another file"),
    "virtual": (virtual, "points to another file"),
    "named type": (named_type, "neither a group nor a dataset"),
    "group in itself": (endless, "nested too deep"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_h5_is_refused(own_h5: Path, kind: str) -> None:
    change, message = SPOILT[kind]
    with h5py.File(own_h5, "r+") as file:
        change(file)
    assert one_line(own_h5, message).startswith("own.h5")


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".pth", ".pt"])
@pytest.mark.parametrize(
    "content", [b"", b"text\n", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04junk", b"\0" * 5000]
)
def test_junk_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"junk{suffix}"
    path.write_bytes(content)
    assert one_line(path).startswith(path.name)


@pytest.mark.slow
def test_damaged_h5_is_refused_or_right(
    h5: Path, published: dict[str, Any], tmp_path: Path
) -> None:
    whole, path = h5.read_bytes(), tmp_path / "cut.h5"
    for size in (100, 3000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        one_line(path)
    rng = np.random.default_rng(2)
    for _ in range(40):
        spoilt = bytearray(whole)
        for at in rng.integers(0, 60_000, 20):
            spoilt[at] ^= 0xFF
        path.write_bytes(spoilt)
        try:
            arrays = load_published(path)
        except WeightsError:
            continue
        assert {k: a.shape for k, a in arrays.items()} == {k: a.shape for k, a in published.items()}


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch bomb-went-off",)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_pickles_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    plain, wrapped = tmp_path / f"plain{suffix}", tmp_path / f"wrapped{suffix}"
    plain.write_bytes(pickle.dumps(Bomb()))
    torch.save({"classifier.bias": Bomb()}, wrapped)
    for path in (plain, wrapped):
        one_line(path, "not a PyTorch state dict")
    assert not (tmp_path / "bomb-went-off").exists()


@pytest.mark.parametrize(
    "state",
    [
        [torch.zeros(3)],
        {"classifier.bias": 3},
        {},
        {"classifier.bias": torch.zeros(3)},
        {"classifier.bias": torch.zeros(521).to_sparse()},
        torch.zeros(3),
    ],
)
def test_other_pytorch_files_are_refused(tmp_path: Path, state: Any) -> None:
    path = tmp_path / "other.pth"
    torch.save(state, path)
    one_line(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32])
def test_other_number_types_load_or_are_refused(
    published: dict[str, Any], tmp_path: Path, dtype: torch.dtype
) -> None:
    path = tmp_path / "other.pth"
    state = predecessor_state(published)
    state["classifier.bias"] = state["classifier.bias"].to(dtype)
    torch.save(state, path)
    if dtype == torch.int32:
        one_line(path, "not floats")
    else:
        assert load_published(path)["classifier.bias"].dtype == np.float32


@pytest.mark.parametrize("name", ["yamnet.tflite", "yamnet", "yamnet.npz"])
def test_unknown_ending(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    one_line(tmp_path / name, r"by that ending \(.*\.h5, .*\.pth, .*SavedModel\)")


def test_the_names_say_which_model_it_is(own_h5: Path, tmp_path: Path) -> None:
    assert convert(own_h5, tmp_path / "a.safetensors")["model"] == "yamnet"
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(
        WeightsError, match=r"other\.pth has none of the known models: yamnet, vggish"
    ):
        load_published(path)
    # A file that is nearly a model is compared with that one.
    with h5py.File(own_h5, "r+") as file:
        delete(file)
    with pytest.raises(WeightsError, match="1 datasets missing"):
        load_published(own_h5)


def test_another_models_file_is_named(published: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "yamnet.pth"
    torch.save(predecessor_state(published), path)
    one_line(path, r"yamnet\.pth holds yamnet weights, not vggish", model="vggish")


def test_unknown_model(own_h5: Path) -> None:
    one_line(own_h5, "no nope weights", model="nope")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file at .*absent\.h5"):
        convert(tmp_path / "absent.h5", tmp_path / "out.safetensors")


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"", b"1234", b"\xff" * 40, header(b"[1]"), header(b"{}"), header(b"not json"),
        header(b'{"__metadata__": {"model": "yamnet"}}'), header(b'{"__metadata__": [1, 2]}'),
        header(b'{"__metadata__": {"model": "m", "version": "v", "source_sha256": "s", '
               b'"has_scores": "maybe"}}'),
        header(b"[" * 100_000), header(b'\xff\xfe{}'), header(b'{"a": 1}')[:-3],
    ],
)  # fmt: skip
def test_metadata_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"is not a weights file made by 'audioset convert'"):
        read_metadata(path)


def test_files_from_before_has_scores_have_them(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    metadata = {"model": "yamnet", "version": "1-0", "source_sha256": "0"}
    path.write_bytes(header(json.dumps({"__metadata__": metadata}).encode()))
    assert read_metadata(path) == {**metadata, "has_scores": "true"}


def test_h5_needs_neither_torch_nor_tensorflow_to_be_hashed(h5: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from audioset_core.weights.convert import file_sha256\n"
        f"file_sha256(Path({str(h5)!r}))\n"
        "assert not {'torch', 'tensorflow', 'h5py'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
