"""The weak-label model: its loss is the core's, and every route through it agrees."""

import pytest
import torch
from weak_corpus import CLASSES, FS, HOP, N_FFT, model_args

from espnet2_ext.core.layers.spectrum import STFT, SqrtHannSTFTDecoder, SqrtHannSTFTEncoder
from espnet2_ext.core.losses.weak_label import ClassifierLoss, Labels, WeakLabelLoss
from espnet2_ext.enh.espnet_model_weak import gain_where_mixed
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.weak import WeakLabelTask

T, PRIOR = 2000, [0.2, 0.5, 0.4]
PRIORS = ["--frame_prior", *PRIOR]


def build(*more, seed=0, **kwargs):
    torch.manual_seed(seed)
    return WeakLabelTask.build_model(model_args(*PRIORS, *more, **kwargs))


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(1)
    refs = torch.randn(4, 4, T, generator=g) * 0.1  # three classes and the rest
    refs[0, 1] = 0.0
    frame = (torch.rand(4, T // HOP + 1, 3, generator=g) > 0.5).float()
    return {
        "speech_mix": refs.sum(1),
        "speech_mix_lengths": torch.tensor([T, T, T, T - 500]),
        "clip_label": frame.amax(1),
        "frame_label": frame,
        "label_kind": torch.tensor([[0], [1], [2], [1]]),
        **{f"speech_ref{s}": refs[:, s - 1] for s in range(1, 5)},
    }


def magnitudes(model, batch, sources):
    """What the core losses take, computed here from the parts of the model."""
    mix, lengths = batch["speech_mix"], batch["speech_mix_lengths"]
    spec, frames = model.encoder(mix, lengths)
    ref = torch.stack([model.encoder(batch[f"speech_ref{s}"], lengths)[0].abs() for s in range(1, sources + 1)], 1)
    est = None
    if model.separator is not None:
        est = model.separator.net(spec, frames) * spec.abs()[:, None]
    return est, spec.abs(), ref, frames


def without_gradient(model):
    return [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@pytest.mark.parametrize("n_fft, hop, num", [(512, 128, 4000), (128, 64, 777), (256, 100, 1)])
def test_decoder_is_the_inverse_of_the_encoder(n_fft, hop, num):
    encoder, decoder = SqrtHannSTFTEncoder(n_fft, hop), SqrtHannSTFTDecoder(n_fft, hop)
    x, lengths = torch.randn(2, num), torch.tensor([num, num])
    spec, frames = encoder(x, lengths)
    assert spec.shape == (2, num // hop + 1, encoder.output_dim) and spec.is_complex()
    assert frames.tolist() == [num // hop + 1] * 2
    back, _ = decoder(spec, lengths)
    assert torch.allclose(back, x, atol=1e-5)


def test_window_is_half_a_sine_and_nothing_is_normalised():
    encoder = SqrtHannSTFTEncoder(8, 4)
    window = torch.sin(torch.pi * torch.arange(8) / 8)
    spec, _ = encoder(torch.ones(1, 16), torch.tensor([16]))
    assert torch.allclose(spec[0, 2, 0].real, window.sum(), atol=1e-5)
    with pytest.raises(ValueError, match="8000 Hz, got audio at 16000 Hz"):
        SqrtHannSTFTEncoder(sample_rate=8000)(torch.ones(1, 9), torch.tensor([9]), fs=16000)
    with pytest.raises(ValueError, match="hop"):
        STFT(512, 300, "sqrt_hann")


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", ["strong", "frame", "clip", "mixed"])
def test_loss_is_that_of_the_core(batch, kind, residual):
    sources = 3 + residual
    model = build("--label_type", kind, "--strategy", "joint", "--residual", residual)
    model.train()
    loss, stats, weight = model(**batch, utt_id=list("abcd"))
    est, mix, ref, frames = magnitudes(model, batch, sources)
    labels = Labels(batch["clip_label"], batch["frame_label"].transpose(1, 2), ref, batch["label_kind"][:, 0])
    want = WeakLabelLoss(model.classifier, label_type=kind, strategy="joint", alpha=100.0, prior=torch.tensor(PRIOR))(
        est=est, mix=mix, labels=labels, lengths=frames
    )
    assert torch.allclose(loss, want["loss"].mean(), rtol=1e-4) and int(weight) == 4
    assert stats.keys() == want.keys()
    for name in want:
        assert torch.allclose(stats[name], want[name].mean(), rtol=1e-4, atol=1e-5), name
    assert (model.classifier is None) == (kind == "strong")
    loss.backward()
    assert without_gradient(model) == []


JOINT = ["--strategy", "joint"]
REMIX = [*JOINT, "--remix", 30]


def by_hand(batch):
    """The batch with one class in each item, and its sums: 0 + 1, 1 + 2, 2 + 3, 3 + 0."""
    first, third = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    only = torch.stack([first, third, first, third])
    batch["frame_label"] = batch["frame_label"] * only[:, None] + 0.0
    batch["frame_label"][:, 5] = only  # each class sounds somewhere
    batch["clip_label"] = only
    other = torch.tensor([1, 2, 3, 0])
    both = {k: torch.stack([batch[k], batch[k][other]], 1) for k in batch}
    summed = {k: x.sum(1) for k, x in both.items() if k.startswith("speech") and "_len" not in k}
    return both, {k: x.amax(1) for k, x in both.items()} | summed


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", ["strong", "frame", "clip", "mixed"])
def test_remixing_adds_mixtures_and_knows_the_parts(batch, kind, residual):
    model = build("--label_type", kind, "--residual", residual, *REMIX).train()
    both, new = by_hand(batch)
    loss, stats, _ = model(**batch)
    est, mix, ref, frames = magnitudes(model, new, 3 + residual)
    parts = torch.stack(
        [model.encoder(both["speech_mix"][:, p], new["speech_mix_lengths"])[0].abs() for p in (0, 1)], 1
    )
    active = both["frame_label"].transpose(2, 3)
    clips = both["clip_label"][..., None].expand_as(active)
    of_clips = both["label_kind"][..., None] == 2  # [B, P, 1, 1]
    active = {"clip": clips, "mixed": torch.where(of_clips, clips, active)}.get(kind, active)
    labels = Labels(new["clip_label"], new["frame_label"].transpose(1, 2), ref, new["label_kind"][:, 0], parts, active)
    want = WeakLabelLoss(model.classifier, label_type=kind, strategy="joint", remix=30.0, prior=torch.tensor(PRIOR))(
        est=est, mix=mix, labels=labels, lengths=frames
    )
    assert stats.keys() == want.keys()
    for name in want:
        assert torch.allclose(stats[name], want[name].mean(), rtol=1e-4, atol=1e-5), name
    assert kind == "strong" or stats["remix"] > 0
    loss.backward()
    assert without_gradient(model) == []


@pytest.mark.parametrize("training", [True, False])
def test_partners_share_few_classes_and_are_never_oneself(batch, training):
    model = build(*REMIX).train(training)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch["clip_label"] = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    model(**batch)
    mixes = batch["speech_mix"]  # 2 shares none with 0 and 1, which has fewer; 3 one with 1 and 2, and 1 comes first
    assert torch.equal(seen[0], mixes + mixes[[2, 2, 1, 1]])


def test_nothing_is_remixed_alone_or_for_a_classifier(batch):
    model, plain = build(*REMIX), build(*JOINT)
    alone = {k: x[:1] for k, x in batch.items()}
    got = [m.train()(**alone)[0] for m in (model, plain)]
    assert torch.equal(*got) and not build("--part", "classifier", *REMIX).remix


def test_a_config_from_before_remixing_builds_as_it_did():
    args = model_args(*PRIORS)
    del args.remix
    assert not WeakLabelTask.build_model(args).remix


@pytest.mark.parametrize("mask", ["phase_sensitive", "complex"])
def test_all_kinds_of_estimates_are_remixed(batch, mask):
    model = build("--separator_conf", f"mask_type={mask}", *REMIX).train()
    loss, stats, _ = model(**batch)
    loss.backward()
    assert without_gradient(model) == [] and stats["remix"] > 0


def test_the_classifiers_own_loss(batch):
    model = build("--part", "classifier")
    loss, stats, _ = model(**batch)
    _, mix, _, frames = magnitudes(model, batch, 3)
    labels = Labels(frame=batch["frame_label"].transpose(1, 2))
    want = ClassifierLoss(model.classifier, prior=torch.tensor(PRIOR))(mix=mix, labels=labels, lengths=frames)
    assert torch.allclose(loss, want["loss"].mean()) and stats.keys() == {"loss", "class_mix"}
    loss.backward()
    assert without_gradient(model) == [] and model.separator is None
    with pytest.raises(ValueError, match="classifier alone"):
        model.separate(batch["speech_mix"])


def test_a_fixed_classifier_stays_as_it_is(batch):
    small = ["--classifier", "crnn", "--classifier_conf", "channels=[2, 2, 2]", "--classifier_conf", "hidden=4"]
    yaml_conf = model_args(*PRIORS, *small)
    for key in ("mel_bands", "layers"):  # the debug YAML's, for the RNN
        yaml_conf.classifier_conf.pop(key)
    model = WeakLabelTask.build_model(yaml_conf).train()
    before = {k: v.clone() for k, v in model.classifier.state_dict().items()}
    loss, stats, _ = model(**batch)
    loss.backward()
    assert "class_mix" not in stats and without_gradient(model) == []
    assert not any(p.requires_grad for p in model.classifier.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.classifier.state_dict().items())


@pytest.mark.parametrize("kinds", [[0, 0, 0, 0], [2, 2, 2, 2]])
def test_mixed_batches_leave_no_parameter_without_a_gradient(batch, kinds):
    """Otherwise several processes would wait for each other."""
    model = build("--label_type", "mixed", "--strategy", "joint", "--classifier_conf", "pooling=auto")
    batch["label_kind"] = torch.tensor(kinds)[:, None]
    model(**batch)[0].backward()
    assert all(p.grad is not None for p in model.parameters())
    frame = build("--strategy", "joint", "--classifier_conf", "pooling=auto")
    assert not frame.classifier.clip_pooling.sharpness.requires_grad  # frames are not pooled


def test_weak_labels_do_not_look_at_the_sources(batch):
    model = build("--label_type", "clip").train()
    whole = model(**batch)[0]
    del batch["frame_label"]
    less = {k: torch.full_like(v, torch.nan) if k.startswith("speech_ref") else v for k, v in batch.items()}
    assert torch.equal(model(**less)[0], whole)


def test_kinds_of_masks(batch):
    for mask in ("phase_sensitive", "complex"):
        model = build("--label_type", "strong", "--separator_conf", f"mask_type={mask}")
        model(**batch)[0].backward()
        assert without_gradient(model) == []
        lengths = torch.tensor([T] * 4)
        mix, ref = (model.encoder(batch[k], lengths)[0] for k in ("speech_mix", "speech_ref1"))
        kind = torch.complex64 if mask == "complex" else torch.float32
        est = torch.zeros(4, 3, *mix.shape[1:], dtype=kind)
        wave = batch["speech_ref1"][:, None]
        got = model._spectra_like(est, wave, batch["speech_mix"], lengths)[:, 0]
        want = ref if mask == "complex" else (ref * mix.conj()).real / mix.abs()
        assert torch.allclose(got, want, atol=1e-4)


def test_use_of_a_model(batch):
    """Masks put back into waveforms, as ESPnet's inference does it; probabilities."""
    model = build("--residual", "true").eval()
    mix, lengths = batch["speech_mix"], torch.tensor([T] * 4)
    out = model.separate(mix)
    assert out.shape == (4, 4, T) and model.fs == FS and model.hop == HOP
    assert model.class_names == CLASSES and model.residual and model.num_spk == 4
    features, _, _ = model.separator(*model.encoder(mix, lengths), {})
    stock = torch.stack([model.decoder(f, lengths)[0] for f in features], 1)
    assert torch.equal(out, stock)
    alone, end = model.separate(mix[:1, :1500]), 1500 - N_FFT  # there frames end otherwise
    padded = model.separate(mix, torch.tensor([1500] * 4))
    assert torch.allclose(padded[:1, :, :end], alone[..., :end], atol=1e-5)
    frame, clip = model.classify(mix)
    assert frame.shape == (4, T // HOP + 1, 3) and torch.allclose(clip, frame.amax(1))
    assert 0 < float(frame.min()) and float(frame.max()) < 1
    with pytest.raises(ValueError, match="no classifier"):
        build("--label_type", "strong").classify(mix)


def test_gain_leaves_silent_and_single_sources_out():
    g = torch.Generator().manual_seed(0)
    ref = torch.randn(3, 3, 4000, generator=g)
    ref[0, 2] = 0.0
    ref[1, 1:] = 0.0  # a single source
    mix = ref.sum(1)
    est = ref + 0.1 * (mix[:, None] - ref)  # a tenth of the rest is left: 20 dB
    assert gain_where_mixed(est, ref, mix).item() == pytest.approx(20, abs=0.2)
    assert gain_where_mixed(mix[:, None].expand_as(ref), ref, mix).item() == 0.0
    assert gain_where_mixed(est[1:2], ref[1:2], mix[1:2]).isnan()


def test_validation_tells_the_gain_and_training_does_not(batch):
    model = build()
    assert "si_sdr_gain" not in model.train()(**batch)[1]
    assert model.eval()(**batch)[1]["si_sdr_gain"].isfinite().all()
    del batch["speech_ref1"]
    assert "si_sdr_gain" not in model(**batch)[1]


@pytest.mark.parametrize(
    "separator, conf",
    [
        ("rnn", ["unit=8", "layer=1"]),
        ("mask_conv", ["mel_bands=8", "channels=[4, 4]"]),
        (
            "asteroid_masker",
            ["masker=TDConvNet", "masker_conf={n_blocks: 2, n_repeats: 1, bn_chan: 4, hid_chan: 8, skip_chan: 4}"],
        ),
    ],
)
def test_separators_of_ours_espnets_and_asteroids(batch, separator, conf):
    args = model_args(*PRIORS, "--separator", separator, *[x for c in conf for x in ("--separator_conf", c)])
    for key in ("hidden", "layers"):  # the debug YAML's, for the BLSTM
        args.separator_conf.pop(key)
    model = WeakLabelTask.build_model(args)
    loss, _, _ = model(**batch)
    loss.backward()
    assert without_gradient(model) == [] and model.separate(batch["speech_mix"]).shape[1] == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("separator", ["mask_blstm", "mask_conv"])
def test_weights_of_half_precision(batch, dtype, separator):
    args = model_args(*PRIORS, *JOINT, "--separator", separator, "--label_type", "mixed")
    if separator == "mask_conv":
        args.separator_conf = {"mel_bands": 8, "channels": [4, 4]}
    losses = []
    for half in (False, True):
        torch.manual_seed(0)
        model = WeakLabelTask.build_model(args)
        given = batch
        if half:
            model.to(dtype)
            given = {k: x.to(dtype) if x.is_floating_point() else x for k, x in batch.items()}
        loss, _, _ = model(**given)
        loss.backward()
        assert without_gradient(model) == []
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("name, wrapper", [("wave_l1", "keyed_order"), ("neg_sdr", "keyed_order"), ("asteroid", None)])
def test_losses_on_references_do_not_see_padding(batch, name, wrapper):
    args = model_args("--label_type", "strong")
    entry = {"name": name, "conf": {"loss": "pairwise_mse"} if name == "asteroid" else {}}
    args.criterions = [entry | ({"wrapper": wrapper} if wrapper else {})]
    model, end = WeakLabelTask.build_model(args).eval(), T - 500
    whole = model(**batch)[0]
    for s in (1, 2, 3):
        batch[f"speech_ref{s}"][3, end:] = 7.0
    assert torch.equal(model(**batch)[0], whole) and whole.isfinite()


def test_an_encoder_that_is_no_stft(batch):
    args = model_args(*PRIORS, "--encoder", "conv", "--decoder", "conv", "--separator", "rnn")
    args.encoder_conf = args.decoder_conf = {"channel": 16, "kernel_size": 32, "stride": 16}
    args.separator_conf = {"unit": 8, "layer": 1}
    args.model_conf, args.sample_rate = {"n_fft": N_FFT, "hop_length": HOP}, FS
    args.remix = 30.0
    model = WeakLabelTask.build_model(args)
    loss, _, _ = model(**batch)
    loss.backward()
    assert without_gradient(model) == [] and model.hop == HOP and model.fs == FS
    assert model.separate(batch["speech_mix"]).shape == (4, 3, T)
    assert model.classify(batch["speech_mix"])[0].shape == (4, T // HOP + 1, 3)


def test_what_is_missing_is_named(batch):
    strong = build("--label_type", "strong")
    with pytest.raises(ValueError, match="speech_ref3"):
        strong(**{k: v for k, v in batch.items() if k != "speech_ref3"})
    batch["frame_label"] = batch["frame_label"][:, :-1]
    with pytest.raises(ValueError, match="31 frames, the spectrum 32.*64 samples"):
        build()(**batch)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--separator_conf", "num_spk=2"], "mask_blstm has 2 outputs.*are 3: bell, drum, rain"),
        (["--separator_conf", "hiden=2"], "separator_conf of mask_blstm: unknown key 'hiden'"),
        (["--classifier_conf", "num_classes=2"], "classifier_conf of rnn: unknown key 'num_classes'"),
        (["--model_conf", "part=separator"], "model_conf: unknown key 'part'"),
    ],
)
def test_options_that_do_not_fit_are_named(more, message):
    with pytest.raises(DataError, match=message):
        build(*more)


def test_a_loss_on_references_needs_strong_labels():
    args = model_args(config="conf/debug/train_weak_asteroid_loss.yaml")
    args.label_type = "clip"
    with pytest.raises(DataError, match="asteroid compares with isolated sources.*label_type"):
        WeakLabelTask.build_model(args)
    args.label_type, args.remix = "strong", 1.0
    with pytest.raises(DataError, match="remix, 0 or more, .* got 1 without one"):
        WeakLabelTask.build_model(args)
    args.label_type = "weak"
    with pytest.raises(DataError, match="label_type must be one of strong, frame, clip, mixed"):
        WeakLabelTask.build_model(args)


def test_of_channels_the_mean_counts(batch):
    model = build("--label_type", "strong").eval()
    want = model(**batch)[0]
    stereo = {k: torch.stack([1.5 * x, 0.5 * x], -1) for k, x in batch.items() if x.shape[-1] == T}
    assert len(stereo) == 5
    assert torch.allclose(model(**{**batch, **stereo})[0], want, rtol=1e-4)
