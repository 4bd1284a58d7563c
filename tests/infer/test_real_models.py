"""The real networks in their debug size: our inference, ESPnet's own, chunks and whole, through a bundle."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.bin import enh_inference
from standin import noise
from untrained import bundle_of

from espnet2_ext.audio.read import FlacArkWriter, read_audio
from espnet2_ext.bin.weak_inference import main
from espnet2_ext.cli.main import main as command
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.class_separator import WeakSeparator
from espnet2_ext.infer.espnet import WeakSeparateSpeech
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.tasks.weak import WeakLabelTask
from espnet2_ext.util.tables import read_scp

DEBUG = Path(__file__).parents[2] / "conf" / "debug"
CONFIG = DEBUG / "train_weak.yaml"
CLASSES = ["bell", "dog", "siren"]


def make_exp(path, *more):
    args = WeakLabelTask.get_parser().parse_args(
        ["--config", str(CONFIG), "--output_dir", str(path), "--class_names", *CLASSES, *more]
    )
    torch.manual_seed(0)
    model = WeakLabelTask.build_model(args)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "out" in name or "dense" in name:  # or an untrained mask is the same everywhere
                weight.mul_(8)
    torch.save(model.state_dict(), path / "model.pth")
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, path / "model.ckpt")
    (path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    return path


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    return make_exp(tmp_path_factory.mktemp("weak"), "--residual", "true")


@pytest.fixture(scope="module")
def separator(exp):
    return WeakSeparator.from_exp(exp / "config.yaml", exp / "model.pth", "cpu")


def test_outputs_activity_and_checkpoints(exp, separator):
    x = noise(1.5, 16000)[:, 0]
    out = separator.separate(x, 16000)
    assert separator.outputs == [*CLASSES, "rest"] and out.shape == (4, len(x))
    assert separator.tags and separator.hop == 256 and separator.n_fft == 512
    heard = separator.classify_batch(x[None])[0]
    assert heard.frame.shape == (len(x) // 256 + 1, 3) and heard.clip.shape == (3,)
    np.testing.assert_allclose(heard.clip, heard.frame.max(0), atol=1e-6)  # pooling: max
    other = WeakSeparator.from_exp(exp / "config.yaml", exp / "model.ckpt", "cpu")
    assert np.array_equal(other.separate(x, 16000), out)


def test_chunks_of_a_recurrent_separator_come_near_the_whole(separator):
    x = noise(12, 16000)[:, 0]
    whole = separator.separate(x, 16000, separator.plan(0))
    parts = separator.separate(x, 16000, separator.plan(2, 2))
    error = np.square(parts - whole).sum(1) / np.square(whole).sum(1)
    assert (error < 1e-3).all()  # 30 dB below; it is not equal


def test_espnets_own_inference_gives_the_same_in_the_same_order(exp, separator):
    x = noise(3, 16000)[:, 0]
    separate = WeakSeparateSpeech(exp / "config.yaml", exp / "model.pth")
    whole = np.stack(separate(x[None]))[:, 0]
    np.testing.assert_allclose(whole, separator.separate(x, 16000), atol=1e-5)
    in_parts = WeakSeparateSpeech(exp / "config.yaml", exp / "model.ckpt", segment_size=1.0, hop_size=0.75)
    calls = []
    model = in_parts.enh_model
    model.separator.register_forward_hook(lambda *_: calls.append(1))
    parts = np.stack(in_parts(x[None]))[:, 0]
    assert len(calls) == 4  # seconds are counted at the model's rate
    assert parts.shape == whole.shape
    for s in range(4):  # each output is nearest to the whole's output of its class
        distances = np.square(parts[s] - whole).sum(1)
        assert distances.argmin() == s


def test_segments_are_never_swapped(exp, monkeypatch):
    """Outputs that ESPnet's search would swap: in the second half the sounds change places."""
    separate = WeakSeparateSpeech(exp / "config.yaml", exp / "model.pth", segment_size=0.5, hop_size=0.25)
    noises = torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    starts = iter(range(0, 16000, 4000))

    class AsItIs(torch.nn.Module):
        def forward(self, x, lengths, fs=None):
            return x, lengths

    class Swapping(torch.nn.Module):
        def forward(self, x, lengths, more):
            at = next(starts)
            order = [0, 1, 2, 3] if at < 8000 else [1, 0, 3, 2]
            return [noises[s, at : at + 8000][None].clone() for s in order], lengths, {}

    for name, module in (("encoder", AsItIs()), ("decoder", AsItIs()), ("separator", Swapping())):
        monkeypatch.setattr(separate.enh_model, name, module)
    out = np.stack(separate(np.zeros((1, 16000), np.float32)))[:, 0]
    assert np.array_equal(out[0, :4000], noises[0, :4000])
    assert np.array_equal(out[0, 12000:], noises[1, 12000:])  # output 0 is what the model gave as 0


def test_espnets_inference_checks_every_key(exp, tmp_path):
    state = torch.load(exp / "model.pth")
    state["other"] = state.pop(next(iter(state)))
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(BundleError, match="1 missing .*1 unexpected .other."):
        WeakSeparateSpeech(exp / "config.yaml", tmp_path / "model.pth")


def test_a_classifier_alone_or_strong_labels(tmp_path):
    for name, more in (("c", ("--part", "classifier")), ("s", ("--label_type", "strong"))):
        (tmp_path / name).mkdir()
        make_exp(tmp_path / name, *more)
    with pytest.raises(BundleError, match="is a classifier alone"):
        WeakSeparator.from_exp(tmp_path / "c/config.yaml", tmp_path / "c/model.pth", "cpu")
    strong = WeakSeparator.from_exp(tmp_path / "s/config.yaml", tmp_path / "s/model.pth", "cpu")
    assert not strong.tags and strong.outputs == CLASSES


def test_several_processes_give_the_same(exp, tmp_path):
    data = tmp_path / "data"
    with FlacArkWriter(data, "wav", 16000, 24) as ark:
        for i in range(10):
            ark.write(f"m{i}", noise(0.5, 16000, 1, i)[:, 0])
    for workers in ("1", "2"):
        main(
            [
                "--data_dir",
                str(data),
                "--output_dir",
                str(tmp_path / workers),
                "--device",
                "cpu",
                "--train_config",
                str(exp / "config.yaml"),
                "--model_file",
                str(exp / "model.pth"),
                "--num_workers",
                workers,
            ]
        )
    for s in range(1, 5):
        a, b = (read_scp(tmp_path / n / f"spk{s}.scp") for n in "12")
        for key in a:
            np.testing.assert_allclose(read_audio(a[key])[0], read_audio(b[key])[0], atol=2**-21)


# ---- separation by query -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["care_sep", "query_unet"])
def debug_bundle(request, tmp_path_factory):
    """A bundle of the debug model; its weights are enlarged, or an untrained mask hardly moves."""
    from espnet2_ext.tasks.qsep import QSepTask

    path = tmp_path_factory.mktemp(request.param)
    config = str(DEBUG / f"train_qsep_{request.param}.yaml")
    args = QSepTask.get_parser().parse_args(["--config", config, "--output_dir", str(path)])
    torch.manual_seed(0)
    model = QSepTask.build_model(args)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    return bundle_of(vars(args), "qsep", path / "b.zip", model)


def test_chunks_of_queries_equal_the_whole(debug_bundle):
    """At the default context the seams between chunks of one grid are below a 16-bit step."""
    separator = Separator.from_bundle(debug_bundle, "cpu")
    plan = separator.plan(chunk=1)
    x = noise(4.5 * plan.core / separator.fs, separator.fs, 2)
    query = separator.embed_one(noise(2, separator.fs, 1, 5), separator.fs)[None]
    whole = separator.separate(x, separator.fs, query, separator.plan(chunk=0))
    parts = separator.separate(x, separator.fs, query, plan)
    estimate = whole[0] - x * (whole[0].ravel() @ x.ravel()) / (x.ravel() @ x.ravel())
    assert np.abs(estimate).max() > 0.005  # the mask is not one factor for all
    difference = np.abs(whole - parts)[0].max(1)
    print(f"max |difference| {difference.max():.2e}, estimate {np.abs(whole).max():.2f}")
    assert difference.max() < 2**-16
    seams = range(plan.core, len(x) - plan.after, plan.core)
    assert len(seams) >= 2
    for seam in seams:
        assert difference[seam - plan.fade : seam + plan.fade].max() < 2**-16


def test_a_temperature_of_the_command(debug_bundle, tmp_path, monkeypatch, capsys, caplog):
    """Logits are divided by it; an output that was made with another one is made again."""
    fs = 32000
    soundfile.write(tmp_path / "mix.wav", noise(1, fs, 1), fs)
    given = ["separate", "mix.wav", "--query", "mix.wav", "-o", "out.wav", "--subtype", "FLOAT", "--skip_existing"]
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)

    def separate(*more):
        command([*given, "--bundle", str(debug_bundle), *more])
        return soundfile.read("out.wav")[0]

    if debug_bundle.parent.name.startswith("query_unet"):  # whose masks are complex
        with pytest.raises(SystemExit):
            separate("--temperature", "2")
        assert "temperature 2: the model's network has none" in capsys.readouterr().err
        return
    x, own = soundfile.read("mix.wav")[0], separate()
    np.testing.assert_allclose(separate("--temperature", "1e6"), 0.5 * x, atol=1e-4)
    assert "was made of another model; made again" in caplog.text
    assert np.abs(separate("--temperature", "0.1") - 0.5 * x).mean() > 1.2 * np.abs(own - 0.5 * x).mean()
    separate("--temperature", "0.1")
    assert "exists, skipped" in caplog.text
    with pytest.raises(SystemExit):
        separate("--temperature", "0")
    assert "temperature must be positive" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fs, length, channels", [(8000, 1, 1), (44100, 1, 2), (32000, 319, 1), (32000, 513, 2), (48000, 20001, 6)]
)
def test_any_input(debug_bundle, fs, length, channels):
    separator = Separator.from_bundle(debug_bundle, "cpu")
    query = separator.embed_one(noise(1, separator.fs, 1, 5), separator.fs)
    out = separator.separate(noise(1, fs, channels)[:length], fs, np.stack([query, query]))
    assert out.shape == (2, length, channels) and np.isfinite(out).all()
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)


def test_whole_clips_are_the_chunked_ones(debug_bundle):
    """Batches of clips, as scoring uses them, and a file's way give one answer."""
    separator = Separator.from_bundle(debug_bundle, "cpu")
    clips = np.stack([noise(2, separator.fs, 1, i)[:, 0] for i in range(2)])
    queries, tags = separator.embed_batch(clips)
    assert tags.shape == (2, len(separator.classes))
    out = separator.separate_batch(clips, queries)
    for clip, query, est in zip(clips, queries, out):
        np.testing.assert_allclose(est, separator.separate(clip, separator.fs, query[None])[0], atol=1e-4)


def test_what_a_bundle_is_made_of_is_told(debug_bundle, capsys):
    command(["info", str(debug_bundle)])
    told = capsys.readouterr().out
    if "query_unet" in str(debug_bundle):
        assert "query_net: hts_at" in told and "query_grad: false" in told
    else:
        assert "query_net: shared" in told


def test_espnets_own_class_is_refused_by_name_of_ours(exp):
    with pytest.raises(DataError, match="weak-train.*espnet2_ext.infer.espnet.WeakSeparateSpeech"):
        enh_inference.SeparateSpeech(exp / "config.yaml", exp / "model.pth")
