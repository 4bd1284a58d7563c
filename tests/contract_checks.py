"""What `separate`, training with several processes, tagging and figures need of a registered network.

Each check builds the network as a YAML in `conf/` names it, and raises an AssertionError or a
DataError whose message names what is missing.
"""

import itertools

import numpy as np
import torch
from small_confs import CLASSES, CONF, parse, separation_batch, shrink, without_gradient

from espnet2_ext.build import build_model
from espnet2_ext.core.nets import contracts
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.registry import espnet_class
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.tasks.weak import WeakLabelTask
from espnet2_ext.util.config import read_config

PARTS = ("extractor", "query_net", "separator", "classifier")
TASKS = {"extractor": QSepTask, "query_net": TaggingTask, "separator": WeakLabelTask, "classifier": WeakLabelTask}
HOST = {"separator": "debug/train_weak.yaml", "classifier": "debug/train_weak.yaml"}


def yaml_of(kind, name):
    """The YAML in `conf/` that uses a network: one for debugging if there is one."""
    paths = sorted(CONF.rglob("*.yaml"), key=lambda p: ("debug" not in p.parts, "mini" not in p.parts, str(p)))
    paths = [p for p in paths if not {"base", "sweeps"} & set(p.relative_to(CONF).parts)]
    if kind == "query_net":  # of its own training
        paths = [p for p in paths if "extractor" not in read_config(p)]
    found = [p.relative_to(CONF).as_posix() for p in paths if read_config(p).get(kind) == name]
    assert found or kind in HOST, f"{kind} {name}: no YAML in conf/ uses it"
    return found[0] if found else HOST[kind]


def noise(seconds, fs, seed=0):
    """Noise `[T]` whose loudness and pitch change, so that no two places look the same."""
    t = np.arange(round(seconds * fs)) / fs
    x = 0.1 * np.random.default_rng(seed).standard_normal(len(t)) * (1 + np.sin(2 * np.pi * 0.7 * t)) / 2
    return (x + 0.05 * np.sin(2 * np.pi * (300 + 50 * t) * t)).astype(np.float32)


def arguments(kind, name, *more):
    """Options of the task that trains a network, from its YAML, with every part small."""
    path = yaml_of(kind, name)
    uses = read_config(CONF / path).get(kind) == name
    args = parse(TASKS[kind], path, *([] if uses else [f"--{kind}", name]), *more)
    if not uses:
        setattr(args, f"{kind}_conf", {})
    return shrink(args, *(part for part in PARTS if hasattr(args, f"{part}_conf")))


def ready(task, args):
    """The model that ESPnet trains, and the plain one with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    model = task.build_model(args).train()
    plain = build_model(vars(args), {QSepTask: "qsep", TaggingTask: "tag", WeakLabelTask: "weak"}[task])
    assert list(plain.state_dict()) == list(model.state_dict()), "names of weights differ from the plain model's"
    # Enlarged, or an untrained mask hardly moves. Nothing is normalised before masks of components: they need less.
    times, most = (2, 3) if getattr(args, "extractor", None) == "care_components" else (4, 4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(times if 1 < weight.dim() <= most else 1)
    plain.load_state_dict(model.state_dict())
    return model, plain.eval()


def all_get_gradients(model, loss, hint):
    loss.backward()
    assert loss.isfinite(), "the loss is not finite"
    names = without_gradient(model)
    assert not names, f"no gradient reaches {', '.join(names[:5])}: several processes would wait for it; {hint}"


# ---- separation by query -------------------------------------------------------------------------


def check_extractor(name):
    args = arguments("extractor", name)
    own, criterions = args.query_net == "shared", args.criterions
    for grad, tags in itertools.product((True, False), (True, False)):
        args.query_grad = grad
        args.criterions = [c for c in criterions if tags or c["name"] != "tagging"]
        hint = "parts that only `embed` goes through must stand in embed_only" if own else ""
        model, plain = ready(QSepTask, args)
        all_get_gradients(model, model(**separation_batch())[0], hint)
    contracts.check("extractor", plain.extractor.net)
    declared_is_given(plain)
    chunks_agree_with_the_whole(plain)
    stereo_and_batches(plain)


def declared_is_given(model):
    wave = 0.1 * torch.randn(2, 2 * model.fs)
    with torch.inference_mode():
        out = model.embed(wave)
    assert out.embedding.shape == (2, model.query_dim), f"query_dim is {model.query_dim}, not {out.embedding.shape[1]}"
    tags = 0 if out.clipwise is None else out.clipwise.shape[1]
    assert tags == model.num_classes, f"num_classes is {model.num_classes}, the tags are {tags}"
    assert model.hop > 0 and model.grid % model.hop == 0


def chunks_agree_with_the_whole(model):
    separator = Separator(model, device="cpu")
    plan = separator.plan(chunk=1)
    x = noise((plan.context + plan.after + 1.5 * plan.core) / model.fs, model.fs)  # more than a chunk
    query = separator.embed_one(noise(2, model.fs, 5), model.fs)[None]
    whole = separator.separate(x, model.fs, query, separator.plan(chunk=0))
    parts = separator.separate(x, model.fs, query, plan)
    assert np.abs(whole).max() > 1e-3
    worst = np.abs(whole - parts).max()
    assert worst < 1e-3, f"chunks differ from the whole by {worst:.1e}: is grid_frames right?"


def stereo_and_batches(model):
    wave = 0.1 * torch.randn(2, 9600)
    with torch.inference_mode():
        query = model.embed(0.1 * torch.randn(6, model.fs)).embedding.unflatten(0, (2, 3))
    with torch.inference_mode():
        both = model.separate(wave, query=query)
        one = model.separate(wave[1:], query=query[1:])
        stereo = model.separate(wave[..., None].expand(-1, -1, 2), query=query)
        assert both.shape == (2, 3, 9600) and stereo.shape == (2, 3, 9600, 2)
        assert torch.allclose(both[1:], one, atol=1e-4), "an item depends on what it is batched with"
        assert torch.allclose(stereo, both[..., None].expand_as(stereo), atol=1e-4)
        kept = model.separate(wave, query=query, against=query)
        assert kept.shape == both.shape and (kept.square().sum(-1) <= 1.01 * both.square().sum(-1)).all()
        short = model.separate(wave, torch.tensor([9600, 6400]), query=query)[1, :, :6400]
        alone = model.separate(wave[1:, :6400], query=query[1:])[0]
    inside = slice(0, 6400 - 2 * model.hop)
    assert torch.allclose(short[:, inside], alone[:, inside], atol=1e-3), "padding in a batch changes a shorter item"


# ---- taggers and query networks ------------------------------------------------------------------


def check_query_net(name):
    args = arguments("query_net", name)
    model, plain = ready(TaggingTask, args)
    contracts.check("query_net", plain.net)
    batch = separation_batch()
    weight = torch.tensor([[0.9], [0.6]])
    lengths = torch.tensor([9600, 8000])
    all_get_gradients(model, model(batch["speech_mix"], lengths, label=batch["label1"], mixup=weight)[0], "")
    samples = plain.fs + 77
    with torch.inference_mode():
        out = plain.embed(0.1 * torch.randn(2, samples))
        edges = plain.net.edges(samples)
    assert out.embedding.shape == (2, plain.query_dim), f"query_dim is {plain.query_dim}, not {out.embedding.shape[1]}"
    assert out.clipwise.shape == (2, plain.num_classes), f"num_classes is {plain.num_classes}"
    assert edges[0] == 0 and edges[-1] == samples and bool((edges.diff() > 0).all()), (
        "edges must rise from 0 to the end"
    )
    if out.framewise is not None:
        assert len(edges) - 1 <= out.framewise.shape[1], "edges has more frames than framewise"
    frozen_and_trained_as_query_net(args)


def frozen_and_trained_as_query_net(tagger):
    for grad in ("false", "true"):
        args = parse(QSepTask, "debug/train_qsep_query_unet.yaml", "--query_net", tagger.query_net)
        args.query_net_conf, args.query_grad = tagger.query_net_conf, grad == "true"
        model = QSepTask.build_model(shrink(args, "extractor")).train()
        all_get_gradients(model, model(**separation_batch())[0], "")
        trained = {p.requires_grad for p in model.query_net.parameters()}
        assert (True in trained) == (grad == "true"), "a frozen query network must not learn"


# ---- separation from weak labels -----------------------------------------------------------------


def weak_batch(hop, outputs):
    refs = 0.1 * torch.randn(outputs, 2, 8000)
    batch = {f"speech_ref{s}": ref for s, ref in enumerate(refs, 1)}
    batch |= {"clip_label": torch.ones(2, CLASSES), "frame_label": torch.ones(2, 8000 // hop + 1, CLASSES)}
    return refs.sum(0), torch.tensor([8000, 8000]), batch


def check_weak(kind, name):
    """A separator or a classifier, in each strategy and for each kind of labels."""
    for strategy, label_type, residual in (("joint", "clip", "false"), ("fixed", "frame", "true")):
        more = ["--strategy", strategy, "--label_type", label_type, "--residual", residual, "--class_names", *"abc"]
        args = arguments(kind, name, *more)
        outputs = CLASSES + (residual == "true")
        args.frame_prior = args.clip_prior = [0.5] * CLASSES
        model, plain = ready(WeakLabelTask, args)
        contracts.check(kind, plain.separator.net if kind == "separator" else plain.classifier)
        mix, lengths, batch = weak_batch(model.hop, outputs)
        all_get_gradients(model, model(mix, lengths, **batch)[0], "")
        with torch.inference_mode():
            frame, clip = plain.classify(mix)
            est = plain.separate(mix)
        assert est.shape == (2, outputs, 8000) and est.isfinite().all()
        assert clip.shape == (2, CLASSES)
        assert frame.shape == (2, -(-(8000 // plain.hop + 1) // plain.time_pool), CLASSES), "time_pool is wrong"
        assert plain.grid % (plain.hop * plain.time_pool) == 0
    if kind == "classifier":
        args = arguments(kind, name, "--part", "classifier", "--class_names", *"abc")
        args.frame_prior = [0.5] * CLASSES
        model, _ = ready(WeakLabelTask, args)
        mix, lengths, batch = weak_batch(model.hop, CLASSES)
        all_get_gradients(model, model(mix, lengths, **batch)[0], "")


# ---- encoders, decoders, losses ------------------------------------------------------------------


def check_encoder(name, decoder):
    wave, lengths = torch.randn(2, 5000), torch.tensor([5000, 3000])
    encoder, decoder = espnet_class("encoder", name)(), espnet_class("decoder", decoder)()
    contracts.check("encoder", encoder)
    contracts.check("decoder", decoder)
    spec, frames = encoder(wave, lengths)
    assert frames.tolist() == [n // encoder.hop + 1 for n in (5000, 3000)]
    assert spec.shape[1] == frames.max() and spec.shape[-1] == encoder.output_dim
    assert torch.allclose(decoder(spec, lengths)[0][0], wave[0], atol=1e-5)


def check_criterion(name):
    """Losses on waveforms, one target at a time; `weak_label` is tried by `check_weak`."""
    made = espnet_class("criterion", name)(**{"asteroid": {"loss": "singlesrc_neg_snr"}}.get(name, {}))
    given = {"mix": torch.randn(2, 400), "logits": torch.randn(2, 3), "labels": torch.eye(3)[:2]}
    given |= {"mix_logits": given["logits"], "mix_labels": given["labels"], "lengths": torch.tensor([400, 300])}
    est, keyed = torch.randn(2, 400), {k: given[k] for k in getattr(made, "needs", {})}
    learned = next((x for k, x in keyed.items() if "logits" in k), est).requires_grad_()
    loss = made(torch.randn(2, 400), est, **keyed)
    assert loss.shape == (2,) and loss.isfinite().all()
    loss.sum().backward()
    assert bool(learned.grad.any())
