"""ESPnet task of query-based separation: target extraction that mixes while it trains."""

import argparse

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.enh_tse import TargetSpeakerExtractionTask, preprocessor_choices
from espnet2.torch_utils.initialize import initialize
from espnet2.train.collate_fn import CommonCollateFn

from espnet2_ext.build import SHARED, construct, make, query_parts
from espnet2_ext.core.bounds import fitting
from espnet2_ext.core.mixing.pair_drawer import PairDrawer
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.per_clip import AnchorTable
from espnet2_ext.data.mixtures.pair_list import read_list
from espnet2_ext.enh.adapt import OrPath, add, name_or_path, query_net_choices
from espnet2_ext.enh.espnet_model_qsep import ESPnetQSepModel
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.registry import register
from espnet2_ext.tasks.common import (
    build_criterion,
    check_fits,
    choices,
    config_of,
    find,
    frozen,
    keep_classes,
    require,
    training,
)
from espnet2_ext.tasks.options import QUERY, ConfigParser, add_keywords, add_switches, add_texts
from espnet2_ext.train.checkpoints import Entry, goes_on, initial_weights, load_all
from espnet2_ext.train.clip_data import PairIterFactory, QSepPreprocessor

# Here, not in `main`: worker processes of several GPUs are spawned and only import this module.
register()
add(preprocessor_choices, "qsep", QSepPreprocessor)


class QSepTask(TargetSpeakerExtractionTask):
    """ESPnet's target-extraction task with our model, preprocessor and pair drawing.

    Training takes `--train_bank` (a clip bank, from which pairs are drawn on the fly) and
    `--valid_bank` with `--valid_pairs` (a list drawn once), instead of ESPnet's data triples.
    Everything else (resuming, averaging, mixed precision, accumulation, several GPUs and nodes)
    is ESPnet's own.

    The rows of the CaRE-SEP paper's table 2 are options: `--query_net`, `--query_grad` and ESPnet's
    `--init_param`.
    """

    class_choices_list = [*choices("encoder", "extractor", "decoder"), preprocessor_choices]

    @classmethod
    def get_parser(cls) -> ConfigParser:
        return ConfigParser.of(super().get_parser(), QUERY)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser):
        super().add_task_arguments(parser)
        group = parser.add_argument_group("Query-based separation")
        add_texts(
            group,
            train_bank="Clip bank to draw training pairs from",
            valid_bank="Clip bank of the validation list (default: --train_bank)",
            valid_pairs="Validation list, pairs.tsv",
            anchor_file="Table of anchors that a tagger chose, for training pairs (default: pair_conf's rule alone)",
        )
        add_keywords(group, pair_conf="espnet2_ext.core.mixing.pair_drawer.PairDrawer")
        cls.add_query_arguments(parser)
        parser.set_defaults(
            iterator_type="task",  # pairs are drawn, not read from a list
            num_att_plot=0,  # there is no attention to plot
            encoder="mel_band_split",
            decoder="mel_band_merge",
            extractor="care_sep",
            preprocessor="qsep",
            num_spk=2,
            sample_rate=32000,
            model_conf={},
        )

    @classmethod
    def add_query_arguments(cls, parser: argparse.ArgumentParser):
        group = parser.add_argument_group("Query network")
        group.add_argument(
            "--query_net",
            type=name_or_path,
            choices=OrPath((SHARED, *query_net_choices.classes)),
            default=SHARED,
            help="What makes the query embeddings: the separator's own encoder (shared), or a network of its own",
        )
        add_keywords(group, query_net_conf="that network; not looked at where shared")
        learns = "Gradients go into the query embedding; if not, a query network of its own is frozen"
        add_switches(group, True, query_grad=learns)
        untrained = "Train with a frozen query network that has no trained weights (for debugging)"
        add_switches(group, False, random_query_net=untrained)

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool):
        return CommonCollateFn(float_pad_value=0.0, int_pad_value=0, not_sequence=PairIterFactory.not_sequence)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool):
        bank = args.train_bank if train else args.valid_bank or args.train_bank
        if args.preprocessor != "qsep":
            return super().build_preprocess_fn(args, train)
        return make(lambda *_: QSepPreprocessor, "preprocessor", "qsep", args.preprocessor_conf, train=train, bank=bank)

    @classmethod
    def build_task_iter_factory(cls, args: argparse.Namespace, iter_options, mode: str) -> AbsIterFactory:
        preprocess = iter_options.preprocess_fn
        require(args, "train_bank")
        check_fits(args, preprocess.bank, "encoder", "sample_rate", preprocess.bank.fs)
        if any(c["name"] in ("tagging", "mixture_tagging") for c in args.criterions or []):
            tagger = "extractor" if args.query_net == SHARED else "query_net"
            check_fits(args, preprocess.bank, tagger, "num_classes", preprocess.bank.num_classes)
        if mode == "train":
            source = {"drawer": _drawer(preprocess.bank, args), "num_iters_per_epoch": iter_options.num_iters_per_epoch}
        else:
            require(args, "valid_pairs")
            source = {"rows": read_list(args.valid_pairs, preprocess.bank)}
        return PairIterFactory.of_task(args, iter_options, **source)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetQSepModel:
        with refusing(config_of(args)), fitting():
            parts = query_parts(vars(args), find)
            wrappers = [build_criterion(c, "keyed_order") for c in args.criterions or []]
            known = {"query_net": parts.pop("query_net"), "query_grad": getattr(args, "query_grad", True)}
            known |= {"loss_wrappers": wrappers}
            model = construct(ESPnetQSepModel, args.model_conf, "model_conf", **parts, **known)
            if args.init is not None:
                initialize(model, args.init)
            return frozen(model, args)

    @classmethod
    def check_weights(cls, args: argparse.Namespace) -> None:
        """Refuse to train with a frozen query network of random weights (DataError)."""
        if args.query_net == SHARED or args.query_grad or args.random_query_net or goes_on(args):
            return
        if not any(Entry.parse(text).reaches("query_net") for text in args.init_param):
            raise DataError(
                f"query_net {args.query_net} is frozen (query_grad: false), but nothing gives it "
                "trained weights: --init_param TAGGER.pth:net:query_net. To debug with random "
                "ones: --random_query_net true"
            )

    @classmethod
    def start_model(cls, args: argparse.Namespace) -> ESPnetQSepModel:
        """The model as a training begins, initial weights loaded."""
        cls.check_weights(args)
        model = cls.build_model(args)
        load_all(model, args)
        return model

    @classmethod
    def main_worker(cls, args: argparse.Namespace):
        with training(args), initial_weights(args):
            cls.check_weights(args)
            require(args, "train_bank")
            keep_classes(args, ClipBank(args.train_bank))
            super().main_worker(args)


def _drawer(bank: ClipBank, args: argparse.Namespace) -> PairDrawer:
    """Refuses a table of anchors of another bank or segment length, or for none (DataError)."""
    anchor_file = args.anchor_file
    anchors = None if anchor_file is None else AnchorTable(anchor_file)
    drawer = construct(PairDrawer, args.pair_conf, f"{config_of(args)}: pair_conf", bank=bank, anchors=anchors)
    if anchors is not None:
        if drawer.num is None:
            raise DataError(
                f"--anchor_file {anchor_file}: anchors place segments, but pair_conf has segment: null, whole clips"
            )
        anchors.check(bank, drawer.num)
    return drawer
