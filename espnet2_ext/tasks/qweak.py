"""ESPnet task of query-based separation from weak labels: first its encoder and tags, then all of it."""

import argparse
from pathlib import Path

from espnet2.tasks.enh import preprocessor_choices
from espnet2.torch_utils.initialize import initialize

from espnet2_ext.build import SHARED, construct, query_parts
from espnet2_ext.core.nets.encoder_tags import EncoderTags
from espnet2_ext.data.tables import Label, write_labels
from espnet2_ext.enh.espnet_model_qweak import ESPnetQueryWeakModel
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.common import choices, find, frozen
from espnet2_ext.tasks.options import QUERY_LABELS
from espnet2_ext.tasks.weak import WeakLabelTask, check_options, loss_wrappers
from espnet2_ext.train.checks import require_classifier


class QueryWeakTask(WeakLabelTask):
    """`WeakLabelTask` with a network that answers queries, and is its own classifier, in place of two networks.

    `--part classifier` trains its encoder and tags, `--classifier_file` begins with them; data and labels are the same.
    What it trains is used as any query-based separator.
    """

    class_choices_list = [*choices("encoder", "extractor", "decoder"), preprocessor_choices]
    networks = {"encoder": "sqrt_hann_stft", "decoder": "sqrt_hann_stft", "extractor": "care_components"}
    unread = QUERY_LABELS

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser):
        super().add_task_arguments(parser)
        text = "Weight of the loss's term by which an estimate lies, for the encoder, where its query lies"
        parser.add_argument("--consistency", type=float, default=0.0, help=text)

    @classmethod
    def prepare(cls, args: argparse.Namespace) -> None:
        super().prepare(args)
        if args.output_dir:
            labels = (Label(i, name, name.replace("_", " ")) for i, name in enumerate(args.class_names))
            write_labels(Path(args.output_dir) / "labels.tsv", labels)

    @classmethod
    def need_classifier(cls, args: argparse.Namespace) -> None:
        require_classifier(args, "extractor", cls._parts(args)["extractor"])

    @classmethod
    def _parts(cls, args: argparse.Namespace) -> dict:
        """Encoder, extractor and decoder.

        Raises:
            DataError: another number of tags than of classes, or a network whose encoder is no classifier of its own.
        """
        known = args.extractor_conf.get("num_classes", len(args.class_names))
        if known != len(args.class_names):
            raise DataError(f"extractor_conf: num_classes is {known}, the classes are {len(args.class_names)}")
        args.extractor_conf = {**args.extractor_conf, "num_classes": known}
        parts = query_parts({**vars(args), "query_net": SHARED}, find)
        net = parts["extractor"].net
        own = [n for n, _ in net.named_parameters() if n.partition(".")[0] not in getattr(net, "mask_only", ())]
        if not hasattr(net, "mask_only") or any(".query." in name for name in own):
            raise DataError(
                f"extractor {args.extractor}: its encoder must embed alone; care_components does, or care_sep with "
                "query_at: decoder"
            )
        return {k: v for k, v in parts.items() if k != "query_net"}

    @classmethod
    def _build(cls, args: argparse.Namespace) -> ESPnetQueryWeakModel:
        check_options(args)
        if args.consistency < 0:
            raise DataError(f"consistency must be 0 or more, not {args.consistency:g}")
        parts = cls._parts(args)
        tags = EncoderTags(parts["extractor"].net)
        known = {name: getattr(args, name) for name in ("class_names", "part", "label_type", "strategy")}
        known |= {"tags": tags, "loss_wrappers": loss_wrappers(args, tags)}
        model = construct(ESPnetQueryWeakModel, args.model_conf, "model_conf", **parts, **known)
        if args.init is not None:
            initialize(model, args.init)
        return frozen(model, args)
