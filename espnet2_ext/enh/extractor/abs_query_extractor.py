"""ESPnet's extractor interface over a network that gives masks for queries."""

from collections import OrderedDict

from espnet2.enh.extractor.abs_extractor import AbsExtractor
from torch import Tensor, nn


class AbsQueryExtractor(AbsExtractor):
    """Masks on a spectrum, several queries in one pass.

    Args:
        net: has `query_dim` (E), `grid_frames` (frames after which it repeats) and
            `mask(spec, frames, query [B, Q, E], level)`; a network that listens as well, also
            `embed(spec, frames)`, which gives a `core.nets.tagger.QueryOutput`.

    `listening` names the parts of `net` that only `embed` goes through.
    """

    listening: tuple[str, ...] = ()

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @property
    def listens(self) -> bool:
        """Whether the network makes query embeddings itself."""
        return hasattr(self.net, "embed")

    def forward(
        self,
        input: Tensor,
        ilens: Tensor,
        input_aux: Tensor,
        ilens_aux: Tensor | None,
        suffix_tag: str = "",
        additional: dict | None = None,
    ):
        """Answer queries; with Q B of them, each mixture answers Q (first all mixtures' first).

        Args:
            input: mixture `[B, L, ...]`, complex.
            ilens: its frames `[B]`.
            input_aux: a ready embedding `[Q B, E]` or, for a network that listens, the query's
                spectrum `[Q B, L', ...]`, complex.
            ilens_aux: the query's frames `[Q B]` (unused for an embedding).

        Returns:
            The masked spectrum `[Q B, L, ...]`, its frames, and a dict with `query{suffix_tag}`
            `[Q B, E]` and, when the network tags, `tags{suffix_tag}` `[Q B, K]` (logits).

        Raises:
            ValueError: a spectrum for a network that does not listen.
        """
        others = OrderedDict()
        query = input_aux
        if input_aux.dim() != 2:
            if not self.listens:
                raise ValueError(
                    f"{type(self.net).__name__} takes a ready embedding [Q B, E] for "
                    f"a query, got {list(input_aux.shape)}"
                )
            query, clipwise, _ = self.net.embed(input_aux, ilens_aux)
            if clipwise is not None:
                others[f"tags{suffix_tag}"] = clipwise
        others[f"query{suffix_tag}"] = query
        query = query.unflatten(0, (-1, len(input))).transpose(0, 1)  # [B, Q, E]
        masked = input[:, None] * self.net.mask(input, ilens, query)
        return masked.transpose(0, 1).flatten(0, 1), ilens.repeat(query.shape[1]), others
