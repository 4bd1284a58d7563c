"""Bundles from and for elsewhere: by name from huggingface.co, as such a repository, and as two ONNX graphs.

The graphs run without PyTorch, as `tools/separate_onnx.py` does. `query.onnx`: `spec` `[1, L, F, 2]`, the STFT of a
sound with real and imaginary parts as the last axis, and `frames` `[1]` to `query` `[1, E]`. `separator.onnx`: `spec`
of the mixture, `frames`, `rms` `[1]` (of the whole recording, mean of the channels) and `query` to `mask` `[1, L, F]`.
L is a multiple of `grid_frames`, zeros behind the first `frames`; the batch is 1. The STFT stays outside: a centred one
with zeros around the signal and a periodic Hann window. The metadata of both files hold `fs`, `n_fft`, `hop`,
`grid_frames`, `query_dim` and the model's hash.
"""

import importlib
import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.util.documents import dump_yaml, mapping, parse_yaml
from espnet2_ext.util.files import atomic_path, write_text
from espnet2_ext.util.names import bundle_file

if TYPE_CHECKING:
    from espnet2_ext.infer.query_separator import Separator

BUNDLE, PAGE = "model.zip", "README.md"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?<!\.zip)")
HEAD = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
TAGS = ["audio", "sound-separation", "source-separation", "espnet", "espnet2_ext"]
USE = {
    "qsep": """```python
from espnet2_ext.infer.query_separator import Separator

separator = Separator.from_pretrained("OWNER/{name}")
result = separator("mix.wav", query="example.wav")  # result.target, result.residual, result.fs
```""",
    "weak": """```python
from espnet2_ext.infer.class_separator import WeakSeparator

separator = WeakSeparator.from_pretrained("OWNER/{name}")
separator.separate(mix, fs)  # an output for each of separator.outputs
```""",
}
LIMITS = {
    "qsep": "A sound unlike those of the training may be separated poorly. Sounds of one kind are not told apart.",
    "weak": "Only the classes of the training are separated: {classes}.",
}


def located(name: str | Path, revision: str | None = None) -> str:
    """The file of a bundle: `name` itself, `starter`, the bundle in the folder `name`, or that of a repository
    `OWNER/NAME` of huggingface.co (its `model.zip`, kept in the hub's own cache).

    Raises:
        BundleError: a folder with no bundle, or several; no network, package or repository.
    """
    path = Path(bundle_file(name))
    if path.is_dir():
        found = [path / BUNDLE] if (path / BUNDLE).is_file() else sorted(path.glob("*.zip"))
        if len(found) != 1:
            raise BundleError(f"{path}: holds {len(found)} bundles (.zip); name the file")
        return str(found[0])
    if path.exists() or not REPOSITORY.fullmatch(str(name)) or path.parent.is_dir():
        return str(path)
    lacks = f"{name}: no such file or folder; as a name of huggingface.co,"
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as e:
        raise BundleError(f"{lacks} it needs a package: pip install huggingface_hub") from e
    logging.info("%s: no such file or folder; it is looked for on huggingface.co", name)
    log = logging.getLogger("huggingface_hub")
    told = log.level
    log.setLevel(logging.ERROR)  # it warns of each try
    try:
        return hf_hub_download(str(name), BUNDLE, revision=revision)
    except Exception as e:  # of the network, the hub or the cache: many types
        raise BundleError(f"{lacks} it gave no {BUNDLE} ({type(e).__name__}: {str(e).strip().splitlines()[0]})") from e
    finally:
        log.setLevel(told)


def write_page(folder: str | Path) -> None:
    """Write the model card `folder/README.md` of the bundle `folder/model.zip`, unless there is one.

    Its head comes from the bundle's card, and from `license` and `tags` in bundle.yaml; sections on use, training data,
    scores and limits are added where the card has none.

    Raises:
        DataError: nothing says what the licence is.
    """
    folder = Path(folder)
    if (folder / PAGE).exists():
        logging.info("%s: is kept; without it, a new one is written", folder / PAGE)
        return
    with open_bundle(folder / BUNDLE) as bundle:
        info, card, labels = bundle.info, bundle.card(), bundle.labels
    write_text(folder / PAGE, page(info, card, [label.name for label in labels], str(folder / BUNDLE)))


def page(info: dict, card: str, classes: list[str], where: str) -> str:
    """The model card as the hub wants it: YAML between `---`, then Markdown."""
    own = HEAD.match(card)
    head = mapping(parse_yaml(own[1], f"{where}: card.md"), f"{where}: card.md") if own else {}
    task, name = info["task"], str(info.get("name"))
    head = {"tags": TAGS, "library_name": "espnet", "pipeline_tag": "audio-to-audio"} | head
    head = {"license": info.get("license"), **head}
    if not head["license"]:
        raise DataError(f"{where}: under what licence are the weights? --info FACTS.yaml with `license: cc-by-4.0`")
    text = card[own.end() :] if own else card
    text = text.strip() or f"# {name}\n\nA model of espnet2_ext at {info.get('fs')} Hz."
    headings = [line.removeprefix("## ").strip().lower() for line in text.splitlines() if line.startswith("## ")]
    listed = ", ".join(classes[:50]) + ", ..." * (len(classes) > 50)
    sections = {
        "Use": USE[task].format(name=name),
        "Training data": _shown(info.get("trained_on")),
        "Scores": _shown(info.get("results")),
        "Limits": LIMITS[task].format(classes=listed) + f" What lies above {info.get('fs', 0) // 2} Hz is not touched.",
    }
    added = "".join(f"\n\n## {title}\n\n{s}" for title, s in sections.items() if title.lower() not in headings)
    return f"---\n{dump_yaml(head)}---\n{text}{added}\n"


def _shown(facts: object) -> str:
    """What bundle.yaml says of something."""
    return "Not stated." if not facts else facts if isinstance(facts, str) else f"```yaml\n{dump_yaml(facts)}```"


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
        return self.net.mask(_Spectrum(*spec.unbind(3)), frames.unbind(), query[:, None], level)[:, 0]


def export(separator: "Separator", folder: str | Path) -> list[Path]:
    """Write `folder/query.onnx` and `folder/separator.onnx`.

    Raises:
        DataError: another network than CaRE-SEP with its own query encoder and magnitude masks.
        ModuleNotFoundError: onnx or onnxscript is not installed.
    """
    model: Any = separator.model.cpu()
    check(model, separator.info["path"])
    for name in NEEDS:
        importlib.import_module(name)
    net, stft = model.extractor.net, model.encoder.stft
    grid, bins = net.grid_frames, net.num_bins
    about = {"fs": model.fs, "n_fft": stft.n_fft, "hop": stft.hop, "grid_frames": grid, "query_dim": model.query_dim}
    about |= {"name": separator.info.get("name", ""), "model_hash": separator.model_hash}
    spec, frames = torch.randn(1, 2 * grid, bins, 2), torch.tensor([2 * grid - 3])
    whole = {1: grid * torch.export.Dim("k", min=1, max=MOST)}
    given = {"spec": spec, "frames": frames}
    asked = given | {"rms": torch.tensor([0.1]), "query": torch.randn(1, model.query_dim)}
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
    from espnet2_ext.core.nets.care_sep import CaRESep

    if model.query_net is not None or type(net) is not CaRESep:
        own = (
            type(net).__name__
            if model.query_net is None
            else f"{type(net).__name__} with {type(model.query_net).__name__}"
        )
        raise DataError(f"{where}: only CaRE-SEP, whose network embeds the queries, is exported to ONNX; this is {own}")
    if net.mask_type != "magnitude":
        raise DataError(f"{where}: has {net.mask_type} masks; only magnitude masks are exported to ONNX")


def parity(separator: "Separator", folder: str | Path, frames: int, repeats: int = 1) -> Parity:
    """The exported graphs against PyTorch on noise of so many frames, the query included; the best of `repeats`.

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

    def by_torch() -> np.ndarray:
        with torch.inference_mode():
            asked = net.embed(spec, count).embedding
            return net.mask(spec, count, asked[:, None], model.encoder.level(rms))[:, 0].numpy()

    def by_onnx() -> np.ndarray:
        (asked,) = query.run(None, given)
        return masks.run(None, given | {"rms": rms.numpy(), "query": asked})[0]

    times = []
    for run in (by_torch, by_onnx) * repeats:
        start = time.perf_counter()
        found = run()
        times.append((time.perf_counter() - start, found))
    difference = float(np.abs(times[0][1] - times[1][1][:, :frames]).max())
    return Parity(difference, min(t for t, _ in times[::2]), min(t for t, _ in times[1::2]))
