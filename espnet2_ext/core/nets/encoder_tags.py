"""The encoder of a network that answers queries as the classifier that weak labels need."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.bands import keeping_statistics
from espnet2_ext.core.nets.contracts import QueryOutput
from espnet2_ext.core.nets.sed import LabelFrames
from espnet2_ext.errors import DataError

UNSURE = 20.0  # logit, negative, of what lies behind a recording's end


class EncoderTags(LabelFrames, nn.Module):
    """Framewise tags of a `CaRESep` as a classifier like those of `core.nets.sed`, of complex spectra.

    It hears a spectrum at the level that it has, so an estimate is as quiet for it as it is in its mixture, which the
    model brings to unit level. Statistics of a query normalisation stay as they are.

    Args:
        net: has `embed` with a `level`, `token_frames`, a head with framewise tags, and their `clip_pooling`. It stays
            the model's: this module has no parameters.

    Attributes:
        judge: who judges estimates in its place, such as an average of its weights over time; None: nobody.

    Raises:
        DataError: a network without framewise tags of its own, or whose clipwise tags are no pooled probabilities.
    """

    takes_complex = True
    judge: "EncoderTags | None"

    def __init__(self, net: Any):
        super().__init__()
        if getattr(net, "head", None) is None or not hasattr(net, "token_frames"):
            raise DataError(f"{type(net).__name__} has no framewise tags (num_classes 0?), which weak labels need")
        if getattr(net, "clip_pooling", None) is None:
            raise DataError(
                "weak labels need clipwise tags: set tag_pooling in extractor_conf (max, linear_softmax, ...)"
            )
        self._of = (net,)
        self.judge = None
        self.time_pool = int(net.token_frames)

    @property
    def net(self) -> Any:
        """The network."""
        return self._of[0]

    def hear(self, spec: Tensor, lengths: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of spectra `[B, L, F]` at the level that they have; lengths `[B]` in frames."""
        if lengths is None:
            lengths = torch.full(spec.shape[:1], spec.shape[1], device="cpu")
        with keeping_statistics(self.net):
            return self.net.embed(spec, lengths, spec.real.new_ones(len(spec)))

    def hear_stretches(self, spec: Tensor, lengths: Tensor, size: int, starts: Sequence[int]) -> Tensor:
        """Tags `[B, S, K]` of `size` frames from each of `starts`, in frames of the tags, on, heard by themselves."""
        first = torch.tensor(starts) * self.time_pool
        left = lengths.cpu()[:, None] - first  # [B, S]
        index = (first[:, None] + torch.arange(size)).clamp(max=spec.shape[1] - 1).to(spec.device)
        tags = self.hear(spec[:, index].flatten(0, 1), left.clamp(1, size).flatten()).clipwise
        assert tags is not None  # it has a head
        return tags.unflatten(0, left.shape).masked_fill((left <= 0)[..., None].to(tags.device), -UNSURE)

    def forward(self, spec: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Complex spectra `[B, L, F]`, lengths `[B]` in frames, to frame logits `[B, K, L']`."""
        framewise = self.hear(spec, lengths).framewise
        assert framewise is not None  # it has a head
        return framewise.transpose(1, 2)

    def pool(self, logits: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Frame logits `[B, K, L']` and their lengths `[B]` to clip logits `[B, K]`."""
        return self.net.clip_pooling(logits, lengths)
