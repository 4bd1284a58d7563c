"""Changes of a sound that leave its class: speed, colour, room, bandwidth, clipping, coarse samples."""

from collections.abc import Callable, Sequence

import numpy as np

from espnet2_ext.errors import DataError

_COLOUR_HZ = np.geomspace(60, 15000, 7)
_MU = 255.0  # of the mu-law


class Augment:
    """Draws `Effects`; each of them is there with a chance of `prob`, and none changes the level (RMS).

    Args:
        prob: chance of each effect.
        speed: largest factor on speed and pitch together, of both directions; 1: never.
        colour_db: largest gain at each of 7 frequencies from 60 Hz to 15 kHz, with straight lines between; 0: never.
        reverb: [shortest, longest] reverberation time (RT60) in seconds of an exponentially decaying noise, 0 to 15 dB
            below the direct sound; null: never.
        lowpass: lowest cutoff in Hz of a low-pass of fourth order, as of a low sample rate; null: never.
        clip: lowest level at which the peaks are cut, as a share of the highest; 1: never.
        coarse: whether samples may be rounded to 8 bits by mu-law, as in telephony.

    Raises:
        DataError: a value out of range.
    """

    def __init__(
        self,
        prob: float = 0.3,
        speed: float = 1.15,
        colour_db: float = 8.0,
        reverb: Sequence[float] | None = (0.1, 0.8),
        lowpass: float | None = 3000.0,
        clip: float = 0.2,
        coarse: bool = True,
    ):
        self.prob, self.speed, self.colour_db, self.reverb = prob, speed, colour_db, reverb
        self.lowpass, self.clip, self.coarse = lowpass, clip, coarse
        for name, value, low, high in (
            ("prob", prob, 0, 1),
            ("speed", speed, 1, 2),
            ("colour_db", colour_db, 0, 40),
            ("lowpass", lowpass, 100, np.inf),
            ("clip", clip, 0.01, 1),
        ):
            if value is not None and not low <= value <= high:
                raise DataError(f"augment: {name} must be between {low} and {high}; got {value}")
        if reverb is not None and not (len(reverb) == 2 and 0.02 <= reverb[0] <= reverb[1] <= 5):
            raise DataError(f"augment: reverb must be [shortest, longest] within 0.02 and 5 seconds; got {reverb}")

    def draw(self, rng: np.random.Generator, speed: bool = True) -> "Effects | None":
        """The effects on one sound; None where there are none. `speed`: whether it may be played faster or slower."""
        faster, colour, reverb, lowpass, clip, coarse = rng.random(6) < self.prob
        log_speed = np.log(self.speed)
        effects = Effects(
            rng,
            speed=float(np.exp(rng.uniform(-log_speed, log_speed))) if faster and speed else 1.0,
            colour=rng.uniform(-self.colour_db, self.colour_db, len(_COLOUR_HZ)) if colour and self.colour_db else None,
            reverb=(rng.uniform(self.reverb[0], self.reverb[1]), rng.uniform(0, 15))
            if reverb and self.reverb
            else None,
            cutoff=float(self.lowpass * np.exp(rng.random() * np.log(4))) if lowpass and self.lowpass else None,
            clip=float(np.exp(rng.random() * np.log(self.clip))) if clip else 1.0,
            coarse=bool(coarse and self.coarse),
        )
        return effects if effects.any else None

    def read(self, bank, clip: int, start: int, num: int, seed: Sequence[int], speed: bool = True) -> np.ndarray:
        """A part of a clip of a bank, float32 [num], changed as `seed` says; `speed` as in `draw`."""
        effects = self.draw(np.random.default_rng(seed), speed)
        return effects(lambda n: bank.read(clip, start, n), num, bank.fs) if effects else bank.read(clip, start, num)


class Effects:
    """Effects on one sound, see `Augment`; `rng` makes the reverberation's noise."""

    def __init__(self, rng, *, speed=1.0, colour=None, reverb=None, cutoff=None, clip=1.0, coarse=False):
        self.rng, self.speed, self.colour, self.reverb = rng, speed, colour, reverb
        self.cutoff, self.clip, self.coarse = cutoff, clip, coarse

    @property
    def any(self) -> bool:
        """Whether there is one."""
        linear = self.speed != 1 or self.colour is not None or self.reverb is not None or self.cutoff is not None
        return linear or self.clip < 1 or self.coarse

    def __call__(self, read: Callable[[int], np.ndarray], num: int, fs: int) -> np.ndarray:
        """float32 [num].

        Args:
            read: gives as many samples of the sound as it is asked for. fs: their rate in Hz.
        """
        x = read(num) if self.speed == 1 else _resampled(read, num, self.speed)
        level = np.sqrt(np.mean(np.square(x, dtype=np.float64)))
        if level == 0.0:
            return x
        if self.colour is not None or self.cutoff is not None or self.reverb is not None:
            x = self._filtered(x, fs)
        if self.clip < 1:
            top = np.abs(x).max() * self.clip
            x = np.clip(x, -top, top)
        if self.coarse:
            top = max(np.abs(x).max(), 1e-12)
            code = np.round(np.sign(x) * np.log1p(_MU * np.abs(x) / top) / np.log1p(_MU) * 127) / 127
            x = np.sign(code) * np.expm1(np.abs(code) * np.log1p(_MU)) / _MU
        after = np.sqrt(np.mean(np.square(x, dtype=np.float64)))
        return (x * (level / max(after, 1e-12))).astype(np.float32)

    def _filtered(self, x, fs):
        tail = round(fs * self.reverb[0]) if self.reverb else round(0.02 * fs)
        n = 1 << int(np.ceil(np.log2(len(x) + tail)))
        hz = np.fft.rfftfreq(n, 1 / fs)
        response = np.ones(len(hz))
        if self.colour is not None:
            db = np.interp(np.log(np.maximum(hz, 1.0)), np.log(_COLOUR_HZ), self.colour)
            response = response * 10 ** (db / 20)
        if self.cutoff is not None:
            response = response / np.sqrt(1 + (hz / self.cutoff) ** 8)
        if self.reverb is not None:
            seconds, below_db = self.reverb
            room = self.rng.standard_normal(tail) * 10 ** (-3 * np.arange(tail) / tail)  # -60 dB after `seconds`
            room *= 10 ** (-below_db / 20) / np.sqrt(np.sum(np.square(room)))
            room[0] = 1.0
            response = response * np.fft.rfft(room, n)
        return np.fft.irfft(np.fft.rfft(x, n) * response, n)[: len(x)]


def _resampled(read, num, speed):
    """`num` samples of a sound played `speed` times as fast; exact within the band."""
    taken = max(1, round(num * speed))
    if taken > 1 << 13:
        taken = round(taken / 256) * 256  # a length that the FFT likes
    x = np.fft.rfft(read(taken))
    return np.fft.irfft(x[: num // 2 + 1], num).astype(np.float32) * np.float32(num / taken)
