"""Training from weak labels, written plainly: the yardstick of the benchmark, never trained here.

Pishdadian et al., "Finding Strength in Weakness": the separator and the 2D-CRNN of figure 2, the
frame labels' losses (5), (18) and (19), and a classifier that is fixed. Convolution, batch norm,
ReLU and pooling follow each other, all estimates go through the classifier at once, and autograd
keeps what it wants to: nothing is folded, fused or done in parts.
"""

import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.bench.configs import Options, apart, build, name_of
from espnet2_ext.bench.measure import TIMES, Columns, at, gflop, interleaved, not_valid, peak_mb, reset_peak
from espnet2_ext.bench.weak import training_batch, training_step
from espnet2_ext.core.nets.mask_nets import LOG_FLOOR, BLSTMMasker
from espnet2_ext.core.nets.sed import CRNNClassifier

BOTH = ("ours", "plain")
DEFAULT = "BLSTM masker, 2D-CRNN on the linear magnitude, frame labels, fixed"
POOLS = ((1, 2), (2, 2), (2, 2))  # frames, bins


class PlainMasker(nn.Module):
    """Bidirectional LSTM and a dense layer: magnitudes `[B, L, F]` to masks `[B, K, L, F]`."""

    def __init__(self, bins: int, classes: int, hidden: int, layers: int):
        super().__init__()
        self.rnn = nn.LSTM(bins, hidden, layers, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, classes * bins)
        self.shape = classes, bins

    def forward(self, mag: Tensor) -> Tensor:
        x = self.out(self.rnn((mag + LOG_FLOOR).log())[0])
        return x.unflatten(-1, self.shape).transpose(1, 2).sigmoid()


class PlainCRNN(nn.Module):
    """2D-CRNN: linear magnitudes `[N, L, F]` to logits `[N, K, L / 4]`, rounded up."""

    def __init__(self, bins: int, classes: int, channels: tuple, kernel: int, hidden: int):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False) for a, b in zip((1, *channels), channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels)
        for _, pool in POOLS:
            bins = -(-bins // pool)
        self.rnn = nn.LSTM(bins * channels[-1], hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, classes)

    def forward(self, mag: Tensor) -> Tensor:
        x = mag[:, None]
        for conv, norm, pool in zip(self.convs, self.norms, POOLS):
            x = F.max_pool2d(F.relu(norm(conv(x))), pool, ceil_mode=True)
        x = x.permute(0, 2, 3, 1).flatten(2)  # [N, L', F' C]
        return self.out(self.rnn(x)[0]).transpose(1, 2)


def mixture_loss(est: Tensor, mix: Tensor, active: Tensor) -> Tensor:
    """(5), the mean over bins and over frames in which any class is active; `[B]`.

    Args:
        est: `[B, K, L, F]`. mix: `[B, L, F]`. active: `[B, K, L]`, 0 or 1.
    """
    on = active[..., None]
    rest = (mix - (est * on).sum(1)).abs() + (est.abs() * (1 - on)).sum(1)
    counted = active.amax(1)  # [B, L]
    return (rest.mean(-1) * counted).sum(1) / counted.sum(1).clamp(min=1)


def class_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """(18), the mean over frames: what the classifier should find in one spectrum; `[N]`.

    Args:
        logits, labels, weight: `[N, K, L']`.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weight * entropy).sum(1).mean(-1)


def estimates_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """(19), summed over the estimates: in the i-th, class i where it is active, and no other.

    Args:
        logits: `[B, K, K, L']`, of each estimate. labels, weight: `[B, K, L']`, of the mixture.
    """
    total = 0.0
    for i in range(logits.shape[1]):
        own = torch.zeros_like(labels)
        own[:, i] = labels[:, i]
        total = total + class_loss(logits[:, i], own, weight)
    return total


class PlainWeak(nn.Module):
    """A separator that a fixed classifier teaches from frame labels; (11) with weights.

    (18) of the mixture itself is a constant while the classifier is fixed, and is left out.

    Args:
        masker, classifier: as above.
        weight: `[2, K]` of (16): row 1 where a class is active, row 0 where not.
        alpha: of the mixture term. n_fft, hop: samples.
    """

    def __init__(self, masker: PlainMasker, classifier: PlainCRNN, weight: Tensor, alpha: float, n_fft: int, hop: int):
        super().__init__()
        self.masker, self.classifier = masker, classifier
        self.alpha, self.n_fft, self.hop = alpha, n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft).sqrt())
        self.register_buffer("weight", weight.clone())
        self.classifier.requires_grad_(False)

    def train(self, mode: bool = True) -> "PlainWeak":
        super().train(mode)
        self.classifier.eval()
        self.classifier.rnn.train(mode)  # cuDNN's LSTM has no backward pass in evaluation
        return self

    def forward(self, speech_mix: Tensor, frame_label: Tensor, **_) -> Tensor:
        """`[B, T]` and `[B, L, K]` to the loss, a mean over the batch."""
        spec = torch.stft(
            speech_mix, self.n_fft, self.hop, window=self.window, pad_mode="constant", return_complex=True
        )
        mix, active = spec.abs().transpose(1, 2), frame_label.transpose(1, 2)
        est = self.masker(mix) * mix[:, None]
        logits = self.classifier(est.flatten(0, 1)).unflatten(0, est.shape[:2])
        labels = F.max_pool1d(active, 4, ceil_mode=True)
        off, on = self.weight[..., None]
        weight = labels * on + (1 - labels) * off
        loss = estimates_loss(logits, labels, weight) + self.alpha * mixture_loss(est, mix, active)
        return loss.mean()


def plain_of(model: nn.Module) -> PlainWeak | None:
    """The plain version of an `ESPnetWeakLabelModel`, with copies of its parameters.

    None for what is not written here: another separator or classifier than the paper's default,
    other labels than of frames, a classifier that learns.
    """
    if not _is_default(model):
        return None
    theirs, detector = model.separator.net, model.classifier
    masker = PlainMasker(theirs.num_bins, theirs.num_outputs, theirs.rnn.hidden_size, theirs.rnn.num_layers)
    masker.load_state_dict(theirs.state_dict())
    convs = [block.conv for block in detector.blocks]
    crnn = PlainCRNN(
        detector.num_bins,
        detector.num_classes,
        tuple(c.out_channels for c in convs),
        convs[0].kernel_size[0],
        detector.rnn.hidden_size,
    )
    crnn.rnn.load_state_dict(detector.rnn.state_dict())
    crnn.out.load_state_dict(detector.out.state_dict())
    for conv, norm, block in zip(crnn.convs, crnn.norms, detector.blocks):
        conv.load_state_dict(block.conv.state_dict())
        norm.load_state_dict(block.norm.state_dict())
    loss = model.weak_wrappers[0].criterion.loss
    plain = PlainWeak(masker, crnn, loss.weight, loss.alpha, model.encoder.n_fft, model.hop)
    return plain.to(next(model.parameters()).device).train(model.training)


def _is_default(model: nn.Module) -> bool:
    if model.classifier is None or len(model.weak_wrappers) != 1 or model.loss_wrappers:
        return False
    net, detector = getattr(model.separator, "net", None), model.classifier
    wrapper = model.weak_wrappers[0]
    loss = wrapper.criterion.loss
    return (
        isinstance(net, BLSTMMasker)
        and net.mask_type == "magnitude"
        and net.norm is None
        and isinstance(detector, CRNNClassifier)
        and detector.mel is None
        and not detector.compress
        and model.part == "separator"
        and model.label_type == "frame"
        and not model.residual
        and loss.fixed
        and loss.weight is not None
        and loss.reduction == "mean"
        and wrapper.weight == 1
    )


# ---- our training against it ---------------------------------------------------------------------


def compare(paths: list, options: Options, prepare: Callable) -> dict:
    """Time each model's step and its plain version's, one of each in every turn.

    Models for which there is no plain version (see `plain_of`) take their turns all the same.

    Args:
        prepare: called first in a process that measures memory, and in this one by the caller.

    Returns:
        a row a model: `ours`, and where there is a plain version `plain` (times); `loss` (before
        the first step) and `gflop` of each; `plain_apart` and `plain_untouched` (see
        `bench_plain`): in a process with our settings of memory, and with PyTorch's own.
    """
    device = options.start()
    calls, rows = {}, {}
    for path in paths:  # processes of their own first: this one keeps the memory that it takes
        name, (ours, plain) = name_of(path), _steps(path, options, options.batch, device)
        rows[name], calls[name, "ours"] = {}, ours
        if plain is not None:
            calls[name, "plain"] = plain
            rows[name] = {
                "plain_apart": apart(bench_plain, str(path), options, prepare=prepare),
                "plain_untouched": apart(bench_plain, str(path), options, prepare=leave_memory),
            }
    first = {key: call() for key, call in calls.items()}
    took = interleaved(calls, options.repeats, device, warmup=0)
    for path in paths:
        name, row = name_of(path), rows[name_of(path)]
        for which, step in zip(BOTH, _steps(path, options, 1, device)):
            if step is not None:
                row[which] = took[name, which]
                row.setdefault("loss", {})[which] = first[name, which]
                row.setdefault("gflop", {})[which] = options.batch * gflop(step)
    return rows


def _steps(path, options: Options, batch: int, device: torch.device) -> tuple:
    """Our step, and the plain one or None, from the same weights, on the same batch."""
    model = build(path, device)[0].train()
    given, plain = training_batch(model, batch, options.clip, device), plain_of(model)
    return training_step(model, given), plain and training_step(plain, given)


def leave_memory() -> None:
    """Undo what a parent process with `keep_memory` hands down."""
    os.environ.pop("THP_MEM_ALLOC_ENABLE", None)


def bench_plain(path: str, options: Options) -> dict:
    """A step of the plain version, in this process: `start_mb`, `peak_mb`, `time` of one run."""
    device = options.start()
    start = peak_mb(device)
    model = build(path, device)[0].train()
    plain = plain_of(model)
    given = training_batch(model, options.batch, options.clip, device)
    del model
    reset_peak(device)
    step = training_step(plain, given)
    step()
    return {
        "start_mb": start,
        "peak_mb": peak_mb(device),
        "time": interleaved({"step": step}, 1, device, warmup=0)["step"],
    }


def verdicts(rows: dict, training: list[dict]) -> list[str]:
    """Lines that say how each model compares with its plain version.

    Args:
        training: rows of `weak.bench_training`, for the memory of ours.
    """
    peaks = {row["model"]: row["peak_mb"] for row in training}
    lines = []
    for name, row in rows.items():
        if "plain" not in row:
            lines.append(f"{name}: no plain version; it is of the paper's default alone ({DEFAULT}).")
            continue
        ours, plain, loss, alone = row["ours"]["s"], row["plain"]["s"], row["loss"], row["plain_untouched"]
        memory, theirs = "", row["plain_apart"]["peak_mb"]
        if name in peaks:
            memory = f"; peak {peaks[name]:.0f} MB against {theirs:.0f} MB: ratio 1/{theirs / peaks[name]:.1f}"
        lines.append(
            f"{name}: a step takes {ours:.2f} s, plain {plain:.2f} s: ratio 1/{plain / ours:.1f}"
            f"{memory}. Plain with PyTorch's own settings of memory: {alone['time']['s']:.2f} s, "
            f"{alone['peak_mb']:.0f} MB. Loss {loss['ours']:.6g} and {loss['plain']:.6g}."
        )
    return lines + not_valid(row[which] for row in rows.values() for which in BOTH if which in row)


AGAINST: Columns = {"training step": at("name"), "GFLOP": at("gflop"), **TIMES}


def table_rows(rows: dict) -> list[dict]:
    """Rows of `AGAINST`: in turns in one process."""
    return [
        {"name": f"{name}, {which}", "gflop": row.get("gflop", {}).get(which), **row[which]}
        for name, row in rows.items()
        for which in BOTH
        if which in row
    ]
