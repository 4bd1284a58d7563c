"""ESPnet task of tagging: a tagger, trained on clip labels."""

import argparse

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.abs_task import AbsTask
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.trainer import Trainer

from espnet2_ext.build import construct, query_network
from espnet2_ext.core.bounds import fitting
from espnet2_ext.core.nets.contracts import Tagger
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.enh.espnet_model_tag import ESPnetTaggingModel
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.registry import register
from espnet2_ext.tasks.common import choices, config_of, find, frozen, keep_classes, require, training
from espnet2_ext.tasks.options import ROWS, ConfigParser, add_keywords, add_texts
from espnet2_ext.train.checkpoints import initial_weights, load_all
from espnet2_ext.train.clip_data import ExcerptReader, TagDrawer, TagIterFactory, whole_clips

# Here, not in `main`: worker processes of several GPUs are spawned and only import this module.
register()


class TaggingTask(AbsTask):
    """ESPnet's task with our networks, excerpts drawn from clip banks, and nothing else of ours.

    Training takes `--train_bank` and `--valid_bank` instead of ESPnet's data triples; the network
    is chosen with `--query_net`, as the query network of a separator is.
    """

    num_optimizers = 1
    class_choices_list = choices("query_net")
    trainer = Trainer

    @classmethod
    def get_parser(cls) -> ConfigParser:
        return ConfigParser.of(super().get_parser(), ROWS)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser):
        group = parser.add_argument_group("Tagging")
        for table in cls.class_choices_list:
            table.add_arguments(group)
        valid = "Clip bank of the validation, each clip whole (default: --train_bank)"
        add_texts(group, train_bank="Clip bank to draw training excerpts from", valid_bank=valid)
        add_keywords(group, tag_conf="espnet2_ext.train.clip_data.TagDrawer")
        parser.set_defaults(iterator_type="task", num_att_plot=0)  # excerpts are drawn; there is no attention to plot

    # ---- data --------------------------------------------------------------------------------

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool):
        return CommonCollateFn(0.0, 0, TagIterFactory.not_sequence)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool):
        require(args, "train_bank")
        return ExcerptReader(ClipBank(args.train_bank if train else _valid_bank(args)))

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False):
        return ()

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False):
        return ("speech", "label", "mixup")

    @classmethod
    def build_task_iter_factory(cls, args: argparse.Namespace, iter_options, mode: str) -> AbsIterFactory:
        bank = iter_options.preprocess_fn.bank
        if mode == "train":
            source = {
                "drawer": construct(TagDrawer, args.tag_conf, f"{config_of(args)}: tag_conf", bank=bank),
                "num_iters_per_epoch": iter_options.num_iters_per_epoch,
            }
        else:
            source = {"rows": whole_clips(bank)}
        return TagIterFactory.of_task(args, iter_options, **source)

    # ---- model -------------------------------------------------------------------------------

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetTaggingModel:
        with refusing(config_of(args)), fitting():
            return frozen(ESPnetTaggingModel(query_network(vars(args), find)), args)

    @classmethod
    def start_model(cls, args: argparse.Namespace) -> ESPnetTaggingModel:
        """The model as a training begins, initial weights loaded; errors as in `check` and `load_all`."""
        cls.check(args)
        model = cls.build_model(args)
        load_all(model, args)
        return model

    @classmethod
    def check(cls, args: argparse.Namespace) -> ClipBank:
        """Hold banks and network against each other before a training; the bank to train on.

        Raises:
            DataError: an option that is missing; banks of other classes or another rate than each
                other or the network, or of other classes than a training that goes on.
        """
        require(args, "train_bank")
        train, valid = ClipBank(args.train_bank), ClipBank(_valid_bank(args))
        if [c.mid for c in valid.classes] != [c.mid for c in train.classes]:
            raise DataError(f"{valid.path}: its classes are not those of {train.path}")
        net = cls.build_model(args).net
        for bank in (train, valid):
            check_fits(net, bank)
        keep_classes(args, train, write=False)
        return train

    @classmethod
    def main_worker(cls, args: argparse.Namespace):
        with training(args), initial_weights(args):
            keep_classes(args, cls.check(args))
            super().main_worker(args)


def _valid_bank(args: argparse.Namespace) -> str:
    return args.valid_bank or args.train_bank


def check_fits(net: Tagger, bank: ClipBank) -> None:
    """Refuse a bank of another rate or number of classes than the network (DataError)."""
    if net.num_classes != bank.num_classes:
        raise DataError(
            f"{bank.path}: has {bank.num_classes} classes, the network tags "
            f"{net.num_classes} (query_net_conf num_classes)"
        )
    if net.sample_rate != bank.fs:
        raise DataError(
            f"{bank.path}: at {bank.fs} Hz, but the network at {net.sample_rate} Hz (query_net_conf sample_rate)"
        )
