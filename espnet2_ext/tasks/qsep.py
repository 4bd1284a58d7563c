"""ESPnet task of query-based separation: target extraction that mixes while it trains."""

import argparse

import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks import abs_task
from espnet2.tasks.enh import decoder_choices, encoder_choices
from espnet2.tasks.enh_tse import (
    TargetSpeakerExtractionTask,
    extractor_choices,
    preprocessor_choices,
)
from espnet2.torch_utils.initialize import initialize
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.utils.get_default_kwargs import get_default_kwargs
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str_or_none

from espnet2_ext.core.mixing import PairDrawer
from espnet2_ext.data.lists import read_list
from espnet2_ext.enh.espnet_model_qsep import ESPnetQSepModel
from espnet2_ext.registry import register
from espnet2_ext.tasks.common import build, build_criterion, check_keys, require, training
from espnet2_ext.train.iter_factory import NOT_SEQUENCE, PairIterFactory
from espnet2_ext.train.schedulers import WarmupHalvingLR

# Here, not in `main`: worker processes of several GPUs are spawned and only import this module.
register()
abs_task.scheduler_classes.setdefault("warmuphalvinglr", WarmupHalvingLR)


class QSepTask(TargetSpeakerExtractionTask):
    """ESPnet's target-extraction task with our model, preprocessor and pair drawing.

    Training takes `--train_bank` (a clip bank, from which pairs are drawn on the fly) and
    `--valid_bank` with `--valid_pairs` (a list drawn once), instead of ESPnet's data triples.
    Everything else (resuming, averaging, mixed precision, accumulation, several GPUs and nodes)
    is ESPnet's own.
    """

    class_choices_list = [
        encoder_choices, extractor_choices, decoder_choices, preprocessor_choices]

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser):
        super().add_task_arguments(parser)
        group = parser.add_argument_group("Query-based separation")
        group.add_argument("--train_bank", type=str_or_none, default=None,
                           help="Clip bank to draw training pairs from")
        group.add_argument("--valid_bank", type=str_or_none, default=None,
                           help="Clip bank of the validation list (default: --train_bank)")
        group.add_argument("--valid_pairs", type=str_or_none, default=None,
                           help="Validation list, pairs.tsv")
        group.add_argument("--pair_conf", action=NestedDictAction, default={},
                           help="Keyword arguments of espnet2_ext.core.mixing.PairDrawer")
        parser.set_defaults(
            iterator_type="task",  # pairs are drawn, not read from a list
            num_att_plot=0,  # there is no attention to plot
            encoder="mel_band_split", decoder="mel_band_merge", extractor="care_sep",
            preprocessor="qsep", num_spk=2, sample_rate=32000,
            model_conf=get_default_kwargs(ESPnetQSepModel))

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool):
        return CommonCollateFn(float_pad_value=0.0, int_pad_value=0, not_sequence=NOT_SEQUENCE)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool):
        bank = args.train_bank if train else args.valid_bank or args.train_bank
        return build(preprocessor_choices, args.preprocessor, args.preprocessor_conf,
                     train=train, bank=bank)

    @classmethod
    def build_task_iter_factory(cls, args: argparse.Namespace, iter_options,
                                mode: str) -> AbsIterFactory:
        preprocess = iter_options.preprocess_fn
        require(args, "train_bank")
        if mode == "train":
            check_keys(PairDrawer, args.pair_conf, "pair_conf", ("bank",))
            source = {"drawer": PairDrawer(preprocess.bank, **args.pair_conf),
                      "num_iters_per_epoch": iter_options.num_iters_per_epoch}
        else:
            require(args, "valid_pairs")
            source = {"pairs": read_list(args.valid_pairs, preprocess.bank)}
        split = iter_options.distributed and torch.distributed.is_initialized()
        return PairIterFactory(
            preprocess, batch_size=iter_options.batch_size, collate_fn=iter_options.collate_fn,
            seed=args.seed, num_workers=args.num_workers, pin_memory=args.ngpu > 0,
            rank=torch.distributed.get_rank() if split else 0,
            world_size=torch.distributed.get_world_size() if split else 1, **source)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetQSepModel:
        encoder = build(encoder_choices, args.encoder, args.encoder_conf)
        extractor = build(extractor_choices, args.extractor, args.extractor_conf,
                          input_dim=encoder.output_dim)
        decoder = build(decoder_choices, args.decoder, args.decoder_conf)
        wrappers = [build_criterion(c, "keyed_order") for c in args.criterions or []]
        check_keys(ESPnetQSepModel, args.model_conf, "model_conf")
        model = ESPnetQSepModel(encoder, extractor, decoder, wrappers, **args.model_conf)
        if args.init is not None:
            initialize(model, args.init)
        return model

    @classmethod
    def main_worker(cls, args: argparse.Namespace):
        with training():
            super().main_worker(args)
