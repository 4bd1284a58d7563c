"""Separate with numpy and onnxruntime alone: separate_onnx.py DIR mix.wav query.wav out.wav [query2.wav out2.wav]...

DIR: what `espnet2-ext export` wrote, for so many queries. Sounds: WAV of 16 bits at the model's rate, minutes at most.
"""

import sys
import wave

import numpy as np
import onnxruntime


def read(path, fs):
    with wave.open(path) as f:
        if (f.getsampwidth(), f.getframerate()) != (2, fs):
            sys.exit(f"error: {path}: must be a WAV of 16 bits at {fs} Hz")
        return np.frombuffer(f.readframes(f.getnframes()), "<i2").reshape(-1, f.getnchannels()).T / 32768  # [C, T]


def stft(x, window, hop):
    half = len(window) // 2
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (half, half))), len(window), 1)[:, ::hop]
    return np.fft.rfft(frames * window)  # [C, L, F]


def istft(spec, window, hop, length):
    frames = np.fft.irfft(spec, len(window)) * window
    out, norm = (np.zeros((n, frames.shape[1] * hop + len(window))) for n in (len(spec), 1))
    for i in range(frames.shape[1]):
        out[:, i * hop : i * hop + len(window)] += frames[:, i]
        norm[:, i * hop : i * hop + len(window)] += window**2
    return (out / np.maximum(norm, 1e-8))[:, len(window) // 2 :][:, :length]


def sounding(x, fs, path):  # the mean of a query's channels, [1, T], without silence at its ends
    x, size, margin = x.mean(0, keepdims=True), fs // 50, fs // 20
    rms = np.sqrt((np.pad(x[0], (0, -x.shape[1] % size)).reshape(-1, size) ** 2).mean(1))
    at = np.flatnonzero(rms >= max(10 ** (-90 / 20), 10 ** (-50 / 20) * rms.max(initial=0)))
    if not len(at):
        sys.exit(f"error: {path}: is silent, so it cannot serve as a query")
    return x[:, max(0, at[0] * size - margin) : (at[-1] + 1) * size + margin]


def inputs(x, window, hop, grid):  # of a sound [C, T]: the spectrum of its mean, in real pairs, on whole grids
    spec = stft(x.mean(0, keepdims=True), window, hop)
    pairs = np.stack([spec.real, spec.imag], -1).astype(np.float32)
    padded = np.pad(pairs, ((0, 0), (0, -spec.shape[1] % grid), (0, 0), (0, 0)))
    return {"spec": padded, "frames": np.array([spec.shape[1]])}


def main(folder, mix, *files):  # query, output, query, output, ...
    encoder, separator = (onnxruntime.InferenceSession(f"{folder}/{name}.onnx") for name in ("query", "separator"))
    about = separator.get_modelmeta().custom_metadata_map
    fs, n_fft, hop, grid = (int(about[name]) for name in ("fs", "n_fft", "hop", "grid_frames"))
    window, x = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft), read(mix, fs)
    queries = [sounding(read(q, fs), fs, q) for q in files[::2]]
    asked = np.concatenate([encoder.run(None, inputs(q, window, hop, grid))[0] for q in queries])
    rms = np.sqrt((x.mean(0) ** 2).mean(keepdims=True)).astype(np.float32)
    given = inputs(x, window, hop, grid) | {"rms": rms, "query": asked}
    masks, spec = separator.run(None, given)[0], stft(x, window, hop)  # [Q, L, F], [C, L, F]
    for mask, out in zip(masks, files[1::2]):
        estimate = istft(spec * mask[: spec.shape[1]], window, hop, x.shape[1])
        with wave.open(out, "wb") as f:
            f.setparams((len(x), 2, fs, 0, "NONE", ""))
            f.writeframes((estimate.T * 32768).round().clip(-32768, 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 4 else sys.exit(__doc__)
