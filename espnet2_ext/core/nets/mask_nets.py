"""Masks for known classes: from a bidirectional LSTM, and from a small convolutional U-Net."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.mel import mel_filterbank
from espnet2_ext.core.layers.padding import BLSTM, Lengths, hide_padding, norm_frames, numbers, unless_whole
from espnet2_ext.core.nets.masking import bounded_mask, check_temperature, tempered

MASK_TYPES = ("magnitude", "share", "phase_sensitive", "complex")
LOG_FLOOR = 1e-5  # added to magnitudes before the logarithm: 100 dB below a bin of magnitude 1


class _Masker(nn.Module):
    """What both networks have in common; arguments as in `BLSTMMasker`."""

    def __init__(self, num_bins: int, num_outputs: int, mask_type: str, bound: float, temperature: float):
        super().__init__()
        if mask_type not in MASK_TYPES:
            raise ValueError(f"mask_type must be one of {MASK_TYPES}, not {mask_type!r}")
        if bound <= 0:
            raise ValueError(f"bound must be positive, not {bound}")
        check_temperature(temperature, mask_type)
        self.temperature = temperature
        self.num_bins, self.num_outputs = num_bins, num_outputs
        self.mask_type, self.bound = mask_type, bound

    def forward(self, spec: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Spectrum `[B, L, F]`, complex (or its magnitude), to masks `[B, S, L, F]`.

        Frames behind an item's length `[B]` do not change the others.

        Raises:
            ValueError: another shape.
        """
        if spec.dim() != 3 or spec.shape[-1] != self.num_bins:
            raise ValueError(f"expected a spectrum [B, L, {self.num_bins}], got {list(spec.shape)}")
        x = tempered(self.logits(spec.abs(), lengths), self.temperature, self.training)
        return bounded_mask(x, self.mask_type, self.bound)

    def logits(self, magnitude: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, L, F]` to what `bounded_mask` takes."""
        raise NotImplementedError


class BLSTMMasker(_Masker):
    """Log magnitudes of the mixture to one mask an output.

    Pishdadian et al., "Finding Strength in Weakness", section II-F and figure 2a; the phase-sensitive
    and the complex mask are what that paper leaves to future work.

    Args:
        num_bins: F.
        num_outputs: S.
        hidden: units a direction; layers: of the LSTM. 600 and 3 in the paper.
        mask_type: one of `MASK_TYPES`; see `bounded_mask`.
        bound: largest modulus of phase-sensitive and complex masks.
        temperature: of `magnitude` and `share` masks in use, see `masking.tempered`.
        input_norm: batch norm of each bin at the input, as the paper does for music.
    """

    def __init__(
        self,
        num_bins: int,
        num_outputs: int,
        *,
        hidden: int = 600,
        layers: int = 3,
        mask_type: str = "magnitude",
        bound: float = 2.0,
        temperature: float = 1.0,
        input_norm: bool = False,
    ):
        super().__init__(num_bins, num_outputs, mask_type, bound, temperature)
        self.norm = nn.BatchNorm1d(num_bins) if input_norm else None
        self.rnn = BLSTM(num_bins, hidden, layers)
        self.out = nn.Linear(2 * hidden, num_outputs * num_bins * (1 + (mask_type == "complex")))

    def logits(self, magnitude: Tensor, lengths: Tensor | None) -> Tensor:
        x = (magnitude + LOG_FLOOR).log().to(self.out.weight.dtype)
        if self.norm is not None:
            x = norm_frames(self.norm, x.transpose(1, 2).contiguous(), lengths).transpose(1, 2)
        x = self.out(self.rnn(hide_padding(x, lengths), lengths))
        x = x.unflatten(-1, (self.num_outputs, self.num_bins, -1)).transpose(1, 2)
        return x if self.mask_type == "complex" else x.squeeze(-1)


_LOG_FLOOR = 1e-3  # lower, and the quiet frames between events govern the batch norm


class ConvMasker(_Masker):
    """Log-mel spectrum of the mixture to one mask an output, for training without a GPU. Not of a paper.

    A mask that is even within a mel band has a quarter of the values of one on all bins, and filters that slide over
    the bands learn from little data.

    A convolution on patches of 2 frames x 2 bands, then a U-Net whose levels halve both; at its
    bottom a bidirectional LSTM looks at the whole clip. The masks of the bands are spread over the
    bins by the filters' own shares in each bin.

    Args:
        num_bins: F.
        num_outputs: S.
        mel_bands: N, a multiple of 2 to the number of channels.
        channels: of the levels.
        hidden: units of the LSTM a direction; 0: none.
        mask_type, bound, temperature: as in `BLSTMMasker`.
        fs: sampling rate in Hz, for the filterbank.

    Raises:
        ValueError: another mask type or number of bands.
    """

    PATCH = 2

    bank: Tensor
    spread: Tensor

    def __init__(
        self,
        num_bins: int,
        num_outputs: int,
        *,
        mel_bands: int = 64,
        channels: tuple[int, ...] = (24, 48, 96),
        hidden: int = 64,
        mask_type: str = "magnitude",
        bound: float = 2.0,
        temperature: float = 1.0,
        fs: int = 16000,
    ):
        super().__init__(num_bins, num_outputs, mask_type, bound, temperature)
        self.step = self.PATCH * 2 ** (len(channels) - 1)
        if mel_bands % self.step:
            raise ValueError(f"{len(channels)} levels need mel_bands to be a multiple of {self.step}, not {mel_bands}")
        with torch.device("cpu"):  # computed, so there also where weights are laid out on "meta"
            bank = mel_filterbank(num_bins, mel_bands, fs)
            spread = _spread(bank)
        self.register_buffer("bank", bank / bank.sum(0), persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        self.norm = nn.BatchNorm1d(mel_bands)
        self.first = nn.Conv2d(1, channels[0], self.PATCH, self.PATCH)
        self.place = nn.Parameter(torch.zeros(channels[0], 1, mel_bands // self.PATCH))
        self.levels = nn.ModuleList(_Twice(c, c) for c in channels)
        steps = list(zip(channels, channels[1:]))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in steps)
        width = channels[-1] * mel_bands // self.step
        if hidden:
            self.rnn, self.back = BLSTM(width, hidden), nn.Linear(2 * hidden, width)
        self.recurrent = hidden > 0
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in steps)
        self.joined = nn.ModuleList(_Twice(2 * a, a) for a, _ in steps)
        parts = 1 + (mask_type == "complex")
        self.last = nn.ConvTranspose2d(channels[0], num_outputs * parts, self.PATCH, self.PATCH)

    def logits(self, magnitude: Tensor, lengths: Lengths | None) -> Tensor:
        x = self.bands(magnitude, lengths) @ self.spread  # [B, S (or 2 S), L, F]
        if self.mask_type == "complex":
            x = x.unflatten(1, (2, -1)).movedim(1, -1).contiguous()
        return x

    def bands(self, magnitude: Tensor, lengths: Lengths | None, hint: Tensor | None = None) -> Tensor:
        """`[B, L, F]` to the logits of mel bands, `[B, S, L, N]` (of `complex` masks 2 S).

        hint: `[B, D, L', N']`, added to the map at the bottom, whose N is a multiple of N'; L' covers its frames.
        """
        frames = magnitude.shape[1]
        lengths = unless_whole(lengths, frames)
        x = hide_padding(magnitude.to(self.bank.dtype), lengths) @ self.bank
        x = norm_frames(self.norm, x.clamp(min=_LOG_FLOOR).log().transpose(1, 2), lengths).transpose(1, 2)
        x = F.pad(x, (0, 0, 0, -frames % self.step))[:, None]
        x = self.first(x.contiguous(memory_format=torch.channels_last)) + self.place
        x = self.unet(x, None if lengths is None else tuple(-(-n // self.step) for n in numbers(lengths)), hint)
        return self.last(x)[:, :, :frames]

    def unet(self, x: Tensor, lengths: tuple[int, ...] | None = None, hint: Tensor | None = None) -> Tensor:
        """`[B, D, L, N]` to the same; lengths `[B]` in frames at the bottom, hint as in `bands`."""
        skips, times = [], [2**d for d in reversed(range(len(self.levels)))]
        own = [None if lengths is None else tuple(n * by for n in lengths) for by in times]
        for level, down, n in zip(self.levels, [*self.down, None], own, strict=True):
            x = level(hide_padding(x, n, dim=2), n)
            if down is not None:
                skips.append(x)
                x = down(x)
        if hint is not None:
            x = x + hint[:, :, : x.shape[2]].repeat_interleave(x.shape[3] // hint.shape[3], 3)
        if self.recurrent:
            x = x + self.whole(x, lengths)
        for up, joined, n in reversed(list(zip(self.up, self.joined, own))):
            x = joined(torch.cat([hide_padding(up(x), n, dim=2), skips.pop()], dim=1), n)
        return x

    def whole(self, x: Tensor, lengths: tuple[int, ...] | None = None) -> Tensor:
        """`[B, D, L, N]` to the same, through the recurrent network along the frames."""
        d, n = x.shape[1], x.shape[3]
        y = self.back(self.rnn(x.permute(0, 2, 1, 3).flatten(2), lengths))
        return y.unflatten(2, (d, n)).transpose(1, 2)


class _Twice(nn.Sequential):
    """Convolution, batch norm and ReLU, two times; `[B, D, L, N]` with 0 behind the lengths."""

    def __init__(self, width_in: int, width: int):
        layers = []
        for w in (width_in, width):
            layers += [nn.Conv2d(w, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        super().__init__(*layers)

    def forward(self, x: Tensor, lengths: Lengths | None = None) -> Tensor:
        for conv, norm, relu in zip(*[iter(self)] * 3):
            x = relu(norm_frames(norm, conv(x), lengths))
        return x


def _spread(bank: Tensor) -> Tensor:
    """Shares `[N, F]` of the bands in each bin, which sum to 1; edge bins belong to the last."""
    total, middle = bank.sum(1), bank.argmax(0)
    share = bank / total.clamp(min=1e-3)[:, None]
    for f in (total < 1e-3).nonzero()[:, 0]:
        share[f] = F.one_hot((middle - f).abs().argmin(), bank.shape[1])
    return share.t().contiguous()
