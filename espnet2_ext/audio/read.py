"""Sound in and out through one kind of reference, with libsndfile only.

A reference is a path, `ARCHIVE.ark:OFFSET` (an entry of a Kaldi-style archive), `tar:PATH#MEMBER` or `hdf5:PATH#ROW`.
Two forms spare a search or an argument: `tar:PATH#MEMBER@OFFSET+BYTES` names where the member lies,
`hdf5:PATH#ROW@RATE` the rate of a file without the attribute `sample_rate`.
"""

import contextlib
import functools
import logging
import os
import re
import shutil
from pathlib import Path

import numpy as np
import soxr

from espnet2_ext.audio.files import MissingAudio, open_file, read_at
from espnet2_ext.audio.flac import encode_flac, to_int16, to_int24
from espnet2_ext.audio.optional import Row
from espnet2_ext.audio.sound import Place, Sound
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.tables import write_scp

_ARK = re.compile(r"(.+\.ark):(\d+)")
_TAR = re.compile(r"tar:(.+?)#(.+?)(?:@(\d+)\+(\d+))?")
_HDF5 = re.compile(r"hdf5:(.+)#(\d+)(?:@(\d+))?")
_MARK = b"AUDIO"  # what ESPnet's archive readers want before a sound: mark, width, length


def open_sound(ref: str | os.PathLike) -> Sound | Row:
    """The sound behind a reference (see the module's docstring); a file of that name comes first.

    Raises:
        MissingAudio: no such file, member or row. DataError: what is no sound. Both name `ref`.
    """
    ref = os.fspath(ref)
    if ":" in ref and not os.path.exists(ref):
        if m := _HDF5.fullmatch(ref):
            return Row(ref, m[1], int(m[2]), int(m[3] or 0))
        if m := _TAR.fullmatch(ref):
            return Sound(_member(ref, *m.groups()), ref)
        if m := _ARK.fullmatch(ref):
            return Sound(*_entry(ref, m[1], int(m[2])))
    return Sound(Place(ref))


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
    if start < 0 or (num is not None and num < 0):
        raise ValueError(f"start {start} and num {num} must not be negative")
    sound = open_sound(ref)
    return sound.read(start, num), sound.fs


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


def _entry(ref: str, path: str, offset: int) -> tuple[Place, str, bool]:
    """Place of an archive's entry, behind a length mark as ESPnet writes it or a bare file, and whether its size is
    known: a bare file is decoded to the end of its own stream."""
    with open_file(path) as f:
        head = read_at(f, offset, 14)
        if head[:5] == _MARK and len(head) > 6:
            size = int.from_bytes(head[6 : 6 + head[5]], "little")
            start = offset + 6 + head[5]
            return Place(path, start, start + size), ref, True
        if head[:4] in (b"fLaC", b"RIFF", b"OggS"):
            return Place(path, offset, os.fstat(f.fileno()).st_size), ref, False
    raise DataError(f"{ref}: no sound at this offset")


def _member(ref: str, path: str, name: str, offset: str, size: str) -> Place:
    """Place of a member of a tar file, found by its offset or through the file's index."""
    with open_file(path) as f:
        if offset is None:
            st = os.fstat(f.fileno())
            place = _tar_index(path, st.st_mtime_ns, st.st_size).get(name)
            if place is None:
                raise MissingAudio(f"{ref}: no such member")
        else:
            place = int(offset), int(size)
        block = read_at(f, max(0, place[0] - 512), 512)
        if block[257:262] != b"ustar" or sum(place) > os.fstat(f.fileno()).st_size:
            raise DataError(f"{ref}: the tar file has changed since it was listed, or is cut off")
    return Place(path, place[0], sum(place))


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
    except (tarfile.TarError, OSError, ValueError) as e:
        raise DataError(f"{path}: not an uncompressed tar file: {e}") from e


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
