"""Where in a clip the segment begins that is mixed or asked with.

Energies come from the banks' envelope (mean-square energy of each 100 ms), so that no audio is
read to choose a segment.
"""

import numpy as np

ENVELOPE_RATE = 10  # frames a second
ANCHORS = ("peak", "sampled", "random", "whole")


def segment_energies(envelope, samples: int, num: int, hop: float):
    """Energy of the segments of `num` samples that start on the envelope's frames, or end last.

    Args:
        envelope: [L] mean-square energy of each `hop` samples; the last frame may be shorter.
        samples: length of the clip.

    Returns:
        starts int64 [N] in samples, ascending; energies float64 [N] (sums of squares).
    """
    last = max(samples - num, 0)
    starts = (np.arange(int(last / hop) + 1) * hop).astype(np.int64)
    if starts[-1] != last:
        starts = np.append(starts, last)
    edges = np.minimum(np.arange(len(envelope) + 1) * hop, samples)
    total = np.concatenate(([0.0], np.cumsum(np.diff(edges) * envelope)))
    return starts, np.interp(starts + num, edges, total) - np.interp(starts, edges, total)


def peak_start(bank, clip: int, num: int) -> int:
    """Start of the most energetic `num` samples of a clip; the first of equals."""
    starts, energy = _energies(bank, clip, num)
    # sums of equal frames differ in the last bits, which must not decide
    return int(starts[np.argmax(energy >= energy.max() * (1 - 1e-9))])


def sampled_start(rng: np.random.Generator, bank, clip: int, num: int) -> int:
    """A start on the envelope's frames, with probability proportional to its segment's energy."""
    starts, energy = _energies(bank, clip, num)
    total = np.cumsum(energy if energy.any() else np.ones_like(energy))
    i = np.searchsorted(total, rng.random() * total[-1], side="right")
    return int(starts[min(i, len(starts) - 1)])


def choose_start(anchor: str, rng: np.random.Generator, bank, clip: int, num: int) -> int:
    """Start of a segment of `num` samples by one of `ANCHORS`; 0 where the clip is no longer."""
    samples = bank.num_samples(clip)
    if anchor == "whole" or samples <= num:
        return 0
    if anchor == "peak":
        return peak_start(bank, clip, num)
    if anchor == "sampled":
        return sampled_start(rng, bank, clip, num)
    return int(rng.integers(samples - num + 1))


def _energies(bank, clip, num):
    hop = bank.fs / ENVELOPE_RATE
    return segment_energies(bank.envelope(clip), bank.num_samples(clip), num, hop)
