"""Bidirectional LSTM over sequences of their own lengths."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BLSTM(nn.LSTM):
    """`forward(x [B, L, D], lengths [B] or None) -> [B, L, 2 H]`, 0 behind an item's length.

    What an item gives does not depend on its padding. There is no dropout, so that training and
    evaluation do the same; the module stays in training mode because cuDNN keeps what the backward
    pass needs in no other, and a frozen network in evaluation mode must still pass gradients on.
    """

    def __init__(self, width: int, hidden: int, layers: int = 1):
        super().__init__(width, hidden, layers, batch_first=True, bidirectional=True)

    def train(self, mode: bool = True) -> "BLSTM":
        return super().train(True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`[B, L, D]` and frames `[B]` (None: all) to `[B, L, 2 H]`."""
        if lengths is None or int(lengths.min()) >= x.shape[1]:
            return super().forward(x)[0]
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out = super().forward(packed)[0]
        return pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]
