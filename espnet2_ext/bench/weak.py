"""Separation from weak labels: what a training step takes, the classifier's share, inference."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from espnet2_ext.audio.streams import ArraySource
from espnet2_ext.bench.configs import Options, build, name_of, noise
from espnet2_ext.bench.measure import Columns, at, gflop, interleaved, lost, parameters, peak_mb, reset_peak
from espnet2_ext.core.losses.weak_label import CLIP, FRAME, Labels
from espnet2_ext.infer.class_folder import BITS
from espnet2_ext.infer.class_separator import WeakSeparator

ACTIVE = 0.35  # share of frames in which a class is active, about as in the paper's mixtures


def training_batch(model: nn.Module, batch: int, seconds: float, device: torch.device) -> dict[str, Tensor]:
    """Noise with labels at random, as the loader gives them; sources where labels are strong."""
    mix = noise(batch, seconds, model.fs, device)
    g = torch.Generator().manual_seed(0)
    frames, classes = mix.shape[1] // model.hop + 1, len(model.class_names)
    frame = (torch.rand(batch, frames, classes, generator=g) < ACTIVE).float().to(device)
    given = {
        "speech_mix": mix,
        "frame_label": frame,
        "clip_label": frame.amax(1),
        "label_kind": torch.full((batch, 1), FRAME, device=device),
    }
    if model.label_type in ("strong", "mixed"):
        refs = noise(model.num_spk * batch, seconds, model.fs, device, seed=1)
        given |= {f"speech_ref{s}": ref for s, ref in enumerate(refs.chunk(model.num_spk), 1)}
    return given


def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Callable[[], float]:
    """Forward, backward, Adam; ours and the plain version alike. Gives the loss."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learning, lr=1e-6)

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        out = model(**batch)
        loss = out[0] if isinstance(out, tuple) else out
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def class_pass(model: nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    """The class terms of a step alone: forward, and backward to the estimates."""
    loss = model.weak_wrappers[0].criterion.loss
    labels = Labels(batch["clip_label"], batch["frame_label"].transpose(1, 2))
    target = loss.target(CLIP if model.label_type == "clip" else FRAME, labels, None)
    wave = batch["speech_mix"]
    with torch.no_grad():
        mix = (
            model.encoder(wave, torch.full(wave.shape[:1], wave.shape[1]))[0]
            if model.stft is None
            else model.stft(wave)
        ).abs()
    est = (mix[:, None] / model.num_spk).repeat(1, model.num_spk, 1, 1).requires_grad_()

    def call() -> None:
        est.grad = None
        sum(t.sum() for t in loss.class_terms(est, mix, target).values()).backward()

    return call


def bench_training(path: str, options: Options) -> dict:
    """A training step, measured in this process.

    Returns:
        a row: `separator_m`, `classifier_m` (parameters), `start_mb` (before there was a model), `peak_mb`, and by name
        (`step`, and where there is a classifier `classes`, see `class_pass`) `time` and `gflop`. Operations are counted
        on one mixture and multiplied: they are in proportion.
    """
    device = options.start()
    start = peak_mb(device)
    model = build(path, device)[0].train()
    row = {
        "model": name_of(path),
        "mixtures": options.batch,
        "seconds": options.clip,
        "separator_m": parameters(model.separator),
        "start_mb": start,
        "classifier_m": None if model.classifier is None else parameters(model.classifier),
    }
    reset_peak(device)
    calls = _calls(model, options.batch, options.clip, device)
    calls["step"]()
    row["peak_mb"] = peak_mb(device)
    row["time"] = interleaved(calls, options.repeats, device)
    row["gflop"] = {name: options.batch * gflop(call) for name, call in _calls(model, 1, options.clip, device).items()}
    return row


def _calls(model: nn.Module, batch: int, seconds: float, device: torch.device) -> dict:
    given = training_batch(model, batch, seconds, device)
    calls = {"step": training_step(model, given)}
    if model.classifier is not None:
        calls["classes"] = class_pass(model, given)
    return calls


def bench_inference(path: str, options: Options) -> dict:
    """Separation as the inference command does it, measured in this process.

    Returns:
        a row: `start_mb`, `peak_mb`, `time` of `clip` (`options.seconds`, at once) and of `song` (chunks with context,
        written as FLAC), and where there is a classifier of `clip_tags` and `song_tags`, its output for each, which the
        command writes as well; `real_time`, the same for a second of sound.
    """
    device = options.start()
    start = peak_mb(device)
    separator = WeakSeparator(build(path, device)[0], str(device))
    reset_peak(device)
    with tempfile.TemporaryDirectory() as folder:
        calls = _inference_calls(separator, options, Path(folder))
        took = interleaved(calls, options.repeats, device)
    lengths = {name: options.song if name.startswith("song") else options.seconds for name in took}
    return {
        "model": name_of(path),
        "seconds": options.seconds,
        "song": options.song,
        "start_mb": start,
        "peak_mb": peak_mb(device),
        "time": took,
        "real_time": {name: t["s"] / lengths[name] for name, t in took.items()},
    }


def _inference_calls(separator: WeakSeparator, options: Options, folder: Path) -> dict:
    cpu = torch.device("cpu")
    clip = noise(1, options.seconds, separator.fs, cpu).numpy()
    song = noise(1, options.song, separator.fs, cpu).numpy().T
    source, plan = ArraySource(song, separator.fs, "the song"), separator.plan()
    files = [folder / f"{s}.flac" for s in range(len(separator.outputs))]
    calls = {
        "clip": lambda: separator.separate_batch(clip),
        "song": lambda: separator.separate_to(source, files, plan=plan, subtype=f"PCM_{BITS}"),
    }
    if separator.tags:
        calls["clip_tags"] = lambda: separator.classify_batch(clip)
        calls["song_tags"] = lambda: separator.classify(source, plan)
    return calls


def _per_step(row: dict, value: float | None) -> float | None:
    """A value divided by the seconds of a step."""
    return None if value is None else value / row["time"]["step"]["s"]


TRAINING: Columns = {
    "model": at("model"),
    "M param. separator": at("separator_m"),
    "classifier": at("classifier_m"),
    "GFLOP a step": at("gflop", "step"),
    "of it classes": at("gflop", "classes"),
    "step s": at("time", "step", "s"),
    "lowest": at("time", "step", "low"),
    "highest": at("time", "step", "high"),
    "classes s": at("time", "classes", "s"),
    "share of the step": lambda row: _per_step(row, at("time", "classes", "s")(row)),
    "mixtures/s": lambda row: _per_step(row, row["mixtures"]),
    "peak MB": at("peak_mb"),
    "before the model MB": at("start_mb"),
    "cores lost": lost,
}
INFERENCE: Columns = {
    "model": at("model"),
    "clip s": at("time", "clip", "s"),
    "clip real-time factor": at("real_time", "clip"),
    "clip activity s": at("time", "clip_tags", "s"),
    "song s": at("time", "song", "s"),
    "song real-time factor": at("real_time", "song"),
    "song activity s": at("time", "song_tags", "s"),
    "with activity": lambda row: row["real_time"]["song"] + row["real_time"].get("song_tags", 0.0),
    "peak MB": at("peak_mb"),
    "before the model MB": at("start_mb"),
    "cores lost": lost,
}
