"""CaRE-CLS: the embedding half of CaRE-SEP as a tagger of its own.

Wang et al., "Consistent and Relevant: Rethink the Query Embedding in General Sound Separation",
section 2.2 and table 1.
"""

import torch
from torch import Tensor

from espnet2_ext.core.layers.mel import SpecAugment
from espnet2_ext.core.layers.padding import hide_padding, host_lengths
from espnet2_ext.core.layers.spectrum import STFT
from espnet2_ext.core.nets.care_sep import CaREEncoder
from espnet2_ext.core.nets.contracts import QueryOutput, Tagger, mix_up


class CaRECLS(Tagger):
    """Waveform `[B, T]` of any length to embedding and tags; its `net` initialises a `CaRESep`.

    Mixup joins spectra that were brought to unit level, so that a weight means the same however
    loud the recordings are. SpecAugment blanks frames and bands of the band image.

    Args:
        sample_rate: Hz.
        n_fft, hop_length: samples.
        num_bands: N, mel-scale bands.
        spec_augment: arguments of `SpecAugment`; None: none.
        The rest as in `CaREEncoder`.
    """

    def __init__(
        self,
        sample_rate: int = 32000,
        n_fft: int = 1024,
        hop_length: int = 320,
        num_bands: int = 64,
        dim: int = 96,
        image_channels: int = 32,
        depths: tuple[int, ...] = (2, 2, 6),
        heads: tuple[int, ...] = (4, 8, 16),
        connector_depth: int = 2,
        connector_heads: int = 32,
        window: int = 8,
        patch_size: int = 4,
        num_classes: int = 527,
        drop_path: float = 0.1,
        compress: float = 0.3,
        spec_augment: dict | None = None,
    ):
        super().__init__()
        self.stft = STFT(n_fft, hop_length)
        self.net = CaREEncoder(
            num_bands,
            n_fft // 2 + 1,
            sample_rate,
            dim,
            image_channels,
            tuple(depths),
            tuple(heads),
            connector_depth,
            connector_heads,
            window,
            patch_size,
            num_classes,
            drop_path,
            compress,
        )
        self.spec_augment = None if spec_augment is None else SpecAugment(**spec_augment)
        self.sample_rate, self.num_classes = sample_rate, num_classes
        self.query_dim = self.net.query_dim

    def forward(self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`; see `Tagger`."""
        frames = self.stft.frames(host_lengths(wave, lengths))
        spec = self.stft(wave)  # [B, L, F]
        if mixup is not None:
            level = self.net.level_of(spec, frames).clamp(min=1e-8)[:, None, None]
            spec = hide_padding(spec / level, frames)
            spec, frames = mix_up(spec, frames, mixup)
        image = self.net.image(spec, frames)
        if self.spec_augment is not None:
            image = self.spec_augment(image)
        return self.net.embed_image(image, frames)

    def edges(self, samples: int) -> Tensor:
        """Where the framewise frames of a clip of so many samples begin and end, `[L' + 1]`.

        A spectrum's frame is centred on its place: it begins half a hop before it.
        """
        step = self.net.token_frames
        count = -(-(samples // self.stft.hop + 1) // step)
        at = (torch.arange(count, dtype=torch.double) * step - 0.5) * self.stft.hop
        return torch.cat([at.clamp(min=0), at.new_tensor([samples])])
