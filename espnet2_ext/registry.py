"""The table of names that a YAML can use, and what puts them into ESPnet.

A new class is one line here. ESPnet has no plugin mechanism, so the names go into its own choice
tables; `register` is called when a task of this package is imported, which also holds in the
worker processes that ESPnet spawns for several GPUs.
"""

from espnet2.tasks import enh, enh_tse
from espnet2.train.class_choices import ClassChoices

from espnet2_ext.core.nets.care_cls import CaRECLS
from espnet2_ext.core.nets.cnn14 import CNN14
from espnet2_ext.core.nets.hts_at import HTSAT
from espnet2_ext.core.nets.sed import CRNNClassifier, RNNClassifier
from espnet2_ext.enh.classifier.choices import classifier_choices
from espnet2_ext.enh.decoder.hann_stft_decoder import HannSTFTDecoder
from espnet2_ext.enh.decoder.mel_band_merge_decoder import MelBandMergeDecoder
from espnet2_ext.enh.decoder.sqrt_hann_stft_decoder import SqrtHannSTFTDecoder
from espnet2_ext.enh.encoder.hann_stft_encoder import HannSTFTEncoder
from espnet2_ext.enh.encoder.mel_band_split_encoder import MelBandSplitEncoder
from espnet2_ext.enh.encoder.sqrt_hann_stft_encoder import SqrtHannSTFTEncoder
from espnet2_ext.enh.extractor.care_sep_extractor import CaRESepExtractor
from espnet2_ext.enh.extractor.query_unet_extractor import QueryUNetExtractor
from espnet2_ext.enh.loss.criterions.asteroid_losses import AsteroidLoss
from espnet2_ext.enh.loss.criterions.query import QuerySDRLoss, TaggingLoss, WaveL1Loss
from espnet2_ext.enh.loss.criterions.weak_label import WeakLabelCriterion
from espnet2_ext.enh.loss.wrappers.all_sources import AllSourcesSolver
from espnet2_ext.enh.loss.wrappers.keyed_order import KeyedOrderSolver
from espnet2_ext.enh.query_net.choices import query_net_choices
from espnet2_ext.enh.separator.asteroid_masker_separator import AsteroidMaskerSeparator
from espnet2_ext.enh.separator.mask_blstm_separator import MaskBLSTMSeparator
from espnet2_ext.enh.separator.mask_conv_separator import MaskConvSeparator
from espnet2_ext.train.qsep_data import QSepPreprocessor
from espnet2_ext.train.weak_data import WeakPreprocessor

TABLE: list[tuple[ClassChoices, dict[str, type]]] = [
    (
        enh.encoder_choices,
        {"hann_stft": HannSTFTEncoder, "mel_band_split": MelBandSplitEncoder, "sqrt_hann_stft": SqrtHannSTFTEncoder},
    ),
    (
        enh.decoder_choices,
        {"hann_stft": HannSTFTDecoder, "mel_band_merge": MelBandMergeDecoder, "sqrt_hann_stft": SqrtHannSTFTDecoder},
    ),
    (
        enh.separator_choices,
        {"mask_blstm": MaskBLSTMSeparator, "mask_conv": MaskConvSeparator, "asteroid_masker": AsteroidMaskerSeparator},
    ),
    (classifier_choices, {"rnn": RNNClassifier, "crnn": CRNNClassifier}),
    (enh_tse.extractor_choices, {"care_sep": CaRESepExtractor, "query_unet": QueryUNetExtractor}),
    (query_net_choices, {"hts_at": HTSAT, "cnn14": CNN14, "care_cls": CaRECLS}),
    (enh_tse.preprocessor_choices, {"qsep": QSepPreprocessor}),
    (enh.preprocessor_choices, {"weak": WeakPreprocessor}),
    (
        enh.criterion_choices,
        {
            "wave_l1": WaveL1Loss,
            "neg_sdr": QuerySDRLoss,
            "tagging": TaggingLoss,
            "weak_label": WeakLabelCriterion,
            "asteroid": AsteroidLoss,
        },
    ),
    (enh.loss_wrapper_choices, {"keyed_order": KeyedOrderSolver, "all_sources": AllSourcesSolver}),
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
        raise ValueError(f"{choices.name} {name!r}: {cls.__name__} is not a {choices.base_type.__name__}")
    if choices.classes.setdefault(name, cls) is not cls:
        raise ValueError(f"{choices.name} {name!r} is already {choices.classes[name].__name__}")
