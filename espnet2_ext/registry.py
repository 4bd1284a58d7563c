"""The table of names that a YAML can use, and what puts them into ESPnet.

A new class is one line here. ESPnet has no plugin mechanism, so the names go into its own choice
tables; `register` is called when a task of this package is imported, which also holds in the
worker processes that ESPnet spawns for several GPUs.
"""

from espnet2.tasks import enh, enh_tse
from espnet2.train.class_choices import ClassChoices

from espnet2_ext.enh.decoder.mel_band_merge_decoder import MelBandMergeDecoder
from espnet2_ext.enh.encoder.mel_band_split_encoder import MelBandSplitEncoder
from espnet2_ext.enh.extractor.care_sep_extractor import CaRESepExtractor
from espnet2_ext.enh.loss.criterions.query import QuerySDRLoss, TaggingLoss, WaveL1Loss
from espnet2_ext.enh.loss.wrappers.keyed_order import KeyedOrderSolver
from espnet2_ext.train.preprocessor import QSepPreprocessor

TABLE: list[tuple[ClassChoices, dict[str, type]]] = [
    (enh.encoder_choices, {"mel_band_split": MelBandSplitEncoder}),
    (enh.decoder_choices, {"mel_band_merge": MelBandMergeDecoder}),
    (enh_tse.extractor_choices, {"care_sep": CaRESepExtractor}),
    (enh_tse.preprocessor_choices, {"qsep": QSepPreprocessor}),
    (enh.criterion_choices, {
        "wave_l1": WaveL1Loss,
        "neg_sdr": QuerySDRLoss,
        "tagging": TaggingLoss,
    }),
    (enh.loss_wrapper_choices, {"keyed_order": KeyedOrderSolver}),
]


def register() -> None:
    """Put every name of `TABLE` into ESPnet's tables; calling it again changes nothing.

    Raises:
        ValueError: a name that is not lower case, is taken by another class, or a class of the
            wrong kind.
    """
    for choices, classes in TABLE:
        for name, cls in classes.items():
            add(choices, name, cls)


def add(choices: ClassChoices, name: str, cls: type) -> None:
    """Put one class into one of ESPnet's tables; errors as in `register`."""
    if name != name.lower():
        raise ValueError(f"{choices.name} {name!r}: names must be lower case")
    if choices.base_type is not None and not issubclass(cls, choices.base_type):
        raise ValueError(f"{choices.name} {name!r}: {cls.__name__} is not a "
                         f"{choices.base_type.__name__}")
    if choices.classes.setdefault(name, cls) is not cls:
        raise ValueError(f"{choices.name} {name!r} is already {choices.classes[name].__name__}")
