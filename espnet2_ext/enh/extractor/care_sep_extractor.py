"""ESPnet extractor `care_sep`."""

from collections import OrderedDict

from espnet2.enh.extractor.abs_extractor import AbsExtractor
from torch import Tensor

from espnet2_ext.core.nets.care_sep import CaRESep


class CaRESepExtractor(AbsExtractor):
    """CaRE-SEP behind ESPnet's extractor interface.

    Args:
        input_dim: W, from the encoder `mel_band_split`.
        kwargs: those of `core.nets.care_sep.CaRESep`.
    """

    def __init__(self, input_dim: int, num_bands: int = 64, dim: int = 96,
                 image_channels: int = 32, depths: list = (2, 2, 6), heads: list = (4, 8, 16),
                 connector_depth: int = 2, connector_heads: int = 32, window: int = 8,
                 patch_size: int = 4, num_classes: int = 527, mask_type: str = "magnitude",
                 mask_bound: float = 2.0, image_skip: bool = True, detach_query: bool = False,
                 drop_path: float = 0.1, compress: float = 0.3):
        super().__init__()
        self.net = CaRESep(
            num_bands=num_bands, band_width=input_dim, dim=dim, image_channels=image_channels,
            depths=tuple(depths), heads=tuple(heads), connector_depth=connector_depth,
            connector_heads=connector_heads, window=window, patch_size=patch_size,
            num_classes=num_classes, mask_type=mask_type, mask_bound=mask_bound,
            image_skip=image_skip, detach_query=detach_query, drop_path=drop_path,
            compress=compress)

    def forward(self, input: Tensor, ilens: Tensor, input_aux: Tensor, ilens_aux: Tensor,
                suffix_tag: str = "", additional: dict | None = None):
        """Answer queries; with Q B of them, each mixture answers Q (first all mixtures' first).

        Args:
            input: mixture `[B, L, N, W]`, complex.
            ilens: its frames `[B]`.
            input_aux: query spectrum `[Q B, L', N, W]`, complex, or a ready embedding `[Q B, E]`.
            ilens_aux: the query's frames `[Q B]` (unused for an embedding).

        Returns:
            The masked spectrum `[Q B, L, N, W]`, its frames, and a dict with `query{suffix_tag}`
            `[Q B, E]` and, when the network tags, `tags{suffix_tag}` `[Q B, K]` (logits).
        """
        others = OrderedDict()
        query = input_aux
        if input_aux.dim() != 2:
            query, clipwise, _ = self.net.embed(input_aux, ilens_aux)
            if clipwise is not None:
                others[f"tags{suffix_tag}"] = clipwise
        others[f"query{suffix_tag}"] = query
        query = query.unflatten(0, (-1, len(input))).transpose(0, 1)  # [B, Q, E]
        masked = input[:, None] * self.net.mask(input, ilens, query)
        return masked.transpose(0, 1).flatten(0, 1), ilens.repeat(query.shape[1]), others
