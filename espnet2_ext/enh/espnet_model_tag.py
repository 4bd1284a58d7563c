"""ESPnet model of a tagger: trained on clip labels, with mixup."""

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor

from espnet2_ext.core.layers.padding import host_lengths
from espnet2_ext.core.losses.tagging import tagging_bce
from espnet2_ext.core.nets.contracts import TaggingModel


class ESPnetTaggingModel(TaggingModel, AbsESPnetModel):
    """A `Tagger` and its loss.

    The weights' names begin with `net.`, so `--init_param FILE:net:query_net` gives them to a
    separator's query network.

    Args:
        net: the network, with a tagging head.
    """

    def forward(
        self, speech: Tensor, speech_lengths: Tensor | None = None, *, label: Tensor, mixup: Tensor | None = None, **_
    ):
        """Loss, log and weight of a batch, as ESPnet's trainer wants them.

        Args:
            speech: `[B, T]`, of which `speech_lengths` `[B]` samples count.
            label: `[B, K]`, 1 at the classes of the clip.
            mixup: `[B, 1]`, weight of each item in its mix with the one at the mirrored place; the
                network mixes features, the labels are mixed here.
        """
        lengths = host_lengths(speech, speech_lengths)
        speech = speech[:, : int(lengths.max())]
        weight = None if mixup is None else mixup.squeeze(-1)
        logits = self.net(speech, lengths, weight).clipwise.float()
        target = label if mixup is None else mixup * label + (1 - mixup) * label.flip(0)
        loss = tagging_bce(logits=logits, labels=target).mean()
        stats = {"loss": loss.detach()}
        if mixup is None:
            stats["ranking"] = ranking_precision(logits.detach(), label).mean()
        return force_gatherable((loss, stats, len(speech)), loss.device)

    def collect_feats(self, speech: Tensor, speech_lengths: Tensor, **_) -> dict[str, Tensor]:
        """ESPnet's statistics are of the waveform: the network has its own front end."""
        return {"feats": speech, "feats_lengths": speech_lengths}


def ranking_precision(logits: Tensor, label: Tensor) -> Tensor:
    """Label-ranking average precision: how far up a clip's own classes stand among all.

    Of an item, so that the mean over batches is that over items, which mAP's is not; 1 where all
    labels lead the ranking, and for items without labels.

    Args:
        logits, label: `[B, K]`.

    Returns:
        `[B]`, in (0, 1].
    """
    hit = label.gather(1, logits.argsort(dim=1, descending=True))
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    count = hit.sum(1)
    precision = (hit * hit.cumsum(1) / rank).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, precision, torch.ones_like(precision))
