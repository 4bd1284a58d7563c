"""Sound in and out through one kind of reference, with libsndfile only.

A reference is a path, `ARCHIVE.ark:OFFSET` (an entry of a Kaldi-style archive), `tar:PATH#MEMBER` or `hdf5:PATH#ROW`.
Two forms spare a search or an argument: `tar:PATH#MEMBER@OFFSET+BYTES` names where the member lies,
`hdf5:PATH#ROW@RATE` the rate of a file without the attribute `sample_rate`.
"""

import contextlib
import functools
import io
import logging
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from espnet2_ext.audio.flac import Stream, encode_flac, pull, to_int16, to_int24
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.tables import write_scp

_ARK = re.compile(r"(.+\.ark):(\d+)")
_TAR = re.compile(r"tar:(.+?)#(.+?)(?:@(\d+)\+(\d+))?")
_HDF5 = re.compile(r"hdf5:(.+)#(\d+)(?:@(\d+))?")
_ENDLESS = 1 << 60
_MARK = b"AUDIO"  # what ESPnet's archive readers want before a sound: mark, width, length


class MissingAudio(DataError):
    """The file, member or row that a reference names does not exist."""


def read_audio(ref: str | os.PathLike, start: int = 0, num: int | None = None) -> tuple[np.ndarray, int]:
    """Read a sound or a part of it.

    Args:
        ref: see the module's docstring.
        start: first sample. num: how many; None: all that follow. A sound that ends before gives fewer, unpadded.

    Returns:
        float32 [T, C], full scale 1.0, and the rate in Hz.

    Raises:
        MissingAudio: no such file, member or row.
        DataError: what cannot be decoded, or ends before the length in its header. Both name `ref`.
    """
    ref = os.fspath(ref)
    if start < 0 or (num is not None and num < 0):
        raise ValueError(f"start {start} and num {num} must not be negative")
    if m := _HDF5.fullmatch(ref):
        return _read_row(ref, m[1], int(m[2]), m[3], start, num)
    if m := _TAR.fullmatch(ref):
        return _decode(ref, _open_member(ref, *m.groups()), start, num)
    if m := _ARK.fullmatch(ref):
        return _decode(ref, _open_entry(ref, m[1], int(m[2])), start, num)
    if not os.path.isfile(ref):
        raise MissingAudio(f"{ref}: no such file")
    return _decode(ref, ref, start, num)


def read_mono(ref: str | os.PathLike, fs: int | None = None) -> np.ndarray:
    """Read a whole sound as the mean of its channels, resampled to `fs` Hz if given: float32 [T].

    Raises:
        DataError: as `read_audio`, and for a sound that holds NaN or infinity.
    """
    x, rate = read_audio(ref)
    if not np.isfinite(x).all():
        raise DataError(f"{ref}: holds NaN or infinity")
    x = to_mono(x)
    return x if fs is None else resample(x, rate, fs)


def to_mono(x: np.ndarray) -> np.ndarray:
    """Mean of the channels: float32 [T, C] -> [T]."""
    y = x[:, 0].copy()
    for c in range(1, x.shape[1]):  # a sum by columns: four times as fast as `mean` over pairs
        y += x[:, c]
    return y if x.shape[1] == 1 else y / np.float32(x.shape[1])


def resample(x: np.ndarray, fs_in: int, fs_out: int) -> np.ndarray:
    """Resample [T] or [T, C] from `fs_in` to `fs_out` Hz with soxr HQ; same rank, float32.

    Raises:
        ValueError: another rank, or a rate that is not positive.
    """
    if x.ndim not in (1, 2) or fs_in <= 0 or fs_out <= 0:
        raise ValueError(f"cannot resample shape {x.shape} from {fs_in} to {fs_out} Hz")
    x = np.ascontiguousarray(x, np.float32)
    return x if fs_in == fs_out else soxr.resample(x, fs_in, fs_out, quality="HQ")


def _decode(ref: str, file: str | BinaryIO, start: int, num: int | None) -> tuple[np.ndarray, int]:
    """Decode what libsndfile reads; `ref` is for messages."""
    try:
        with Stream(file) as f:
            start = min(start, f.frames)
            want = f.frames - start if num is None else min(num, f.frames - start)
            if start:
                f.seek(start)
            x = pull(f, want)
            rate, frames = f.samplerate, f.frames
            if frames > _ENDLESS:  # a stream whose header has no length
                want = len(x)
    except (soundfile.SoundFileError, OSError) as e:
        reason = getattr(e, "error_string", None) or e
        raise DataError(f"{ref}: cannot be decoded: {reason}") from e
    if len(x) < want:
        raise DataError(f"{ref}: ends at sample {start + len(x)} of {frames}")
    return x, rate


def _open_entry(ref: str, path: str, offset: int) -> BinaryIO:
    """Bytes of one archive entry: behind a length mark as ESPnet writes it, or a bare FLAC file."""
    try:
        with open(path, "rb") as f:
            f.seek(offset)
            head = f.read(6)
            if head[:5] == _MARK and len(head) == 6:
                size = int.from_bytes(f.read(head[5]), "little")
            elif head[:4] in (b"fLaC", b"RIFF", b"OggS"):
                f.seek(offset)
                size = -1  # no length: the decoder stops at the end of its own stream
            else:
                raise DataError(f"{ref}: no sound at this offset")
            data = f.read(size)
    except FileNotFoundError:
        raise MissingAudio(f"{ref}: no such file") from None
    if len(data) < size:
        raise DataError(f"{ref}: the archive ends within this entry")
    return io.BytesIO(data)


def _open_member(ref: str, path: str, name: str, offset: str, size: str) -> BinaryIO:
    """Bytes of one member of a tar file, found by its place or through the file's index."""
    try:
        if offset is None:
            st = os.stat(path)
            place = _tar_index(path, st.st_mtime_ns, st.st_size).get(name)
            if place is None:
                raise MissingAudio(f"{ref}: no such member")
        else:
            place = int(offset), int(size)
        with open(path, "rb") as f:
            f.seek(place[0] - 512)
            block = f.read(512)
            data = f.read(place[1])
    except FileNotFoundError:
        raise MissingAudio(f"{ref}: no such file") from None
    if block[257:262] != b"ustar" or len(data) < place[1]:
        raise DataError(f"{ref}: the tar file has changed since it was listed, or is cut off")
    return io.BytesIO(data)


@functools.lru_cache(maxsize=8)
def _tar_index(path: str, mtime_ns: int, size: int) -> dict[str, tuple[int, int]]:
    return {name: (offset, length) for name, offset, length in tar_members(path)}


def tar_members(path: str | os.PathLike) -> list[tuple[str, int, int]]:
    """List the files of an uncompressed tar: (name, offset of the data, bytes), in their order.

    Raises:
        DataError: not a plain tar file (a compressed one cannot be read at random), or cut off.
    """
    import tarfile

    try:
        with tarfile.open(path, "r:") as tar:
            return [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    except tarfile.TarError as e:
        raise DataError(f"{path}: not an uncompressed tar file: {e}") from e


def _read_row(ref: str, path: str, row: int, rate: str | None, start: int, num: int | None) -> tuple[np.ndarray, int]:
    """Read a row of a packed waveform file (datasets `audio_name`, `waveform`)."""
    if not os.path.isfile(path):
        raise MissingAudio(f"{ref}: no such file")
    wave, own_rate = _open_hdf5(os.path.abspath(path), os.getpid())
    rate = int(rate) if rate else own_rate
    if not rate:
        raise DataError(f"{ref}: the file has no attribute sample_rate; give the rate")
    if row >= wave.shape[0]:
        raise MissingAudio(f"{ref}: the file has {wave.shape[0]} rows")
    stop = wave.shape[1] if num is None else min(start + num, wave.shape[1])
    try:
        x = wave[row, min(start, stop) : stop]
    except OSError as e:
        raise DataError(f"{ref}: cannot be decoded: {e}") from e
    scale = 32768 if x.dtype == np.int16 else 1
    return (x.astype(np.float32) / np.float32(scale))[:, None], rate


@functools.lru_cache(maxsize=4)
def _open_hdf5(path: str, pid: int) -> tuple:
    """The waveform dataset and the rate (0: unknown). One a process: a handle outlives no fork."""
    import h5py

    try:
        file = h5py.File(path, "r")
        wave = file["waveform"]
    except (OSError, KeyError) as e:
        raise DataError(f"{path}: not an HDF5 file with a dataset 'waveform': {e}") from e
    if wave.ndim != 2 or wave.dtype not in (np.int16, np.float32):
        raise DataError(f"{path}: waveform is {wave.dtype} {wave.shape}, not int16 [clip, sample]")
    return wave, int(file.attrs.get("sample_rate", 0))


def ark_header(key: str, nbytes: int) -> bytes:
    """What precedes a sound of `nbytes` in an archive: key, blank, mark, width and length."""
    return key.encode() + b" " + _MARK + b"\x08" + nbytes.to_bytes(8, "little")


class FlacArkWriter:
    """Write sounds as FLAC: `DIR/NAME.ark` and `DIR/NAME.scp`, both whole or not at all.

    ESPnet reads them as type `kaldi_ark`. Samples outside full scale are clipped; clips with such
    samples are counted in `clipped` and reported at the end.

    Args:
        dir, name: where. fs: rate in Hz. bits: 16 or 24.
    """

    def __init__(self, dir: str | os.PathLike, name: str, fs: int, bits: int = 16):
        self.to_pcm = {16: to_int16, 24: to_int24}[bits]
        self.ark, self.scp = Path(dir) / f"{name}.ark", Path(dir) / f"{name}.scp"
        self.fs = fs
        self.clipped = 0
        self._places: dict[str, int] = {}

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        tmp = self._stack.enter_context(atomic_path(self.ark))
        self._file = self._stack.enter_context(open(tmp, "wb"))
        return self

    def write(self, key: str, x: np.ndarray) -> None:
        """Add float samples [T] or [T, C] under `key`.

        Raises:
            DataError: a key with a blank or a duplicated one, samples that are not finite.
        """
        x = np.asarray(x)
        if not np.isfinite(x).all():
            raise DataError(f"{self.ark}: {key} holds NaN or infinity")
        self.clipped += bool(np.abs(x).max(initial=0) > 1)
        data = encode_flac(self.to_pcm(x), self.fs)
        self._begin(key, len(data))
        self._file.write(data)

    def add(self, key: str, file: Path) -> None:
        """Copy the FLAC `file`, of any rate and number of channels, into the archive under `key`; errors as `write`."""
        self._begin(key, file.stat().st_size)
        with open(file, "rb") as f:
            shutil.copyfileobj(f, self._file, 1 << 20)

    def _begin(self, key: str, nbytes: int) -> None:
        if not key or any(c.isspace() for c in key) or key in self._places:
            raise DataError(f"{self.ark}: key {key!r} is empty, has a blank, or is duplicated")
        self._places[key] = self._file.tell() + len(key.encode()) + 1
        self._file.write(ark_header(key, nbytes))

    def __exit__(self, *error):
        if error[0] is None:
            self.scp.unlink(missing_ok=True)  # an old table must not point into the new archive
        if self._stack.__exit__(*error) or error[0] is not None:
            return False
        write_scp(self.scp, {key: f"{self.ark}:{at}" for key, at in self._places.items()})
        if self.clipped:
            logging.warning("%s: %d sounds clipped at full scale", self.ark, self.clipped)
        return False
