from __future__ import annotations

import io
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audioset_core.checkpoints.readers import find_container, open_container
from audioset_core.errors import WeightsError
from audioset_core.weights.convert import convert, file_sha256, load_published, tensors_sha256
from audioset_core.weights.tensorflow_weights import read_weights

LAYERS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5,
          (2, 1024), (1, 1024))  # fmt: skip


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def arrays_of(path: Path) -> dict[str, Any]:
    container = find_container(path)
    assert container is not None
    with open_container(container) as stored:
        return {name: np.asarray(array) for name, array in stored.items()}


# --- what lies at a path ------------------------------------------------------------------------


def test_a_checkpoint_has_four_names(tmp_path: Path) -> None:
    prefix = tmp_path / "a" / "model.ckpt"
    shards = [prefix.with_name(f"model.ckpt.data-0000{i}-of-00002") for i in (0, 1)]
    index = prefix.with_name("model.ckpt.index")
    touch(index, *shards, prefix.with_name("model.ckpt.meta"), prefix.with_name("checkpoint"))
    for path in (prefix, index, prefix.parent):
        container = find_container(path)
        assert container is not None
        assert (container.kind, container.prefix) == ("tensorflow", prefix)
        assert [file for _, file in container.files] == [*shards, index]
    digest = file_sha256(prefix)
    # Elsewhere and under another prefix it is the same; with other bytes it is not.
    for path in (*shards, index):
        touch(tmp_path / "b" / path.name.replace("model", "other"))
        moved = tmp_path / "b" / path.name.replace("model", "other")
        moved.write_bytes(path.read_bytes())
    assert file_sha256(tmp_path / "b" / "other.ckpt") == digest
    shards[1].write_bytes(b"changed")
    assert file_sha256(prefix) != digest


def test_a_v1_checkpoint_is_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "vggish_model.ckpt", tmp_path / "vggish_model.ckpt.meta")
    for path in (tmp_path / "vggish_model.ckpt", tmp_path):
        container = find_container(path)
        assert container is not None
        assert container.prefix == tmp_path / "vggish_model.ckpt"
    assert file_sha256(tmp_path) == file_sha256(tmp_path / "vggish_model.ckpt")


def test_a_saved_model_is_all_its_files(tmp_path: Path) -> None:
    names = ("saved_model.pb", "variables/variables.index", "assets/classes.csv")
    touch(*(tmp_path / "a" / name for name in names), *(tmp_path / "b" / name for name in names))
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")
    touch(tmp_path / "b" / "assets" / "more.csv")
    assert file_sha256(tmp_path / "a") != file_sha256(tmp_path / "b")


def test_nothing_and_too_much(tmp_path: Path) -> None:
    touch(tmp_path / "empty" / "notes.txt")
    for path in (tmp_path / "absent", tmp_path / "absent.index", tmp_path / "empty"):
        assert find_container(path) is None
    touch(tmp_path / "two" / "a.ckpt", tmp_path / "two" / "b.ckpt.index")
    with pytest.raises(WeightsError, match=r"two holds several checkpoints: .*a\.ckpt"):
        find_container(tmp_path / "two")


# --- PyTorch ------------------------------------------------------------------------------------


def test_a_nested_state_dict(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0)}
    # Numpy renamed the module that arrays are rebuilt by; old files keep the old name.
    for old in (False, True):
        beside = {"model": state, "sampler": [np.arange(3), np.ones(2), np.zeros(1, "f4")]}
        buffer = io.BytesIO()
        torch.save(beside, buffer, _use_new_zipfile_serialization=False)
        content = buffer.getvalue()
        if old:
            content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        (tmp_path / "a.pth").write_bytes(content)
        assert arrays_of(tmp_path / "a.pth")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "around",
    [
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}, "groups": [{}]}},
        lambda state: {"model_state_dict": state, "losses": [0.1]},
        lambda state: {"net": state, "steps": np.arange(3), "empty": {}},
    ],
)
def test_training_checkpoints_hold_a_state_dict_under_any_name(tmp_path: Path, around: Any) -> None:
    torch.save(around({"a": torch.arange(3.0)}), tmp_path / "a.pth")
    assert arrays_of(tmp_path / "a.pth")["a"].tolist() == [0, 1, 2]


def test_an_averaged_set_beside_the_last_one_is_no_guess(tmp_path: Path) -> None:
    state = {"a": torch.zeros(3)}
    torch.save({"model": state, "ema": state}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth holds several sets .*\(model, ema\): save one"):
        arrays_of(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name", ["a.pt", "pytorch_model.bin", "a.ckpt", "a.pt.download", "a", "a.safetensors"]
)
@pytest.mark.parametrize("kind", ["zip", "older", "safetensors", "h5"])
def test_files_are_known_by_their_beginning(tmp_path: Path, name: str, kind: str) -> None:
    path, values = tmp_path / name, torch.arange(3.0)
    if kind == "safetensors":
        save_file({"a": values}, path, metadata={"format": "pt", "license": "apache-2.0"})
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["a"] = values.numpy()
    else:
        torch.save({"a": values}, path, _use_new_zipfile_serialization=kind == "zip")
    assert arrays_of(path)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_floats_of_any_width_become_float32(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    state = {"a": torch.tensor([0.5, -2.0], dtype=dtype)}
    (torch.save if name == "a.pt" else save_file)(state, tmp_path / name)
    found = arrays_of(tmp_path / name)["a"]
    assert (found.dtype, found.tolist()) == (np.dtype("f4"), [0.5, -2.0])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:899a8c62\nsize 4066513\n"


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.h5", "a.ckpt"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (LFS, "is a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
        (b"\r\n\r\n<html><body>Rate limit</body></html>", "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
        (b'{"message": "Not Found"}', "is a text in JSON"),
    ],
)
def test_what_a_failed_download_leaves_is_named(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        arrays_of(tmp_path / name)
    assert str(caught.value).startswith(f"{name} {what}")
    assert str(caught.value).endswith("not the weights: the download failed; fetch it again")


def test_zeros_inside_an_archive_are_not_weights(tmp_path: Path) -> None:
    """A download that was cut and filled up: torch itself loads the zeros."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(1.0, 2001.0)}, path)
    content = path.read_bytes()
    at = content.index(np.arange(900, 1000, dtype="<f4").tobytes())
    path.write_bytes(content[:at] + bytes(400) + content[at + 400 :])
    with pytest.raises(WeightsError, match=r"a\.pt .*data/0 in it is damaged; fetch it again"):
        arrays_of(path)


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("n_left", [100, 4000, -10])
def test_a_file_that_was_cut(tmp_path: Path, is_archive: bool, n_left: int) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(2000)}, path, _use_new_zipfile_serialization=is_archive)
    path.write_bytes(path.read_bytes()[:n_left])
    with pytest.raises(WeightsError, match=r"a\.pt .*: its end is missing .*; fetch it again"):
        arrays_of(path)


def test_python_objects_are_refused_with_the_way_out(tmp_path: Path) -> None:
    held = {"whole": torch.nn.Linear(2, 2), "beside": {"s": {}, "args": Namespace(lr=1)}}
    for name, value in held.items():
        torch.save(value, tmp_path / f"{name}.pt")
        with pytest.raises(WeightsError, match=r"a Python object \([\w.]+\)") as caught:
            arrays_of(tmp_path / f"{name}.pt")
        text = str(caught.value)
        assert "torch.save(model.state_dict(), FILE)" in text
        assert text.isprintable()
        assert "weights_only" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is going away, its files are not
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="it is a TorchScript program"):
        arrays_of(tmp_path / "script.pt")


@pytest.mark.parametrize("state", [{"model": [1]}, {"model": {"a": 1}}, {"model": torch.nn.ReLU()}])
def test_other_nested_things_are_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth is not a PyTorch state dict"):
        arrays_of(tmp_path / "a.pth")


# --- TensorFlow ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [load_published, read_weights])
def test_a_tensor_of_more_values_than_the_file_holds(tmp_path: Path, read: Any) -> None:
    bomb = torch.zeros(1, dtype=torch.float16).expand(1 << 40)
    torch.save({"classifier.weight": bomb}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match="more values than"):
        read(tmp_path / "bomb.pth")


@pytest.mark.parametrize("kind", ["external", "virtual", "huge"])
def test_the_reference_reads_nothing_but_arrays_of_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        if kind == "external":
            (tmp_path / "secret").write_bytes(b"1234")
            file.create_dataset("a", (1,), "f4", external=[(str(tmp_path / "secret"), 0, 4)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((1,), "f4")
            layout[:] = h5py.VirtualSource("other.h5", "a", (1,))
            file.create_virtual_dataset("a", layout)
        else:
            file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 20,), fillvalue=1)
    with pytest.raises(WeightsError, match="not an array that weights hold"):
        read_weights(path)


def test_without_tensorflow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "vggish_model.ckpt")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(WeightsError) as caught:
        load_published(tmp_path / "vggish_model.ckpt")
    assert "pip install 'audioset-flows[convert]'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def tf() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow", reason="needs the extra 'convert'")


def test_a_root_that_is_no_group(tmp_path: Path) -> None:
    """Found by `make fuzz`: one spoilt address in the file's first hundred bytes."""
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        file["a"] = [1.0]
        address = h5py.h5o.get_info(file["a"].id).addr
    data = bytearray(path.read_bytes())
    # The superblock's version 0: the root's object header. Source: HDF5 file format, III.A.
    data[64:72] = address.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"odd\.h5 is not a readable HDF5 file"):
        load_published(path)


@pytest.mark.tf
@pytest.mark.parametrize("content", [b"text", b"\0" * 500])
def test_junk_is_refused(tf: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    (tmp_path / "b.index").write_bytes(content)
    for name in ("a.ckpt", "b.index"):
        with pytest.raises(WeightsError, match=f"{name} is not a readable TensorFlow checkpoint"):
            load_published(tmp_path / name)


@pytest.mark.tf
def test_object_based_checkpoints_are_read_by_name(tf: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = tf.Module()
        held.a, held.b = tf.Variable([1.0, 2.0], name="x/y"), tf.Variable([[3.0]], name="z")
        prefix = tf.train.Checkpoint(root=held).save(str(tmp_path / "model.ckpt"))
    found = arrays_of(Path(prefix))
    assert found["x/y"].tolist() == [1, 2]
    assert found["z"].tolist() == [[3]]


@pytest.mark.tf
def test_two_variables_of_one_name_are_refused(tf: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = tf.Module()
        held.a, held.b = tf.Variable([1.0], name="x"), tf.Variable([2.0], name="x")
        prefix = tf.train.Checkpoint(root=held).save(str(tmp_path / "model.ckpt"))
    with pytest.raises(WeightsError, match="two variables are called x"):
        arrays_of(Path(prefix))


def keras_yamnet(keras: Any, last_layer: str | None) -> Any:
    """YAMNet from tf_keras's own layers, named as Google's."""
    layers = keras.layers

    def norm_relu(x: Any, name: str) -> Any:
        x = layers.BatchNormalization(name=f"{name}/bn", scale=False, epsilon=1e-4)(x)
        return layers.ReLU()(x)

    inputs = x = layers.Input((96, 64))
    x = layers.Reshape((96, 64, 1))(x)
    x = layers.Conv2D(32, 3, 2, "same", use_bias=False, name="layer1/conv")(x)
    x = norm_relu(x, "layer1/conv")
    for index, (stride, filters) in enumerate(LAYERS, 2):
        name = f"layer{index}/depthwise_conv"
        x = layers.DepthwiseConv2D(3, stride, "same", use_bias=False, name=name)(x)
        x = norm_relu(x, name)
        name = f"layer{index}/pointwise_conv"
        x = layers.Conv2D(filters, 1, 1, "same", use_bias=False, name=name)(x)
        x = norm_relu(x, name)
    logits = layers.Dense(521, name=last_layer)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, logits)


@pytest.mark.tf
@pytest.mark.parametrize("last_layer", ["logits", None])
def test_yamnet_from_a_saved_model(
    tf: Any, assets: Path, tmp_path: Path, last_layer: str | None
) -> None:
    h5 = assets / "weights" / "yamnet_bn.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = pytest.importorskip("tf_keras", reason="writes the SavedModel")
        model = keras_yamnet(keras, last_layer)
        # As Keras does: in the order of the layers, whatever the last one is called.
        model.load_weights(h5)

        class Exported(tf.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.variables_of_yamnet = model.variables

            @tf.function(input_signature=[tf.TensorSpec([None, 96, 64])])  # type: ignore[misc]
            def __call__(self, patches: Any) -> Any:
                return model(patches)

        tf.saved_model.save(Exported(), str(tmp_path / "yamnet"))
    found = load_published(tmp_path / "yamnet")
    assert tensors_sha256(found) == tensors_sha256(load_published(h5))
    target = tmp_path / "a.safetensors"
    metadata = convert(tmp_path / "yamnet", target, model="yamnet")
    assert metadata["version"] == convert(h5, target)["version"]
    assert metadata["source_sha256"] == file_sha256(tmp_path / "yamnet")
    assert metadata["source_name"] == "yamnet"
