"""Every shipped YAML builds and takes a training step; its sizes are those it promises."""

import argparse

import pytest
import torch
from espnet2.train.reporter import Reporter
from small_confs import CLASSES, CONF, parse, separation_batch, shrink, small_separator, small_tagger, without_gradient

from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.qweak import QueryWeakTask
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.tasks.weak import WeakLabelTask

ALL = sorted(p.relative_to(CONF).as_posix() for p in CONF.rglob("*.yaml") if p.parent.name not in ("base", "sweeps"))
TAGGERS = [p for p in ALL if "tag_" in p or p.endswith("train_tag.yaml")]
WEAK_YAMLS = [p for p in ALL if "train_weak" in p]
QUERY_WEAK_YAMLS = [p for p in ALL if "train_qweak" in p]
YAMLS = [p for p in ALL if p not in TAGGERS + WEAK_YAMLS + QUERY_WEAK_YAMLS]


def build(path, *more):
    args = parse(QSepTask, path, *more)
    with torch.device("meta"):  # shapes only: the large ones are GBs
        return args, QSepTask.build_model(args)


def millions(model):
    return sum(p.numel() for p in model.parameters()) / 1e6


def takes_a_step(loss, model):
    loss.backward()
    assert loss.isfinite() and without_gradient(model) == []


# ---- query-based separation --------------------------------------------------------------------


@pytest.mark.parametrize("path", YAMLS)
def test_yaml_builds(path):
    args, model = build(path)
    assert args.train_bank is None and args.num_iters_per_epoch > 0
    assert args.encoder_conf == args.decoder_conf
    names = [w.criterion.name for w in model.loss_wrappers]
    assert "neg_sdr" in names
    assert (model.extractor.embeds and model.num_classes > 0) == ("tagging" in names)


@pytest.mark.parametrize("path", YAMLS)
def test_yaml_takes_a_training_step(path):
    model = small_separator(path).train()
    takes_a_step(model(**separation_batch())[0], model)


def test_all_separators_of_the_side_by_side_are_trained_alike():
    def training(path):
        args = vars(parse(QSepTask, path))
        return {
            k: v
            for k, v in args.items()
            if k not in ("config", "criterions") and not k.startswith(("encoder", "decoder", "extractor", "query_"))
        }

    paths = [p for p in YAMLS if p.startswith("mini/")]
    assert len(paths) == 4
    assert all(training(p) == training(paths[0]) for p in paths)


@pytest.mark.parametrize(
    "separator, tagger",
    [
        ("mini/st_sed_sep.yaml", "mini/tag_hts_at.yaml"),
        ("mini/care_sep.yaml", "mini/tag_hts_at.yaml"),  # row G
        ("mini/pann_sep.yaml", "mini/tag_cnn14.yaml"),
        ("train_qsep_st_sed_sep_2048.yaml", "train_tag_hts_at_2048.yaml"),
        ("train_qsep_care_sep_768.yaml", "train_tag_hts_at_768.yaml"),
        ("train_qsep_pann_sep_2048.yaml", "train_tag_cnn14.yaml"),
        ("train_qsep_pann_sep_527.yaml", "train_tag_cnn14.yaml"),
    ],
)
def test_query_network_is_the_tagger_that_is_trained_for_it(separator, tagger):
    ours, theirs = parse(QSepTask, separator), parse(TaggingTask, tagger)
    assert ours.query_net in (theirs.query_net, "shared")
    theirs.query_net_conf.pop("spec_augment")  # of the tagger's training
    ours.query_net_conf.pop("embedding", None)
    assert ours.query_net_conf == theirs.query_net_conf


@pytest.mark.parametrize(
    "separator, tagger",
    [
        ("mini/care_sep.yaml", "mini/tag_care_cls.yaml"),
        ("mini/care_cls_sep.yaml", "mini/tag_care_cls.yaml"),
        ("train_qsep_care_sep_768.yaml", "train_tag_care_cls_768.yaml"),
        ("train_qsep_care_cls_sep_768.yaml", "train_tag_care_cls_768.yaml"),
    ],
)
def test_tagger_begins_the_encoder(separator, tagger):
    _, model = build(separator)
    with torch.device("meta"):
        net = TaggingTask.build_model(parse(TaggingTask, tagger)).net.net
    own = model.extractor.net.state_dict()
    for name, weight in net.state_dict().items():
        assert name.startswith("head.") or weight.shape == own[name].shape, name


def test_sizes():
    assert 1.5 < millions(build("train_qsep_care_sep_small.yaml")[1]) < 2.7
    for path, width in (
        ("care_sep_768", 768),
        ("care_sep_2048", 2048),
        ("care_cls_sep_768", 768),
        ("st_sed_sep_2048", 2048),
        ("pann_sep_2048", 2048),
        ("pann_sep_527", 527),
    ):
        _, model = build(f"train_qsep_{path}.yaml")
        assert model.extractor.net.query_dim == model.query_dim == width
        assert model.frozen == (model.query_net is not None)


def test_configurations_older_than_query_networks_build():
    args = vars(parse(QSepTask, "debug/train_qsep_care_sep.yaml"))
    old = {k: v for k, v in args.items() if not k.startswith("query_")}
    with torch.device("meta"):
        model = QSepTask.build_model(argparse.Namespace(**old))
    assert model.query_net is None and model.query_grad and not model.frozen


def test_row_g_is_an_option():
    _, model = build("train_qsep_care_sep_768.yaml", "--query_net", "hts_at", "--query_grad", "false")
    assert model.frozen and type(model.query_net).__name__ == "HTSAT"


@pytest.mark.parametrize(
    "more, message",
    [
        (["--extractor_conf", "dimm=8"], "extractor_conf of care_sep: unknown key 'dimm'"),
        (["--model_conf", "speakers=2"], "model_conf: unknown key 'speakers'"),
        (["--model_conf", "query_grad=false"], "model_conf: unknown key 'query_grad'"),
        (["--encoder_conf", "fft=2"], "encoder_conf of mel_band_split: unknown key 'fft'"),
        (["--query_net", "cnn14", "--query_net_conf", "width=2"], "query_net_conf of cnn14: unknown key 'width'"),
        (["--extractor_conf", "num_bands=63"], "extractor_conf of care_sep: num_bands must be a mult"),
        (
            ["--query_net", "cnn14", "--query_net_conf", "sample_rate=48000"],
            "query_net cnn14 works at 48000 Hz .* the encoder at 32000 Hz",
        ),
        (["--query_net", "cnn14"], "cnn14 gives embeddings of width 2048, .* care_sep takes 64"),
    ],
)
def test_what_does_not_fit_is_named(more, message):
    with pytest.raises(DataError, match=message):
        build("debug/train_qsep_care_sep.yaml", *more)


@pytest.mark.parametrize(
    "name, message",
    [
        ("shared", "query_unet makes no query embeddings.*; there is: care_cls, cnn14, hts_at"),
        ("htsat", "query_net: expected one of shared, hts_at, cnn14, care_cls, not 'htsat'"),
    ],
)
def test_query_networks_of_a_yaml_are_checked(tmp_path, name, message):
    path = tmp_path / "bad.yaml"
    path.write_text(f"include: {CONF}/debug/train_qsep_query_unet.yaml\nquery_net: {name}\n")
    with pytest.raises(DataError, match=message):
        build(path)


def test_unknown_top_level_key_is_named(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("extractor: care_sep\nbatch_sise: 3\n")
    with pytest.raises(DataError, match="bad.yaml: unknown key batch_sise"):
        build(bad)


# ---- tagging -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TAGGERS)
def test_tagger_takes_a_training_step(path):
    with torch.device("meta"):
        TaggingTask.build_model(parse(TaggingTask, path))
    model, batch = small_tagger(path).train(), separation_batch()
    loss, *_ = model(
        batch["speech_mix"], torch.tensor([9600, 8000]), label=batch["label1"], mixup=torch.tensor([[0.9], [0.6]])
    )
    takes_a_step(loss, model)


# ---- separation from weak labels ---------------------------------------------------------------


def build_weak(path, *more):
    args = parse(WeakLabelTask, path, "--class_names", *"abcde", *more)
    return args, WeakLabelTask.build_model(args)  # a mel filterbank is computed from values


@pytest.mark.parametrize("path", WEAK_YAMLS)
def test_weak_yaml_builds(path):
    args, model = build_weak(path)
    assert model.num_spk == 5 and model.fs == 16000
    assert args.train_table is None and args.encoder_conf == args.decoder_conf
    _, alone = build_weak(path, "--part", "classifier") if model.classifier else (None, None)
    assert alone is None or (alone.separator is None and alone.classifier is not None)


@pytest.mark.parametrize("path", WEAK_YAMLS)
def test_weak_yaml_takes_a_training_step(path):
    torch.manual_seed(0)
    args = parse(WeakLabelTask, path, "--class_names", *"abc")
    model = WeakLabelTask.build_model(shrink(args, "separator", "classifier")).train()
    refs = 0.1 * torch.randn(CLASSES, 2, 8000)
    frames = 8000 // model.hop + 1
    batch = {f"speech_ref{s}": ref for s, ref in enumerate(refs, 1)}
    batch |= {"clip_label": torch.ones(2, CLASSES), "frame_label": torch.ones(2, frames, CLASSES)}
    takes_a_step(model(refs.sum(0), torch.tensor([8000, 8000]), **batch)[0], model)


@pytest.mark.parametrize("part", ["classifier", "separator"])
@pytest.mark.parametrize("path", QUERY_WEAK_YAMLS)
def test_query_weak_yaml_takes_a_training_step(path, part):
    torch.manual_seed(0)
    args = parse(QueryWeakTask, path, "--class_names", *"abc", "--part", part, "--label_type", "clip")
    assert args.train_table is None and args.encoder_conf == args.decoder_conf and args.strategy == "fixed"
    model = QueryWeakTask.build_model(args).train()
    assert model.num_spk == 3 and model.fs == 16000 and millions(model.extractor) < 2
    clip = torch.eye(3).repeat(2, 1)
    mix = 0.1 * torch.randn(6, 24000)
    takes_a_step(model(mix, torch.full((6,), 24000), clip_label=clip)[0], model)


def test_weak_sizes_are_the_papers():
    args, model = build_weak("train_weak_crnn.yaml")
    assert (args.batch_size, args.max_epoch, args.patience) == (10, 50, 4)
    rnn = model.separator.net.rnn
    assert (rnn.hidden_size, rnn.num_layers, rnn.bidirectional) == (600, 3, True)
    assert 20 < millions(model.separator) < 25 and 1 < millions(model.classifier) < 6
    _, model = build_weak("train_weak_rnn.yaml", "--residual", "true")
    assert model.num_spk == 6 and model.classifier.num_features == 40


def test_the_weak_paper_stops_after_five_epochs_without_improvement():
    args, reporter = parse(WeakLabelTask, "train_weak_crnn.yaml"), Reporter()
    for epoch in range(1, args.max_epoch + 1):
        reporter.set_epoch(epoch)
        with reporter.observe("valid") as values:
            values.register({"loss": 1.0 if epoch == 3 else 2.0})
            values.next()
        if reporter.check_early_stopping(args.patience, *args.early_stopping_criterion):
            break
    assert epoch == 3 + 5


@pytest.mark.parametrize(
    "path, keys",
    [
        ("base/qsep.yaml", "wrapper_conf grad_clip"),
        ("base/qsep_paper.yaml", "num_iters_per_epoch max_epoch segment anchor balance"),
        ("base/weak.yaml", "grad_clip"),
        ("train_qsep_care_sep_768.yaml", "drop_path"),
        ("train_qsep_care_sep_2048.yaml", "drop_path"),
        ("train_qsep_care_cls_sep_768.yaml", "drop_path"),
        ("train_weak_crnn.yaml", "channels"),
    ],
)
def test_what_the_papers_do_not_say_is_marked(path, keys):
    lines = (CONF / path).read_text().splitlines()
    for key in keys.split():
        assert "# choice" in next(line for line in lines if line.strip().startswith(f"{key}:")), key


# ---- configurations that build on others -------------------------------------------------------


def test_included_values_are_options_and_the_command_line_goes_before(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"include: {CONF}/debug/train_qsep_care_sep.yaml\nextractor_conf: {{dim: 16}}\nmax_epoch: 7\n"
    )
    args = parse(QSepTask, tmp_path / "mine.yaml", "--extractor_conf", "window=4", "--batch_size", "3")
    assert (args.extractor_conf["dim"], args.extractor_conf["window"], args.extractor_conf["heads"]) == (
        16,
        4,
        [1, 2, 2],
    )
    assert (args.max_epoch, args.batch_size, args.num_iters_per_epoch) == (7, 3, 4)
    assert "include" not in vars(args) and args.config == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "text, message",
    [("batch_sise: 3\n", "unknown key batch_sise"), ("include: none.yaml\n", "none.yaml: no such file")],
)
def test_what_is_wrong_in_an_included_file_ends_the_parser(tmp_path, text, message):
    (tmp_path / "base.yaml").write_text(text)
    (tmp_path / "mine.yaml").write_text("include: base.yaml\n")
    with pytest.raises(DataError, match=message):
        parse(QSepTask, tmp_path / "mine.yaml")
