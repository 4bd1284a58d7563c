"""Options of a training as a YAML gives them: every value is checked, and an error names the file and the key."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from espnet2.samplers.build_batch_sampler import BATCH_TYPES
from espnet2.utils import config_argparse
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str2bool, str2pair_str, str2triple_str, str_or_none

from espnet2_ext.errors import DataError, refusing
from espnet2_ext.train.step import add_options
from espnet2_ext.util.config import read_config
from espnet2_ext.util.documents import check, mapping, short
from espnet2_ext.util.names import Parser

CRITERION = {"name": str, "conf?": (dict, None), "wrapper?": str, "wrapper_conf?": (dict, None)}
TYPES = {int: "a whole number", int_or_none: "a whole number or null", float: "a number", str2bool: "true or false"}
TYPES |= {str: "text", str_or_none: "text or null", str2triple_str: "three words", str2pair_str: "two words"}
ENDS = {"best_model_criterion": 3, "early_stopping_criterion": 3, "val_scheduler_criterion": 2}  # number of words
MANY = 1_000_000
LIMITS = {name: (1, MANY) for name in ("batch_size", "valid_batch_size", "max_epoch", "accum_grad", "log_interval")}
LIMITS |= {"num_iters_per_epoch": (1, 100 * MANY), "num_workers": (0, 1000), "ngpu": (0, 1000)}
LIMITS |= {"seed": (0, 2**32 - 1), "patience": (0, MANY), "keep_nbest_models": (0, MANY), "sample_rate": (1, MANY)}
LIMITS |= {name: (1, 2**40) for name in ("batch_bins", "valid_batch_bins")} | {"nbest_averaging_interval": (0, MANY)}


def add_texts(group: Any, **helps: str) -> None:
    """Options that take a path or another text, by default null: name -> help."""
    for name, text in helps.items():
        group.add_argument(f"--{name}", type=str_or_none, default=None, help=text)


def add_keywords(group: Any, **helps: str) -> None:
    """Options that take keyword arguments: name -> help, whose they are."""
    for name, text in helps.items():
        group.add_argument(f"--{name}", action=NestedDictAction, default={}, help=f"Keyword arguments of {text}")


def add_switches(group: Any, default: bool, **helps: str) -> None:
    """Options that take true or false: name -> help."""
    for name, text in helps.items():
        group.add_argument(f"--{name}", type=str2bool, default=default, help=text)


class Unread(NamedTuple):
    """Options that nothing reads: another value than the default is refused.

    Args:
        names: of the options. why: what to do instead. when: of all options' values: where it is so; None: always.
    """

    names: str
    why: str
    when: Callable[[argparse.Namespace], Any] | None = None


_CHUNKS = "chunk_length chunk_shift_ratio num_cache_chunks chunk_excluded_key_prefixes chunk_default_fs "
_CHUNKS += "chunk_max_abs_length chunk_discard_short_samples "
_CATEGORIES = "category_sample_size upsampling_factor category_upsampling_factor dataset_upsampling_factor "
_CATEGORIES += "dataset_scaling_factor max_batch_size"
_BATCHES = (
    "batch_type valid_batch_type batch_bins valid_batch_bins fold_length sort_in_batch sort_batch min_batch_size "
)
_FILES = "train_shape_file valid_shape_file train_data_path_and_name_and_type valid_data_path_and_name_and_type "
_FILES += "multiple_iterator multi_task_dataset max_cache_fd allow_multi_rates "
_SPEECH = "rir_scp rir_apply_prob noise_scp noise_apply_prob noise_db_range short_noise_thres speech_volume_normalize "
_SPEECH += "use_reverberant_ref num_spk num_noise_type force_single_channel channel_reordering categories "
_SPEECH += "speech_segment avoid_allzero_segment flexible_numspk"
_WANDB = "wandb_project wandb_id wandb_entity wandb_name wandb_model_log_interval wandb_allow_val_change"


def _sampled(args: argparse.Namespace) -> set[str]:
    return {args.batch_type, args.valid_batch_type or args.batch_type}


EVERY = (
    Unread("collect_stats write_collected_feats", "a training needs no statistics: leave it out"),
    Unread("num_att_plot", "the networks give no attention to plot: leave it out"),
    Unread("pretrain_path", "give --init_param"),
    Unread("train_dtype", "float16 weights do not train: give --use_amp true", lambda a: a.train_dtype == "float16"),
    Unread("use_amp", "it needs a GPU: give --ngpu, or --amp_dtype bf16", lambda a: a.ngpu == 0),
    Unread("early_stopping_criterion", "give --patience as well", lambda a: a.patience is None),
    Unread(
        "val_scheduler_criterion", "only --scheduler reducelronplateau", lambda a: a.scheduler != "reducelronplateau"
    ),
    Unread("scheduler_conf", "give --scheduler as well", lambda a: a.scheduler is None),
    Unread("exclude_weight_decay_conf", "give --exclude_weight_decay true", lambda a: not a.exclude_weight_decay),
    Unread("deepspeed_config", "give --use_deepspeed true as well", lambda a: not a.use_deepspeed),
    Unread("adapter adapter_conf save_strategy", "give --use_adapter true as well", lambda a: not a.use_adapter),
    Unread("create_graph_in_tensorboard", "give --use_tensorboard true", lambda a: not a.use_tensorboard),
    Unread(_WANDB, "give --use_wandb true as well", lambda a: not a.use_wandb),
    Unread(_CHUNKS + _CATEGORIES, "of ESPnet's chunk and category iterators, which this training does not use"),
)
ROWS = (
    *EVERY,
    Unread("iterator_type valid_iterator_type", "training items are drawn from --train_bank: leave it out"),
    Unread(_BATCHES, "batches are drawn from --train_bank: give --batch_size"),
    Unread(_FILES, "data are drawn from --train_bank"),
    Unread(
        "drop_last_iter shuffle_within_batch", "all training batches are full, of items in random order: leave it out"
    ),
    Unread("max_cache_size valid_max_cache_size allow_variable_data_keys", "data are drawn from --train_bank"),
    Unread("ignore_init_mismatch", "give --init_param as well", lambda a: not a.init_param),
)
QUERY = (
    *ROWS,
    Unread("preprocessor", "pairs are mixed by `qsep`, set with --preprocessor_conf and --pair_conf"),
    Unread("train_spk2enroll enroll_segment load_spk_embedding load_all_speakers", "--pair_conf says what queries are"),
    Unread(_SPEECH, "pairs are mixed as --pair_conf and --preprocessor_conf say (targets: --model_conf num_spk=2)"),
    Unread("sample_rate", "give --encoder_conf and --decoder_conf sample_rate=HZ"),
)
LABELS = (
    *EVERY,
    Unread("iterator_type", "mixtures are whole, as their labels are: give --preprocessor_conf crop_seconds=S"),
    Unread(
        "valid_iterator_type",
        "mixtures are whole, as their labels are: leave it out",
        lambda a: a.valid_iterator_type != a.iterator_type,
    ),
    Unread(_BATCHES + _FILES, "data are those of --train_table: give --batch_size", lambda a: a.train_table),
    Unread("preprocessor", "the mixtures of --train_table are rendered by `weak`", lambda a: a.train_table),
    Unread(
        "batch_type valid_batch_type",
        "of ESPnet's category iterator: take one of " + ", ".join(BATCH_TYPES),
        lambda a: _sampled(a) - BATCH_TYPES.keys(),
    ),
    Unread(
        "batch_bins valid_batch_bins", "of batch_type length or numel", lambda a: not _sampled(a) & {"length", "numel"}
    ),
    Unread("fold_length", "of batch_type folded", lambda a: "folded" not in _sampled(a)),
    Unread("sort_in_batch sort_batch", "batch_type unsorted sorts nothing", lambda a: _sampled(a) == {"unsorted"}),
    Unread("min_batch_size", "of batch_type folded, length or numel", lambda a: _sampled(a) <= {"unsorted", "sorted"}),
    Unread(_SPEECH, "of ESPnet's preprocessor `enh` alone", lambda a: a.preprocessor != "enh"),
    Unread("dynamic_mixing dynamic_mixing_gain_db", "give --preprocessor and --preprocessor_conf"),
    Unread("utt2spk", "of ESPnet's preprocessor `dynamic_mixing` alone", lambda a: a.preprocessor != "dynamic_mixing"),
    Unread("train_bank", "give --train_table as well", lambda a: a.train_table is None),
    Unread("valid_bank", "give --valid_table as well", lambda a: a.valid_table is None),
    Unread(
        "classifier_file",
        "only separators of weak labels with strategy fixed or finetune load a classifier",
        lambda a: (
            a.part == "classifier"
            or a.strategy == "joint"
            or (a.label_type == "strong" and not getattr(a, "extractor", None))
        ),
    ),
    Unread(
        "ignore_init_mismatch", "give --init_param as well", lambda a: not a.init_param and a.classifier_file is None
    ),
)
QUERY_LABELS = (
    *LABELS,
    Unread("sample_rate", "give --encoder_conf and --decoder_conf sample_rate=HZ"),
    Unread("residual", "what nobody asks for is the rest"),
)
_ONE = "with Lightning, give --devices and --accelerator"
LIGHTNING = (
    Unread("ngpu dist_backend dist_init_method dist_world_size dist_rank local_rank dist_master_addr", _ONE),
    Unread("dist_master_port dist_launcher multiprocessing_distributed unused_parameters sharded_ddp", _ONE),
    Unread(
        "use_deepspeed deepspeed_config gradient_as_bucket_view ddp_comm_hook use_adapter", "only weak-train has it"
    ),
    Unread("cudnn_enabled cudnn_benchmark cudnn_deterministic use_tf32 detect_anomaly", "only weak-train has it"),
    Unread("train_dtype use_amp grad_noise grad_clip_type nbest_averaging_interval", "only weak-train has it"),
    Unread("dry_run no_forward_run log_interval use_wandb create_graph_in_tensorboard", "only weak-train has it"),
    Unread("best_model_criterion", "Lightning takes one alone", lambda a: len(a.best_model_criterion) > 1),
)


class ConfigParser(Parser, config_argparse.ArgumentParser):
    """ESPnet's parser with a `--config` that may `include` others, see `read_config`; its values are checked."""

    unread: Sequence[Unread] = ()

    @classmethod
    def of(cls, parser: config_argparse.ArgumentParser, unread: Sequence[Unread]) -> "ConfigParser":
        """ESPnet's parser, made one of these, with the options of `train.step`."""
        add_options(parser)
        parser.__class__, parser.allow_abbrev, parser.unread = cls, False, unread
        return parser

    def parse_known_args(self, args=None, namespace=None):
        """As ESPnet's.

        Raises:
            DataError: naming the YAML and its key, or the option: an unknown one, a value of another type or size,
                one that would have no effect.
        """
        defaults, config = {action.dest: action.default for action in self._actions}, {}
        with refusing("options"):  # a YAML text in an option that is none
            path = argparse.ArgumentParser.parse_known_args(self, args, namespace)[0].config
        if path is not None:
            config, actions = read_config(path), {action.dest: action for action in self._actions}
            if unknown := sorted(config.keys() - actions.keys()):
                raise DataError(f"{path}: unknown key {', '.join(unknown)}")
            self.set_defaults(**{key: self._checked(path, actions[key], value) for key, value in config.items()})
        found, rest = argparse.ArgumentParser.parse_known_args(self, args, namespace)
        for name, (least, most) in LIMITS.items():
            for value in flat([getattr(found, name, None)]):
                if value is not None and not least <= value <= most:
                    raise DataError(f"{found.config or '--'}: key {name}: must be {least} to {most}, not {value}")
        for names, why, when in self.unread:
            for name in names.split() if when is None or when(found) else ():
                value = getattr(found, name)
                if _lists(value) != _lists(defaults[name]):
                    in_yaml = name in config and _lists(config[name]) == _lists(value)
                    where = f"{path}: key {name}" if in_yaml else f"--{name}"
                    raise DataError(f"{where}: {short(value)} would have no effect: {why}")
        return found, rest

    def _checked(self, path: str, action: argparse.Action, value: Any) -> Any:
        """The value of a YAML's key, if it is what the option takes."""
        where, many = f"{path}: key {action.dest}", action.nargs in ("+", "*") or isinstance(action.nargs, int)
        if action.dest in ENDS:
            for row in value if isinstance(value, list) and value and isinstance(value[0], list) else [value]:
                good = isinstance(row, list) and len(row) == ENDS[action.dest] and all(isinstance(v, str) for v in row)
                if not good or row[0] not in ("train", "valid") or row[2:] not in ([], ["min"], ["max"]):
                    raise DataError(f"{where}: expected such as [valid, loss, min], not {short(row)}")
            return value
        if action.dest == "criterions":
            return check(value, [CRITERION], where)
        if isinstance(action, NestedDictAction):
            return {} if value is None else mapping(value, where)
        if not (many or isinstance(action, argparse._AppendAction)) or not isinstance(value, list):
            return self._one(where, action, value)
        if isinstance(action.nargs, int) and len(value) != action.nargs or (not value and action.nargs == "+"):
            raise DataError(f"{where}: expected {action.nargs if action.nargs != '+' else 'some'} values, got {value}")
        return [self._one(where, action, v) for v in value]

    def _one(self, where: str, action: argparse.Action, value: Any) -> Any:
        if value is None and (action.default is None or action.type is str_or_none):
            return None
        if isinstance(value, list) and action.type in (str2triple_str, str2pair_str):
            size = 3 if action.type is str2triple_str else 2
            return check(value, [str], where) if len(value) == size else self._one(where, action, str(value))
        text = value if isinstance(value, str) else str(value)
        try:
            if isinstance(value, list | dict | None):
                raise ValueError
            found = action.type(text) if action.type else value
            if found != found or (action.choices is not None and found not in action.choices):
                raise ValueError
        except (ValueError, TypeError, ArithmeticError, LookupError):
            among = (
                f"one of {', '.join(map(str, action.choices))}" if action.choices else TYPES.get(action.type, "a value")
            )
            raise DataError(f"{where}: expected {among}, not {short(value)}") from None
        return value if found == value else found


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, list | tuple) else value


def flat(values: Any) -> Iterator[Any]:
    """What is in nested lists."""
    for value in values:
        yield from flat(value) if isinstance(value, list | tuple) else [value]
