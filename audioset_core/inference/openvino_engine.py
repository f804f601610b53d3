"""The engine ``openvino``: networks on a CPU, each core computing batches of its own.

A network is translated once, by OpenVINO's reader of traced torch modules, and kept in the cache
folder under the digest of its weights; after that torch is not needed.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from audioset_core.arrays import F32
from audioset_core.errors import UserError, WeightsError
from audioset_core.features.config import FrontendConfig
from audioset_core.features.log_mel import patches
from audioset_core.features.patch_reader import LogMelPiece, Piece
from audioset_core.inference.interface import FAST_RECIPE, ComputeOptions, Forward, Patches
from audioset_core.models.registry import ModelBundle
from audioset_core.system import n_cores
from audioset_core.weights.convert import file_sha256
from audioset_core.weights.locate import ReadyWeights, cache_dir

logger = logging.getLogger(__name__)

_XML = "network.xml"
_MOST_KEPT_BYTES = 2_000_000_000
"""Of translated networks in the cache folder: five of the largest, all of the small ones."""
_SECONDS_BEFORE_SHARING = 6.0
"""Of computing: for YAMNet half an hour of audio. Compiling a network that shares layers takes as
long as the network saves on that; its memory is that of the first, for YAMNet 55 MB."""
_NO_BF16 = "--precision {}: this processor does not compute in bfloat16; leave it out"
_NO_MARKS = (
    "--precision fast: this version of OpenVINO ({}) cannot keep single layers in float32; leave "
    "it out"
)
_NO_ROOM = "--precision fast: no temporary file can be written in {}; set TMPDIR to another folder"
_LAYERS = frozenset({"Convolution", "GroupConvolution", "MatMul"})
_EXACT = '<rt_info><attribute name="precise" version="0"/></rt_info>'
"""In OpenVINO's files: this layer stays in its own precision, whatever is asked of the network."""


@contextmanager
def _unreported() -> Iterator[None]:
    """In this context OpenVINO finds no package for usage statistics, and uses its own stub.

    Otherwise its import would send an event with a permanent id over the network and write
    ``~/intel``. No variable forbids that, only a file in the person's home.
    """
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


with _unreported():
    import openvino

    from audioset_core.inference.openvino_overlap import overlapping


class OpenVinoNetwork:
    """See `audioset_core.inference.interface.Network`."""

    engine = "openvino"
    device = "cpu"

    def __init__(
        self,
        bundle: ModelBundle,
        weights: ReadyWeights,
        compute: ComputeOptions,
        *,
        n_lanes: int | None = None,
    ) -> None:
        self._core, self._bundle = openvino.Core(), bundle
        self._precision = compute.precision
        if self._is_fast:
            bundle.check_fast()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._is_bf16 and "BF16" not in capabilities:
            raise UserError(_NO_BF16.format(compute.precision))
        self.batch_patches = bundle.cpu_batch_patches
        self.n_lanes = n_lanes or n_cores()
        self._model = _translated(self._core, bundle, weights, is_fast=self._is_fast)
        shape = [self.batch_patches, bundle.frontend.patch_frames, bundle.frontend.n_mels]
        self._model.reshape(openvino.PartialShape(shape))
        self._idle = self._compiled(self._model)
        self._spent_s = 0.0
        self._sharing: dict[int, SimpleQueue[Any] | None] = {}
        # The bindings import numpy at the first call. Two threads that make this call at once wait
        # for each other for ever (pybind11's lock against the interpreter's).
        self.forward(np.zeros(shape, np.float32))

    @property
    def _is_fast(self) -> bool:
        return self._precision == "fast"

    @property
    def _is_bf16(self) -> bool:
        return self._precision != "float32"

    def _compiled(self, model: Any) -> SimpleQueue[Any]:
        """A request for each lane."""
        settings = {
            # One thread per lane: a sum is then split the same way on any number of cores.
            "NUM_STREAMS": self.n_lanes,
            "INFERENCE_NUM_THREADS": self.n_lanes,
            "ENABLE_CPU_PINNING": False,
            # Otherwise the plugin computes in bfloat16 if the processor has it.
            "INFERENCE_PRECISION_HINT": "bf16" if self._is_bf16 else "f32",
        }
        try:
            compiled = self._core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            if not self._is_bf16:
                raise
            # The processor has bfloat16, but ONEDNN_MAX_CPU_ISA forbids the instructions.
            raise UserError(_NO_BF16.format(self._precision)) from error
        if self._is_fast and not _keeps_float32(compiled, self._bundle):
            raise UserError(_NO_MARKS.format(openvino.__version__.split("-")[0]))
        idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.n_lanes):
            idle.put(compiled.create_infer_request())
        return idle

    def enter_lane(self) -> None:
        """Does nothing: the streams are OpenVINO's own threads."""

    def batches(self, count: int, config: FrontendConfig) -> Patches:
        """See `Network`."""
        shape = (count, self.batch_patches, config.patch_frames, config.n_mels)
        return np.zeros(shape, np.float32)

    def patches(self, piece: Piece, config: FrontendConfig) -> Patches:
        """See `Network`."""
        if not isinstance(piece, LogMelPiece):
            raise TypeError("this engine takes log-mel frames, not waveforms")
        return patches(piece.frames, config)

    def forward(self, batch: Patches) -> tuple[F32 | None, F32]:
        """See `Network`."""
        began = time.perf_counter()
        outputs = _inferred(self._idle, batch)
        self._spent_s += time.perf_counter() - began
        return outputs

    def sharing(self, config: FrontendConfig) -> Forward | None:
        """See `Network`. In a short run None: it would end before anything is gained.

        Also None in the form for ``--precision fast``: copies of layers would have no marks.
        """
        if self._is_fast or self._spent_s < _SECONDS_BEFORE_SHARING:
            return None
        hop = config.patch_hop_frames
        if hop not in self._sharing:
            self._sharing[hop] = self._share(config)
        idle = self._sharing[hop]
        return None if idle is None else lambda frames: _inferred(idle, frames[np.newaxis])

    def _share(self, config: FrontendConfig) -> SimpleQueue[Any] | None:
        """Requests of a network that shares layers; None without one of the same bits.

        In which order a library sums up may depend on sizes (without AVX2 it does), never on the
        values: one batch by chance tells.
        """
        n_frames = (self.batch_patches - 1) * config.patch_hop_frames + config.patch_frames
        rng = np.random.default_rng(0)
        frames = rng.normal(-4, 2, (n_frames, config.n_mels)).astype(np.float32)
        try:
            model = overlapping(self._model, config.patch_hop_frames)
            if model is None:
                return None
            idle = self._compiled(model)
            shared = _inferred(idle, frames[np.newaxis])
        except Exception as error:  # whatever another version does: nothing but time is lost
            logger.warning("layers of overlapping patches are not shared: %s", error)
            return None
        apart = _inferred(self._idle, np.ascontiguousarray(patches(frames, config)))
        is_same = all(np.array_equal(*pair) for pair in zip(shared, apart, strict=True))  # type: ignore[arg-type]
        return idle if is_same else None


def _inferred(idle: SimpleQueue[Any], batch: F32) -> tuple[F32 | None, F32]:
    """Logits (None without a head) and embeddings, by the next idle request."""
    request = idle.get()
    try:
        outputs = request.infer([batch], share_inputs=True, share_outputs=True)
        # Copies, because the next batch reuses the request's memory.
        *logits, embeddings = (np.array(outputs[at]) for at in range(len(outputs)))
    finally:
        idle.put(request)
    return logits[0] if logits else None, embeddings


def _translated(core: Any, bundle: ModelBundle, weights: ReadyWeights, *, is_fast: bool) -> Any:
    """The network with any batch size, from the cache or translated into it.

    The form for ``--precision fast`` has one batch size, and is kept beside.
    """
    try:
        digest = file_sha256(weights.path)
    except OSError as error:
        raise WeightsError(f"{weights.path} cannot be read: {error.strerror}") from error
    kind = bundle.name if bundle.has_scores else f"{bundle.name}-headless"
    version = openvino.__version__.split("-")[0]
    form = f"-fast{FAST_RECIPE}" if is_fast else ""
    folder = cache_dir() / "openvino" / f"{kind}-{digest[:32]}-{version}{form}"
    if os.path.isfile(folder / _XML):  # noqa: PTH113 (the method raises PermissionError)
        try:
            with suppress(OSError):  # a folder that can only be read
                os.utime(folder)  # says when the network was used last
            return core.read_model(folder / _XML)
        except RuntimeError:  # incomplete, perhaps because of a full disk
            shutil.rmtree(folder, ignore_errors=True)
    model = _translate(bundle, weights)
    if is_fast:
        try:
            model = _with_marks(core, model, bundle)
        except (OSError, RuntimeError) as error:  # OpenVINO's own, of a full disk
            raise UserError(_NO_ROOM.format(tempfile.gettempdir())) from error
    _keep(model, folder)
    return model


def _with_marks(core: Any, model: Any, bundle: ModelBundle) -> Any:
    """The network with all layers marked to stay in float32, except the bundle's fast ones.

    The mark is an attribute of OpenVINO's files, for which its Python has no function.
    """
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.passes import ConstantFolding, Manager

    frontend = bundle.frontend
    shape = [bundle.cpu_batch_patches, frontend.patch_frames, frontend.n_mels]
    model.reshape(openvino.PartialShape(shape))
    # Paddings become numbers, and part of their convolutions. Later, that would lose the marks.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    apply_moc_transformations(model, cf=True)
    exact = [
        layer.get_friendly_name()
        for layer in model.get_ops()
        if layer.get_type_name() in _LAYERS
        and not re.search(bundle.fast_layers, layer.get_friendly_name())
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _XML
        openvino.save_model(model, path, compress_to_fp16=False)
        xml = path.read_text("utf-8")
        for name in exact:
            at = xml.index("<input>", xml.index(f'name="{name}"'))
            xml = xml[:at] + _EXACT + xml[at:]
        path.write_text(xml, "utf-8")
        return core.read_model(path)


def _keeps_float32(compiled: Any, bundle: ModelBundle) -> bool:
    """Whether no layer is computed in bfloat16 but the bundle's fast ones."""
    coarse = [
        layer.get_friendly_name()
        for layer in compiled.get_runtime_model().get_ops()
        if layer.get_rt_info()["layerType"].astype(str) in ("Convolution", "FullyConnected")
        and layer.get_rt_info()["runtimePrecision"].astype(str) != "f32"
    ]
    return all(re.search(bundle.fast_layers, name) for name in coarse)


def _translate(bundle: ModelBundle, weights: ReadyWeights) -> Any:
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from audioset_core.inference.torch_engine import load_network

    network = load_network(bundle, weights)

    class OnlyTensors(torch.nn.Module):
        """The network without the None that a missing head returns."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(output for output in self.network(patches) if output is not None)

    example = torch.zeros(2, bundle.frontend.patch_frames, bundle.frontend.n_mels)
    with torch.no_grad(), warnings.catch_warnings():
        # Padding becomes constant in the trace; it depends on the patch's size, which is fixed.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            OnlyTensors().eval(), example, check_trace=False
        )
    reader = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # must outlive the next two calls
    loaded = reader.load(decoder)
    return reader.convert(loaded)


def _keep(model: Any, folder: Path) -> None:
    """Store a translation for the next process; failing to write the cache is no error."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as passing:
            made = Path(passing) / folder.name
            made.mkdir()
            openvino.save_model(model, made / _XML, compress_to_fp16=False)
            # Fails if another process has stored the same meanwhile.
            made.rename(folder)
        _let_go(folder.parent)
    except (OSError, RuntimeError):
        return


def _let_go(kept: Path) -> None:
    """Remove the translations that were used longest ago, where all take too much of the disk.

    What a killed process left on its way is one of them.
    """
    n_bytes = 0
    for folder in sorted(kept.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True):
        n_bytes += sum(file.stat().st_size for file in folder.rglob("*"))
        if n_bytes > _MOST_KEPT_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
