"""Sound event detectors: which classes sound in each frame, and in the clip.

Pishdadian et al., "Finding Strength in Weakness", section II-F and figures 2b and 2c. Logits are
returned, not probabilities; the losses take them so.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.mel import mel_filterbank
from espnet2_ext.core.layers.padding import BLSTM, hide_padding, norm_frames
from espnet2_ext.core.layers.pooling import make_pooling


class LabelFrames:
    """Frames of the spectrum and of the logits, of which each takes `time_pool` of the former together."""

    time_pool = 1

    def frames(self, lengths: Tensor) -> Tensor:
        """Lengths `[B]` in frames of the spectrum to lengths `[B]` in frames of the logits, rounded up."""
        return -(-lengths // self.time_pool)

    def shrink(self, labels: Tensor) -> Tensor:
        """Frame labels `[B, K, L]` to `[B, K, L']`: 1 where any of the frames taken together is."""
        if self.time_pool == 1:
            return labels
        return F.max_pool1d(labels, self.time_pool, ceil_mode=True)


class SoundEventDetector(LabelFrames, nn.Module):
    """What every classifier of sound events has; a subclass gives `detect`.

    Args:
        num_bins: F of the magnitude spectra.
        num_classes: K.
        mel_bands: N, bands of a mel filterbank on the linear magnitude; None: the F bins.
        pooling: from frames to the clip, a name of `pooling.POOLINGS`.
        fs: sampling rate in Hz, for the filterbank.
        compress: 0 feeds the magnitude m as it is, as in the paper; c > 0 feeds log(1 + c m).
    """

    mel: Tensor | None
    cpu_values: int | None = None  # of the spectra in one pass, where more are slower on a CPU

    def __init__(
        self,
        num_bins: int,
        num_classes: int,
        *,
        mel_bands: int | None,
        pooling: str = "max",
        fs: int = 16000,
        compress: float = 0.0,
    ):
        super().__init__()
        self.num_bins, self.num_classes, self.compress = num_bins, num_classes, compress
        self.num_features = mel_bands or num_bins
        bank = mel_filterbank(num_bins, mel_bands, fs) if mel_bands else None
        self.register_buffer("mel", bank, persistent=False)
        self.clip_pooling = make_pooling(pooling, num_classes)

    def forward(self, mag: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Linear magnitudes `[B, L, F]`, lengths `[B]` in frames, to frame logits `[B, K, L']`.

        Raises:
            ValueError: another shape, or complex.
        """
        if mag.dim() != 3 or mag.shape[-1] != self.num_bins or mag.is_complex():
            raise ValueError(f"expected real magnitudes [B, L, {self.num_bins}], got {mag.dtype} {list(mag.shape)}")
        x = hide_padding(mag, lengths)
        if self.mel is not None:
            x = x @ self.mel.to(x.dtype)
        if self.compress:
            x = torch.log1p(self.compress * x)
        return self.detect(x, lengths).transpose(1, 2)

    def detect(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Features `[B, L, N]`, 0 behind the lengths, to logits `[B, L', K]`."""
        raise NotImplementedError

    def pool(self, logits: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Frame logits `[B, K, L']` and their lengths `[B]` to clip logits `[B, K]`."""
        return self.clip_pooling(logits, lengths)


class RNNClassifier(SoundEventDetector):
    """Bidirectional LSTM and a dense layer, figure 2b; 40 mel bands in the paper's table IV.

    Args:
        num_bins, num_classes, mel_bands, pooling, fs, compress: see `SoundEventDetector`.
        hidden: units a direction.
        layers: of the LSTM.
    """

    def __init__(
        self,
        num_bins: int,
        num_classes: int,
        *,
        mel_bands: int | None = 40,
        hidden: int = 100,
        layers: int = 2,
        pooling: str = "max",
        fs: int = 16000,
        compress: float = 0.0,
    ):
        super().__init__(num_bins, num_classes, mel_bands=mel_bands, pooling=pooling, fs=fs, compress=compress)
        self.rnn = BLSTM(self.num_features, hidden, layers)
        self.out = nn.Linear(2 * hidden, num_classes)

    def detect(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, L, N]` to `[B, L, K]`."""
        return self.out(self.rnn(x, lengths))


class CRNNClassifier(SoundEventDetector):
    """Three convolutions, a bidirectional LSTM and a dense layer, figure 2c: "2D-CRNN".

    The second and third pooling halve the number of frames as well: a frame of the logits is four
    of the spectrum, the last one what is left.

    Args:
        num_bins, num_classes, mel_bands, pooling, fs, compress: see `SoundEventDetector`.
        channels: of the three convolutions.
        kernel: side of the convolutions, odd.
        hidden: units of the LSTM a direction.
    """

    time_pool = 4
    POOLS = ((1, 2), (2, 2), (2, 2))  # frames, bins

    def __init__(
        self,
        num_bins: int,
        num_classes: int,
        *,
        mel_bands: int | None = None,
        channels: tuple[int, ...] = (32, 64, 128),
        kernel: int = 5,
        hidden: int = 100,
        pooling: str = "max",
        fs: int = 16000,
        compress: float = 0.0,
    ):
        super().__init__(num_bins, num_classes, mel_bands=mel_bands, pooling=pooling, fs=fs, compress=compress)
        if len(channels) != len(self.POOLS):
            raise ValueError(f"channels must hold {len(self.POOLS)} numbers, not {list(channels)}")
        self.cpu_values = 2**22 // channels[0]  # 16 MiB of activations: caches, page faults
        self.blocks, width = nn.ModuleList(), self.num_features
        for c_in, c_out, pool in zip((1, *channels), channels, self.POOLS):
            self.blocks.append(ConvPool(c_in, c_out, kernel, pool))
            width = -(-width // pool[1])
        self.rnn = BLSTM(width * channels[-1], hidden)
        self.out = nn.Linear(2 * hidden, num_classes)

    def detect(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B, L, N]` to `[B, L / 4, K]`, rounded up."""
        x = x[:, None]
        for block, (frames, _) in zip(self.blocks, self.POOLS):
            x = block(x, lengths)
            if lengths is not None:
                lengths = -(-lengths // frames)
        x = x.permute(0, 2, 3, 1).flatten(2)  # [B, L', F' C]
        return self.out(self.rnn(x, lengths))


class _FromOneChannel(torch.autograd.Function):
    """`conv2d` with `padding=k // 2` of `x` `[B, 1, L, F]`, differentiable in `x` alone."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = x.dtype
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor):
        (weight,) = ctx.saved_tensors
        kernel, half = weight.shape[-1], weight.shape[-1] // 2
        length, bins = upstream.shape[2:]
        taps = weight.reshape(len(weight), -1).t().to(upstream.dtype)  # [k k, C]
        planes = taps @ upstream.permute(0, 2, 3, 1).reshape(len(upstream), -1, len(weight)).mT
        planes = planes.unflatten(2, (length, bins))  # [B, k k, L, F]
        grad = upstream.new_zeros(len(upstream), length + kernel - 1, bins + kernel - 1, dtype=ctx.dtype)
        for tap in range(kernel * kernel):
            row, column = divmod(tap, kernel)
            grad[:, row : row + length, column : column + bins] += planes[:, tap]
        return grad[:, None, half : half + length, half : half + bins], None, None


class ConvPool(nn.Module):
    """Convolution, batch norm, ReLU and max-pooling as one block that is quick on a CPU.

    `[B, C, L, F]` to `[B, C', ceil(L / p), ceil(F / q)]`, pooled by (p, q); L frames, F bins. The same values as the
    four steps one after the other, to rounding:
    - Channels lie last in memory: oneDNN convolves without reordering, pooling runs over vectors.
    - max(relu(x)) is relu(max(x)): pool first, then rectify the quarter that is left, in place.
    - In evaluation the batch norm is a scale and a shift, folded into the convolution.
    - A frozen convolution from one channel gets its input's gradient as one matrix product and sums of
      shifted planes; the library's kernel, made for many channels, takes three times as long.

    Frames behind an item's length change nothing, not even the statistics of the batch norm.

    Args:
        channels_in, channels_out: C and C'.
        kernel: side of the convolution, odd.
        pool: (p, q), frames and bins in a maximum; at the end it takes what is left.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, pool: tuple[int, int]):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {kernel}")
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        weight, bias = (self.conv.weight, None) if self.norm.training else self.folded()
        if x.device.type == "cpu":
            # `to`, not `contiguous`: with one channel the latter takes any layout for this one
            x, weight = (v.to(memory_format=torch.channels_last) for v in (x, weight))
        if bias is None:
            x = norm_frames(self.norm, F.conv2d(x, weight, padding=self.conv.padding), lengths)
        else:
            x = self.convolved(x, weight, bias)
        x = hide_padding(x, lengths, dim=2)  # 0 cannot win over what ReLU leaves
        return F.max_pool2d(x, self.pool, ceil_mode=True).relu_()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of one convolution that does the work of convolution and batch norm."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        scale = self.norm.weight * (variance + self.norm.eps).rsqrt()
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - mean * scale

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if x.shape[1] == 1 and x.device.type == "cpu" and not weight.requires_grad:
            return _FromOneChannel.apply(x, weight, bias)
        return F.conv2d(x, weight, bias, padding=self.conv.padding)
