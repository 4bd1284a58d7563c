"""ESPnet extractor `care_sep`."""

from espnet2_ext.core.nets.care_sep import CaRESep
from espnet2_ext.enh.extractor.abs_query_extractor import AbsQueryExtractor


class CaRESepExtractor(AbsQueryExtractor):
    """CaRE-SEP behind ESPnet's extractor interface; it can listen itself.

    Args:
        input_dim: W, from the encoder `mel_band_split`.
        The rest as in `core.nets.care_sep.CaRESep`.
    """

    listening = ("connector_norm", "head")

    def __init__(
        self,
        input_dim: int,
        num_bands: int = 64,
        dim: int = 96,
        image_channels: int = 32,
        depths: list = (2, 2, 6),
        heads: list = (4, 8, 16),
        connector_depth: int = 2,
        connector_heads: int = 32,
        window: int = 8,
        patch_size: int = 4,
        num_classes: int = 527,
        mask_type: str = "magnitude",
        mask_bound: float = 2.0,
        image_skip: bool = True,
        drop_path: float = 0.1,
        compress: float = 0.3,
    ):
        super().__init__(
            CaRESep(
                num_bands=num_bands,
                band_width=input_dim,
                dim=dim,
                image_channels=image_channels,
                depths=tuple(depths),
                heads=tuple(heads),
                connector_depth=connector_depth,
                connector_heads=connector_heads,
                window=window,
                patch_size=patch_size,
                num_classes=num_classes,
                mask_type=mask_type,
                mask_bound=mask_bound,
                image_skip=image_skip,
                drop_path=drop_path,
                compress=compress,
            )
        )
