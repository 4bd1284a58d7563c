"""ESPnet extractor `query_unet`."""

from espnet2_ext.core.nets.query_unet import QueryUNet
from espnet2_ext.enh.extractor.abs_query_extractor import AbsQueryExtractor


class QueryUNetExtractor(AbsQueryExtractor):
    """The U-Net of ST-SED-SEP and PANN-SEP; its queries come from a network of their own.

    Args:
        input_dim: F, bins, from the encoder `hann_stft`.
        query_dim: E; the task sets it to what the query network gives.
        The rest as in `core.nets.query_unet.QueryUNet`.
    """

    def __init__(
        self,
        input_dim: int,
        query_dim: int = 2048,
        widths: list = (32, 64, 128, 256, 512, 1024),
        momentum: float = 0.01,
    ):
        super().__init__(QueryUNet(query_dim, input_dim, tuple(widths), momentum))
