"""ESPnet task of separation from weak labels: first the classifier, then the separator."""

import argparse

from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from espnet2.tasks.enh import EnhancementTask, preprocessor_choices
from espnet2.torch_utils.initialize import initialize
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.collate_fn import CommonCollateFn
from torch import nn

from espnet2_ext.build import (
    WEAK,
    class_parts,
    construct,
    has_classifier,
    make,
    make_classifier,
    model_rate,
    stft_sizes,
)
from espnet2_ext.core.bounds import fitting
from espnet2_ext.core.losses.weak_label import LABEL_TYPES, STRATEGIES
from espnet2_ext.core.separators import frame_sizes
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.enh.adapt import add
from espnet2_ext.enh.espnet_model_weak import ESPnetWeakLabelModel
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.registry import register
from espnet2_ext.tasks.common import build_criterion, choices, config_of, find, frozen, require, training
from espnet2_ext.tasks.options import LABELS, ConfigParser, add_switches, add_texts
from espnet2_ext.train.checkpoints import goes_on
from espnet2_ext.train.checks import require_classifier
from espnet2_ext.train.weak_data import WeakPreprocessor, use_priors

# Here, not in `main`: worker processes of several GPUs are spawned and only import this module.
register()
add(preprocessor_choices, "weak", WeakPreprocessor)

PARTS = ("classifier", "separator")
OPTIONS = {"part": PARTS, "label_type": LABEL_TYPES, "strategy": STRATEGIES}
MAX_SOURCES = 100
NOT_SEQUENCE = ("clip_label", "label_kind", "partner_clip_label", "partner_label_kind")


class WeakLabelTask(EnhancementTask):
    """ESPnet's enhancement task with our model, preprocessor and criterion.

    Training takes `--train_table` and `--train_bank`, `--valid_table` and `--valid_bank` (mixture
    tables, rendered on the fly), or ESPnet's own data triples with `speech_mix`, `clip_label` and
    so on, and then `--class_names`. Everything else is ESPnet's own.
    """

    class_choices_list = [*choices("encoder", "separator", "decoder", "classifier"), preprocessor_choices]
    networks = {"encoder": "sqrt_hann_stft", "decoder": "sqrt_hann_stft", "separator": "mask_blstm"}
    unread = LABELS

    @classmethod
    def get_parser(cls) -> ConfigParser:
        return ConfigParser.of(super().get_parser(), cls.unread)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser):
        super().add_task_arguments(parser)
        group = parser.add_argument_group("Separation from weak labels")
        text = "What is trained: the classifier alone, or the separator"
        group.add_argument("--part", choices=PARTS, default="separator", help=text)
        group.add_argument("--label_type", choices=LABEL_TYPES, default="frame")
        strategies = "Of the classifier of a separator: trained along from scratch, loaded and fine-tuned, or fixed"
        group.add_argument("--strategy", choices=STRATEGIES, default="fixed", help=strategies)
        add_switches(group, False, residual="One output more, for the sound of no labelled class")
        remix = "Train and validate a separator on mixtures of mixtures; the weight of the loss's term of their parts. "
        group.add_argument("--remix", type=float, default=0.0, help=f"{remix}0: on the mixtures as they are")
        add_texts(group, classifier_file="Weights of a trained classifier, its config.yaml beside them")
        for name in ("train", "valid"):
            add_texts(
                group, **{f"{name}_table": "Folder of a mixture table", f"{name}_bank": "Clip bank of its sounds"}
            )
        names = "Names of the classes in order (default: those of --train_table)"
        group.add_argument("--class_names", nargs="+", default=None, help=names)
        prior = "Share in which each class is active, for the class weights (default: in what a training sees of "
        for name in ("frame_prior", "clip_prior"):
            group.add_argument(f"--{name}", nargs="+", type=float, default=None, help=f"{prior}--train_table)")
        parser.set_defaults(
            batch_type="unsorted",
            num_att_plot=0,
            sample_rate=16000,
            preprocessor="weak",
            model_conf={},
            criterions=[{"name": WEAK, "conf": {}}],
            **cls.networks,
        )

    # ---- data --------------------------------------------------------------------------------

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool):
        return CommonCollateFn(float_pad_value=0.0, int_pad_value=0, not_sequence=NOT_SEQUENCE)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool):
        if args.preprocessor != "weak":
            return super().build_preprocess_fn(args, train)
        n_fft, hop = frame_sizes(_encoder(args), **stft_sizes(vars(args)))
        which = "train" if train else "valid"
        return make(
            lambda *_: WeakPreprocessor,
            "preprocessor",
            "weak",
            args.preprocessor_conf,
            train=train,
            table=getattr(args, f"{which}_table"),
            bank=getattr(args, f"{which}_bank"),
            num_classes=len(args.class_names),
            label_type=args.label_type,
            part=args.part,
            residual=args.residual,
            remix=args.part == "separator" and args.remix > 0,
            n_fft=n_fft,
            hop_length=hop,
        )

    @classmethod
    def build_dataset(cls, args: argparse.Namespace, iter_options, keys_to_load=None):
        if isinstance(iter_options.preprocess_fn, WeakPreprocessor):
            iter_options.preprocess_fn.open()
        return super().build_dataset(args, iter_options, keys_to_load)

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False):
        return ("speech_mix",) if inference else ()

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False):
        return (
            "mixture",
            "speech_mix",
            "clip_label",
            "frame_label",
            "label_kind",
            *(f"speech_ref{n}" for n in range(1, MAX_SOURCES + 1)),
        )

    @classmethod
    def prepare(cls, args: argparse.Namespace) -> None:
        """Before a training: tables are read and their data set up, a classifier is looked for.

        Raises:
            DataError: an option or a file that is missing or does not fit; see there.
        """
        check_options(args)
        for which in ("train", "valid"):
            if getattr(args, f"{which}_table") is not None or args.train_table is not None:
                _use_table(args, which)
        if args.part == "separator" and args.strategy != "joint" and not goes_on(args):
            cls.need_classifier(args)

    @classmethod
    def need_classifier(cls, args: argparse.Namespace) -> None:
        """See that a separator has a trained classifier, where it needs one; errors as in `require_classifier`."""
        if has_classifier(vars(args)):
            require_classifier(args, "classifier", make_classifier(vars(args), find, _encoder(args)))

    # ---- model -------------------------------------------------------------------------------

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetWeakLabelModel:
        with refusing(config_of(args)), fitting():
            return cls._build(args)

    @classmethod
    def _build(cls, args: argparse.Namespace) -> ESPnetWeakLabelModel:
        check_options(args)
        parts = class_parts(vars(args), find)
        classifier = parts.pop("classifier")
        wrappers = loss_wrappers(args, classifier)
        known = {
            "classifier": classifier,
            "class_names": args.class_names,
            "part": args.part,
            "residual": args.residual,
            "label_type": args.label_type,
            "sample_rate": args.sample_rate,
            "freeze_classifier": args.part == "separator" and args.strategy == "fixed",
            "loss_wrappers": wrappers,
        }
        model = construct(ESPnetWeakLabelModel, args.model_conf, "model_conf", **parts, **known)
        if args.init is not None:
            initialize(model, args.init)
        return frozen(model, args)

    @classmethod
    def start_model(cls, args: argparse.Namespace) -> ESPnetWeakLabelModel:
        """The model as ESPnet's training begins, for another trainer; see `prepare`."""
        cls.prepare(args)
        set_all_random_seed(args.seed)
        model = cls.build_model(args)
        for entry in args.init_param:
            load_pretrained_model(entry, model, args.ignore_init_mismatch, "cpu")
        return model

    @classmethod
    def main_worker(cls, args: argparse.Namespace):
        with training(args):
            cls.prepare(args)
            super().main_worker(args)


def _weak(args: argparse.Namespace) -> list[dict]:
    return [c for c in args.criterions or [] if c["name"] == WEAK]


def loss_wrappers(args: argparse.Namespace, classifier: nn.Module | None) -> list[AbsLossWrapper]:
    """The criteria of a training."""
    given = {
        "classifier": classifier,
        "label_type": args.label_type,
        "part": args.part,
        "strategy": args.strategy,
        "remix": _remix(args),
        "prior": args.frame_prior,
        "clip_prior": args.clip_prior,
        "consistency": getattr(args, "consistency", 0.0),
    }
    return [
        build_criterion(c, "all_sources", **(given if c["name"] == WEAK else {}))
        for c in (_weak(args) if args.part == "classifier" else args.criterions)
    ]


def _remix(args: argparse.Namespace) -> float:
    return getattr(args, "remix", 0.0)  # config.yaml of older trainings does not know it


def _encoder(args: argparse.Namespace):
    with refusing(config_of(args)):
        return make(find, "encoder", args.encoder, args.encoder_conf)


def check_options(args: argparse.Namespace) -> None:
    """Options that a YAML gives are not checked by the parser."""
    for name, known in OPTIONS.items():
        if getattr(args, name) not in known:
            raise DataError(f"{name} must be one of {', '.join(known)}; got {getattr(args, name)}")
    if not args.criterions:
        raise DataError("criterions must be a list of at least one {name: ..., conf: ...}")
    others = [c["name"] for c in args.criterions if c["name"] != WEAK]
    if args.part == "separator" and others and args.label_type != "strong":
        raise DataError(
            f"criterion {others[0]} compares with isolated sources, which label_type "
            f"{args.label_type} does not give; set label_type: strong"
        )
    if (remix := _remix(args)) < 0 or (remix and not _weak(args)):
        raise DataError(
            f"remix, 0 or more, is a weight in a criterion weak_label; got {remix:g}"
            + " without one" * (not _weak(args))
        )
    if args.part == "classifier" and not _weak(args):
        raise DataError("--part classifier needs a criterion weak_label")


def _use_table(args: argparse.Namespace, which: str) -> None:
    """Read from a table and its bank; fill in what the model needs to know of them."""
    require(args, f"{which}_table", f"{which}_bank")
    table = MixtureTable(getattr(args, f"{which}_table"))
    table.check(ClipBank(getattr(args, f"{which}_bank")))
    if args.class_names is None:
        args.class_names = list(table.classes)
    if list(table.classes) != list(args.class_names):
        raise DataError(
            f"{table.folder}: its classes are {', '.join(table.classes)}, those of the "
            f"training {', '.join(args.class_names)}"
        )
    if table.fs != (fs := model_rate(vars(args), _encoder(args))):
        raise DataError(f"{table.folder}: at {table.fs} Hz, but the model at {fs} Hz (encoder_conf sample_rate)")
    if which == "train":
        use_priors(args, table, *frame_sizes(_encoder(args), **stft_sizes(vars(args))))
    ids = str(table.folder / "ids")
    setattr(args, f"{which}_data_path_and_name_and_type", [(ids, "mixture", "text")])
    setattr(args, f"{which}_shape_file", [ids])
