"""Every option of a training is read somewhere, or a value other than its default is refused."""

import argparse
import functools
import importlib.util
import inspect
import logging
import re
from pathlib import Path

import pytest
import torch
import yaml
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2triple_str
from small_confs import CONF, separation_batch, small_separator, small_tagger

from espnet2_ext.cli import train as commands
from espnet2_ext.errors import DataError
from espnet2_ext.tasks import common
from espnet2_ext.tasks.options import LABELS, LIGHTNING, QUERY, QUERY_LABELS, ROWS
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.qweak import QueryWeakTask
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.tasks.weak import WeakLabelTask

TASKS = {"qsep": (QSepTask, QUERY), "tag": (TaggingTask, ROWS)}
TASKS |= {"weak": (WeakLabelTask, LABELS), "qweak": (QueryWeakTask, QUERY_LABELS)}
ESPNET = "espnet2.tasks.abs_task:AbsTask"
# where an option is read, by its name or that of its part: `extractor` for `extractor_conf`
READ = {
    "argparse:ArgumentParser": "help",
    "espnet2_ext.tasks.options:ConfigParser.parse_known_args": "config",
    "espnet2_ext.tasks.common:options": "log_level",
    "espnet2_ext.tasks.common:check_schedule": "optim optim_conf scheduler scheduler_conf",
    "espnet2_ext.tasks.common:frozen": "freeze_param",
    "espnet2_ext.train.step:prepare": "amp_dtype activation_checkpointing",
    "espnet2_ext.tasks.common:fit_schedule": "num_iters_per_epoch max_epoch accum_grad",
    f"{ESPNET}.main": "print_config multiprocessing_distributed dist_master_port",
    f"{ESPNET}.main_worker": "dry_run ngpu seed cudnn_enabled cudnn_benchmark cudnn_deterministic use_tf32 "
    "detect_anomaly train_dtype output_dir use_adapter adapter adapter_conf use_matplotlib use_wandb wandb_project "
    "wandb_id wandb_entity wandb_name wandb_allow_val_change use_deepspeed init_param ignore_init_mismatch",
    f"{ESPNET}.build_optimizers": "exclude_weight_decay exclude_weight_decay_conf",
    f"{ESPNET}.build_iter_options": "batch_size valid_batch_size",
    "espnet2.train.distributed_utils:DistributedOption": "dist_backend dist_init_method dist_world_size dist_rank "
    "local_rank dist_master_addr dist_launcher",
    "espnet2.train.trainer:Trainer.run": "resume patience val_scheduler_criterion early_stopping_criterion "
    "best_model_criterion keep_nbest_models nbest_averaging_interval use_amp sharded_ddp unused_parameters "
    "gradient_as_bucket_view ddp_comm_hook use_tensorboard wandb_model_log_interval save_strategy",
    "espnet2.train.deepspeed_trainer": "deepspeed_config",
    "espnet2.train.trainer:Trainer.train_one_epoch": "grad_clip grad_clip_type grad_noise no_forward_run log_interval "
    "create_graph_in_tensorboard",
}
QUERY_NET = "query_net query_net_conf"
MORE = {
    "qsep": {
        "espnet2_ext.train.row_iter_factory:RowIterFactory.of_task": "num_workers",
        "espnet2_ext.build:query_parts": "encoder encoder_conf extractor extractor_conf decoder decoder_conf "
        + QUERY_NET,
        "espnet2_ext.tasks.qsep:QSepTask.build_model": "query_grad criterions model_conf init",
        "espnet2_ext.tasks.qsep:QSepTask.check_weights": "random_query_net",
        "espnet2_ext.tasks.qsep:QSepTask.build_preprocess_fn": "train_bank valid_bank preprocessor_conf",
        "espnet2_ext.tasks.qsep:QSepTask.build_task_iter_factory": "valid_pairs",
        "espnet2_ext.tasks.qsep:_drawer": "pair_conf anchor_file",
    },
    "tag": {
        "espnet2_ext.train.row_iter_factory:RowIterFactory.of_task": "num_workers",
        "espnet2_ext.build:query_network": QUERY_NET,
        "espnet2_ext.tasks.tagging:TaggingTask.check": "train_bank",
        "espnet2_ext.tasks.tagging:_valid_bank": "valid_bank",
        "espnet2_ext.tasks.tagging:TaggingTask.build_task_iter_factory": "tag_conf",
    },
    "weak": {
        f"{ESPNET}.main_worker": "multiple_iterator",
        f"{ESPNET}.build_iter_options": "train_data_path_and_name_and_type valid_data_path_and_name_and_type "
        "batch_type train_shape_file valid_shape_file valid_batch_type batch_bins valid_batch_bins max_cache_size "
        "max_cache_fd allow_multi_rates valid_max_cache_size",
        f"{ESPNET}.build_iter_factory": "valid_iterator_type",
        f"{ESPNET}.build_dataset": "multi_task_dataset allow_variable_data_keys",
        f"{ESPNET}.build_sequence_iter_factory": "fold_length sort_in_batch sort_batch drop_last_iter min_batch_size "
        "shuffle_within_batch num_workers",
        "espnet2.tasks.enh:EnhancementTask.build_preprocess_fn": "utt2spk rir_scp rir_apply_prob noise_scp num_spk "
        "noise_apply_prob noise_db_range short_noise_thres speech_volume_normalize use_reverberant_ref num_noise_type "
        "force_single_channel channel_reordering categories speech_segment avoid_allzero_segment flexible_numspk",
        "espnet2_ext.build:class_parts": "encoder encoder_conf decoder decoder_conf part residual separator "
        "separator_conf classifier classifier_conf",
        "espnet2_ext.tasks.weak:loss_wrappers": "label_type strategy remix frame_prior clip_prior criterions",
        "espnet2_ext.tasks.weak:WeakLabelTask._build": "sample_rate model_conf init class_names",
        "espnet2_ext.tasks.weak:WeakLabelTask.build_preprocess_fn": "preprocessor preprocessor_conf",
        "espnet2_ext.tasks.weak:WeakLabelTask.prepare": "train_table",
        "espnet2_ext.tasks.weak:_use_table": "train_bank valid_bank valid_table",
        "espnet2_ext.train.checks:require_classifier": "classifier_file",
    },
}
CLASSES = ("espnet2_ext.build:class_parts", "espnet2_ext.tasks.weak:WeakLabelTask._build")
MORE["qweak"] = {place: names for place, names in MORE["weak"].items() if place not in CLASSES} | {
    "espnet2_ext.build:query_parts": "encoder encoder_conf extractor extractor_conf decoder decoder_conf",
    "espnet2_ext.tasks.weak:loss_wrappers": "label_type strategy remix frame_prior clip_prior criterions consistency",
    "espnet2_ext.tasks.qweak:QueryWeakTask._build": "part model_conf init class_names",
}
OTHER = {"train_dtype": ["float16"], "batch_type": ["catbel"], "valid_batch_type": ["catbel"]}
OTHER |= {"create_graph_in_tensorboard": ["true", "--use_tensorboard", "false"]}
OTHER |= {"valid_iterator_type": ["chunk"], "classifier_file": ["x", "--part", "classifier"]}
# what an option is read with; all others that are refused sometimes are read with their defaults alone
WITH = {
    "train_dtype": None,  # float64 is read
    "use_amp": "--ngpu 1",
    "early_stopping_criterion": "--patience 3",
    "val_scheduler_criterion": "--scheduler reducelronplateau",
    "scheduler_conf": "--scheduler steplr",
    "exclude_weight_decay_conf": "--exclude_weight_decay true",
    "deepspeed_config": "--use_deepspeed true",
    "adapter": "--use_adapter true",
    "wandb_id": "--use_wandb true",
    "ignore_init_mismatch": "--init_param x.pth",
    "batch_bins": "--batch_type numel",
    "fold_length": "--batch_type folded",
    "sort_batch": "--batch_type sorted",
    "min_batch_size": "--batch_type length",
    "rir_scp": "--preprocessor enh",
    "utt2spk": "--preprocessor dynamic_mixing",
    "train_bank": "--train_table t",
    "classifier_file": "--strategy fixed",
}


def source(place: str) -> str:
    module, _, name = place.partition(":")
    if not name:  # one that needs a package that is not there
        return Path(importlib.util.find_spec(module).origin).read_text()
    return inspect.getsource(functools.reduce(getattr, name.split("."), importlib.import_module(module)))


def names(unread) -> set[str]:
    return {name for entry in unread for name in entry.names.split()}


@pytest.mark.parametrize("task", TASKS)
def test_every_option_is_read_or_refused(task):
    cls, unread = TASKS[task]
    read = set()
    for places in (READ, MORE[task]):
        for place, options in places.items():
            text = source(place)
            for name in options.split():
                words = name, name.removesuffix("_conf"), re.sub("^(train|valid)_", "{which}_", name)
                assert any(re.search(rf"(?<!\w){re.escape(w)}\b", text) for w in words), f"{place} does not read {name}"
            read |= set(options.split())
    options = {action.dest for action in cls.get_parser()._actions}
    never = names(entry for entry in unread if entry.when is None)
    assert options - read - never == set(), "neither read nor refused"
    assert never & read == set() and (never | read) - options == set()
    assert names(unread) - never <= read


def another(action: argparse.Action) -> list[str]:
    """Words of a command that give an option another value than its default."""
    if action.choices:
        return [str(next(c for c in action.choices if c not in (None, action.default)))]
    if isinstance(action, NestedDictAction):
        return ["a=1"]
    if isinstance(action.default, bool):
        return [str(not action.default).lower()]
    if isinstance(action.nargs, int):
        return ["valid", "acc", "max"][: action.nargs]
    return ["a,b,c" if action.type is str2triple_str else "7"]


def parsed(parser, *words):
    return parser.parse_args(["--output_dir", "unused", *words])


@pytest.mark.parametrize("task", TASKS)
def test_a_value_without_effect_is_refused(task):
    cls, unread = TASKS[task]
    actions = {action.dest: action for action in cls.get_parser()._actions}
    for entry in unread:
        for name in entry.names.split():
            value = OTHER.get(name) or another(actions[name])
            with pytest.raises(DataError, match=f"--{name}: .* would have no effect: ") as e:
                where = ["--train_table", "t"] if entry.why.startswith(("data", "the mixtures")) else []
                parsed(cls.get_parser(), f"--{name}", *value, *where)
            assert entry.why in str(e.value)


@pytest.mark.parametrize("name", WITH)
def test_it_is_taken_where_it_is_read(name):
    for cls, unread in TASKS.values():
        parser = cls.get_parser()
        if name in names(entry for entry in unread if entry.when):
            action = next(action for action in parser._actions if action.dest == name)
            words = ["float64"] if name == "train_dtype" else another(action)
            found = parsed(parser, f"--{name}", *words, *(WITH[name] or "").split())
            assert getattr(found, name) != action.default


def test_the_yaml_and_its_key_are_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"include": f"{CONF}/debug/train_weak.yaml", "chunk_length": 300}))
    with pytest.raises(DataError, match="mine.yaml: key chunk_length: 300 would have no effect: of ESPnet's chunk"):
        parsed(WeakLabelTask.get_parser(), "--config", str(path))


def test_lightning_refuses_what_it_does_not_read(monkeypatch):
    for words, name in (
        ("--use_amp true --ngpu 1", "ngpu"),
        ("--grad_noise true", "grad_noise"),
        ("--dry_run true", "dry_run"),
    ):
        with pytest.raises(DataError, match=f"--{name}: .* would have no effect: "):
            commands.weak_train_asteroid(["--output_dir", "unused", *words.split()])
    assert names(LIGHTNING) <= {action.dest for action in WeakLabelTask.get_parser()._actions}


# ---- obeyed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small_separator, small_tagger])
def test_weights_are_frozen_by_name(make):
    path, part = ("train_qsep_care_sep", "extractor") if make is small_separator else ("train_tag", "net")
    model = make(f"debug/{path}.yaml", "--freeze_param", part)
    assert not any(p.requires_grad for p in model.get_submodule(part).parameters())
    with pytest.raises(DataError, match="--freeze_param nat: the model has no weights of this name; its parts: "):
        make(f"debug/{path}.yaml", "--freeze_param", "nat")


def test_float64_trains():
    model = small_separator("debug/train_qsep_care_sep.yaml")
    single = model(**separation_batch())[0]
    double = model.double()(**{k: x.double() for k, x in separation_batch().items()})[0]
    assert double.dtype == torch.float64
    assert double.item() == pytest.approx(single.item(), rel=1e-4)
    double.backward()


def test_a_log_level(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    common.options(QSepTask.get_parser(), ["--log_level", "warning", "--output_dir", "unused"])
    assert logging.getLogger().level == logging.WARNING
