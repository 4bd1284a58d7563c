"""A query model as two ONNX graphs.

The graphs run without PyTorch, as `tools/separate_onnx.py` does. `query.onnx`: `spec` `[1, L, F, 2]`, the STFT of a
sound with real and imaginary parts as the last axis, and `frames` `[1]` to `query` `[1, E]`. `separator.onnx`: `spec`
of the mixture, `frames`, `rms` `[1]` (of the whole recording, mean of the channels) and `query` `[Q, E]` to `mask`
`[Q, L, F]`; Q is fixed at the export. L is a multiple of `grid_frames`, zeros behind the first `frames`. The STFT stays
outside: a centred one with zeros around the signal and a periodic Hann window. The metadata of both files hold `fs`,
`n_fft`, `hop`, `grid_frames`, `query_dim` and the model's hash.
"""

import importlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path

if TYPE_CHECKING:
    from espnet2_ext.infer.query_separator import Separator

OPSET = 18
QUERY, SEPARATOR = "query.onnx", "separator.onnx"
NEEDS = ("onnx", "onnxscript")
MOST = 4096  # times the grid: 2.9 hours at 256 frames of 10 ms


class Parity(NamedTuple):
    """Of a mask: its greatest difference from PyTorch's; seconds of both."""

    difference: float
    torch: float
    onnx: float


class _Spectrum(NamedTuple):
    """Real and imaginary part, in place of a complex tensor, which ONNX lacks: `[1, L, F]`."""

    real: Tensor
    imag: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.real.shape

    @property
    def device(self) -> torch.device:
        return self.real.device

    def __len__(self) -> int:
        return len(self.real)

    def transpose(self, a: int, b: int) -> "_Spectrum":
        return _Spectrum(self.real.transpose(a, b), self.imag.transpose(a, b))


class _Query(nn.Module):
    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def forward(self, spec: Tensor, frames: Tensor) -> Tensor:
        return self.net.embed(_Spectrum(*spec.unbind(3)), frames.unbind()).embedding


class _Separator(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.net, self.encoder = model.extractor.net, model.encoder

    def forward(self, spec: Tensor, frames: Tensor, rms: Tensor, query: Tensor) -> Tensor:
        level = self.encoder.level(rms)
        return self.net.mask(_Spectrum(*spec.unbind(3)), frames.unbind(), query[None], level)[0]


def export(separator: "Separator", folder: str | Path, queries: int = 1) -> list[Path]:
    """Write `folder/query.onnx` and `folder/separator.onnx`.

    queries: Q, that a run of the separator answers; what lies before their entry is done once for all of them.

    Raises:
        DataError: no query; another network than CaRE-SEP with its own query encoder and magnitude masks.
        ModuleNotFoundError: onnx or onnxscript is not installed.
    """
    model: Any = separator.model.cpu()
    check(model, separator.info["path"])
    if queries < 1:
        raise DataError(f"{queries} queries: a run answers one or more")
    for name in NEEDS:
        importlib.import_module(name)
    net, stft = model.extractor.net, model.encoder.stft
    grid, bins = net.grid_frames, net.num_bins
    about = {"fs": model.fs, "n_fft": stft.n_fft, "hop": stft.hop, "grid_frames": grid, "query_dim": model.query_dim}
    about |= {"name": separator.info.get("name", ""), "model_hash": separator.model_hash}
    spec, frames = torch.randn(1, 2 * grid, bins, 2), torch.tensor([2 * grid - 3])
    whole = {1: grid * torch.export.Dim("k", min=1, max=MOST)}
    given = {"spec": spec, "frames": frames}
    asked = given | {"rms": torch.tensor([0.1]), "query": torch.randn(queries, model.query_dim)}
    graphs = {QUERY: (_Query(net), given, "query"), SEPARATOR: (_Separator(model), asked, "mask")}
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they log each node that they look at
        logging.getLogger(name).setLevel(logging.ERROR)
    for name, (graph, inputs, output) in graphs.items():
        shapes = {key: whole if key == "spec" else {} for key in inputs}
        with torch.no_grad():
            made: Any = torch.onnx.export(
                graph.eval(),
                kwargs=inputs,
                dynamic_shapes=shapes,
                input_names=list(inputs),
                output_names=[output],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        made.model.metadata_props.update({key: str(value) for key, value in about.items()})
        with atomic_path(Path(folder) / name) as part:
            made.save(part, external_data=False)
    return [Path(folder) / name for name in graphs]


def check(model: Any, where: str) -> None:
    """Refuse what is not exported (DataError)."""
    net = model.extractor.net
    from espnet2_ext.core.nets.care_sep import CaREQuery

    if model.query_net is not None or not isinstance(net, CaREQuery):
        own = (
            type(net).__name__
            if model.query_net is None
            else f"{type(net).__name__} with {type(model.query_net).__name__}"
        )
        raise DataError(f"{where}: only CaRE-SEP, whose network embeds the queries, is exported to ONNX; this is {own}")
    if net.mask_type != "magnitude":
        raise DataError(f"{where}: has {net.mask_type} masks; only magnitude masks are exported to ONNX")


def parity(separator: "Separator", folder: str | Path, frames: int, repeats: int = 1) -> Parity:
    """The exported graphs against PyTorch on noise of so many frames, a query included; the best of `repeats`.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    runtime = importlib.import_module("onnxruntime")
    model: Any = separator.model.cpu()
    wave = 0.1 * torch.randn(1, (frames - 1) * model.hop, generator=torch.Generator().manual_seed(frames))
    with torch.inference_mode():
        spec, count = model.encoder(wave, torch.tensor([wave.shape[1]]))
    net = model.extractor.net
    pairs = np.pad(torch.view_as_real(spec).numpy(), ((0, 0), (0, -frames % net.grid_frames), (0, 0), (0, 0)))
    rms = wave.square().mean(1).sqrt()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    query, masks = (runtime.InferenceSession(str(Path(folder) / name), options) for name in (QUERY, SEPARATOR))
    given = {"spec": pairs, "frames": count.numpy()}
    (size,) = (x.shape[0] for x in masks.get_inputs() if x.name == "query")
    times = torch.arange(1.0, size + 1)[:, None]  # of one embedding, as many queries

    def by_torch() -> np.ndarray:
        with torch.inference_mode():
            asked = net.embed(spec, count).embedding
            return net.mask(spec, count, (asked * times)[None], model.encoder.level(rms))[0].numpy()

    def by_onnx() -> np.ndarray:
        (asked,) = query.run(None, given)
        return masks.run(None, given | {"rms": rms.numpy(), "query": asked * times.numpy()})[0]

    runs = []
    for run in (by_torch, by_onnx) * repeats:
        start = time.perf_counter()
        found = run()
        runs.append((time.perf_counter() - start, found))
    difference = float(np.abs(runs[0][1] - runs[1][1][:, :frames]).max())
    return Parity(difference, min(t for t, _ in runs[::2]), min(t for t, _ in runs[1::2]))
