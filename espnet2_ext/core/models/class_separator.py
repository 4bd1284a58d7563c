"""Separation of known classes: encoder, separator, decoder, and the classifier that judged them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.spectrum import STFT

GRID_FRAMES = 128  # at least, between the places where a chunk may start
WINDOW, HOP = 512, 128  # samples, of the STFT that stands in where the encoder is none


def frame_sizes(encoder: Any, n_fft: int = WINDOW, hop_length: int = HOP) -> tuple[int, int]:
    """(window, hop) in samples of an STFT encoder; of another encoder, those given."""
    if getattr(encoder, "n_fft", None) is None:
        return n_fft, hop_length
    return encoder.n_fft, encoder.hop_length


class ClassSeparator(nn.Module):
    """Classes of sound out of a mixture, one output each, in the order of the classes.

    Args:
        encoder, decoder: as in `core.layers.spectrum`, or ESPnet's own.
        separator: as `core.nets.masking.MaskSeparator`, or ESPnet's own; None: a classifier alone.
        classifier: as in `core.nets.sed`, or None where the training asked for none.
        class_names: K names.
        residual: there is one output more, for sound of no class.
        sample_rate: Hz, where the encoder does not know it.
        n_fft, hop_length: of the classifier's STFT where the encoder is none.
    """

    encoder: Any
    separator: Any
    decoder: Any
    classifier: Any
    stft: STFT | None
    query_dim = 0  # takes no query

    def __init__(
        self,
        encoder: nn.Module,
        separator: nn.Module | None,
        decoder: nn.Module,
        classifier: nn.Module | None,
        *,
        class_names: Sequence[str],
        residual: bool = False,
        sample_rate: int = 16000,
        n_fft: int = WINDOW,
        hop_length: int = HOP,
    ):
        super().__init__()
        self.encoder, self.separator, self.decoder = encoder, separator, decoder
        self._add_classes(classifier, class_names, residual, sample_rate, n_fft, hop_length)

    def _add_classes(
        self,
        classifier: nn.Module | None,
        class_names: Sequence[str],
        residual: bool,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
    ) -> None:
        self.classifier, self.class_names, self.residual = classifier, list(class_names), residual
        self.part = "classifier" if self.separator is None else "separator"
        self.sample_rate = sample_rate
        self.n_fft, self.hop = frame_sizes(self.encoder, n_fft, hop_length)
        spectral = getattr(self.encoder, "n_fft", None) is not None
        self.stft = None if spectral else STFT(n_fft, hop_length, "sqrt_hann")

    @property
    def fs(self) -> int:
        """Sampling rate in Hz of all audio going in and out."""
        return getattr(self.encoder, "sample_rate", self.sample_rate)

    @property
    def time_pool(self) -> int:
        """Frames of the spectrum in a frame of the activity; 1 without a classifier."""
        return int(getattr(self.classifier, "time_pool", 1))

    @property
    def grid(self) -> int:
        """Samples: chunks should start on multiples, so that the activity's frames agree."""
        return self.hop * self.time_pool * -(-GRID_FRAMES // self.time_pool)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def separate(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`[B, T]` to `[B, S, T]`: the classes in order, then the residual where there is one.

        Args:
            lengths: `[B]` samples that count in each item.

        Raises:
            ValueError: a model of the part `classifier`.
        """
        if self.separator is None:
            raise ValueError("this model is a classifier alone, it separates nothing")
        whole = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        feature, flens = self.encoder(wave, whole if lengths is None else lengths)
        masked, _, _ = self.separator(feature, flens, {})
        return torch.stack([self.decoder(m, whole)[0] for m in masked], 1)

    def classify(self, wave: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Probabilities of the classes in `[B, T]`: of frames `[B, L', K]`, of the clip `[B, K]`.

        Raises:
            ValueError: a model without a classifier (trained from strong labels).
        """
        if self.classifier is None:
            raise ValueError("this model has no classifier")
        whole = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        spec, frames = self._spectrum(wave, whole if lengths is None else lengths)
        logits = self.classifier(spec.abs(), frames)
        clip = self.classifier.pool(logits, self.classifier.frames(frames))
        return logits.sigmoid().transpose(1, 2), clip.sigmoid()

    def _spectrum(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Complex `[B, L, F]` that the classifier judges and losses compare, and frames `[B]`."""
        if self.stft is None:
            return self.encoder(wave, lengths)
        own = torch.arange(wave.shape[1], device=wave.device) < lengths.to(wave.device)[:, None]
        return self.stft(wave * own), self.stft.frames(lengths)
