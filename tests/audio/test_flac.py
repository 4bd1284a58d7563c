"""Parts of a FLAC file decode to the very samples, at any rate, length and place."""

import numpy as np
import pytest
import soundfile
from sounds import noise

from espnet2_ext.audio import flac
from espnet2_ext.audio.flac import BLOCK, STRIDE, decode_flac, decode_frames, encode_flac, seek_points, to_int16
from espnet2_ext.audio.read import FlacArkWriter, read_audio
from espnet2_ext.errors import DataError
from espnet2_ext.util.tables import read_scp

STEP = BLOCK * STRIDE


def crop(data, points, samples, fs, start, num):
    first = start // STEP
    part = data[points[first] :]
    return decode_frames(part, first * STRIDE, samples, fs, start, num)


@pytest.mark.parametrize("fs", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 12000, 37800])
def test_every_rate_has_its_seek_points(fs):
    x = noise(3 * STEP, level=0.9)
    data = encode_flac(to_int16(x), fs)
    points = seek_points(data, len(x), fs)
    assert len(points) == 3 and all(points)
    y = crop(data, points, len(x), fs, STEP + 5000, 3000)
    assert np.array_equal(y, x[STEP + 5000 : STEP + 8000])


@pytest.mark.parametrize(
    "num",
    [
        1,
        192,
        200,
        256,
        257,
        1000,
        4095,
        4096,
        4097,
        STEP,
        STEP + 1,
        STEP + 100,
        STEP + 576,
        STEP + 2048,
        2 * STEP + 4096 + 300,
        100_000,
    ],
)
def test_crops_are_exact(num):
    x = noise(num, level=0.9)
    data = encode_flac(to_int16(x), 32000)
    points = seek_points(data, num, 32000)
    assert np.array_equal(decode_flac(data), x)
    assert len(points) == -(-num // STEP) and all(points)
    rng = np.random.default_rng(0)
    cases = [(0, num), (num - 1, 1), (0, 1)]
    for _ in range(40):
        start = int(rng.integers(0, num))
        cases.append((start, int(rng.integers(1, num - start + 1))))
    for start, length in cases:
        y = crop(data, points, num, 32000, start, length)
        assert y.dtype == np.float32 and np.array_equal(y, x[start : start + length])


def test_frame_numbers_of_one_two_and_three_bytes():
    pcm = np.zeros(BLOCK * 2100, np.int16)
    pcm[::BLOCK] = np.arange(2100)
    data = encode_flac(pcm, 8000)
    points = seek_points(data, len(pcm), 8000)
    assert len(points) == 525 and all(np.diff(points.astype(int)) > 0)
    for frame in (126, 127, 128, 2046, 2047, 2048, 2098):
        assert crop(data, points, len(pcm), 8000, frame * BLOCK, BLOCK + 1)[0] * 32768 == frame


@pytest.mark.parametrize("n", [0, 127, 128, 2047, 2048, 65535, 65536, 0x10FFFF])
def test_coded_number_is_that_of_utf8(n):
    assert flac._coded_number(n) == chr(n).encode()


def test_what_cannot_be_cut_gives_none():
    x = noise(3 * STEP)
    data = encode_flac(to_int16(x), 32000)
    points = seek_points(data, len(x), 32000)
    assert not seek_points(data, len(x), 44100).any()  # not a stream of that rate
    assert crop(data[: points[1] + 100], points, len(x), 32000, STEP, 9000) is None
    hurt = data[: points[1] + 50] + bytes(300) + data[points[1] + 350 :]
    assert crop(hurt, points, len(x), 32000, STEP, 9000) is None


def test_a_decoder_that_cannot_start_late_is_noticed(monkeypatch):
    class Refuses(flac.Stream):
        def read(self, *args, **kwargs):
            raise soundfile.SoundFileRuntimeError("no")

    flac._parts_decode.cache_clear()
    monkeypatch.setattr(flac, "Stream", Refuses)
    try:
        assert not flac._parts_decode()
    finally:
        monkeypatch.undo()
        flac._parts_decode.cache_clear()
    assert flac._parts_decode()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_to_16_bits(dtype):
    x = np.array([0, 1, -1, 0.5, 2, -2, 1.5 / 32768, 2.5 / 32768], dtype)
    want = [0, 32767, -32768, 16384, 32767, -32768, 2, 2]
    assert to_int16(x).tolist() == want
    grid = np.arange(-32768, 32768, dtype=np.int16)
    assert np.array_equal(to_int16(grid.astype(dtype) / 32768), grid)


@pytest.mark.parametrize("fs", [11025, 16000, 32000, 45670, 127000])
@pytest.mark.parametrize("channels, bits", [(1, 16), (2, 24)])
def test_a_flipped_bit_anywhere_in_an_archive_is_noticed_or_harmless(tmp_path, fs, channels, bits):
    x = 0.3 * np.sin(np.arange(9000 * channels) * 0.05).reshape(-1, channels)
    with FlacArkWriter(tmp_path, "a", fs, bits) as archive:
        for key in ("one", "two", "three"):
            archive.write(key, x)
    places = read_scp(tmp_path / "a.scp")
    whole = (tmp_path / "a.ark").read_bytes()
    first, end = (int(places[key].rpartition(":")[2]) for key in ("two", "three"))
    right, noticed = read_audio(places["two"]), 0
    for bit in [*range(8 * first, 8 * (first + 60)), *range(8 * (first + 60), 8 * (end - 6), 1 + (end - first) // 9)]:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.ark").write_bytes(data)
        try:
            y, rate = read_audio(places["two"])
            assert rate == fs and np.array_equal(y, right[0]), bit
        except DataError as e:
            assert "a.ark:" in str(e)
            noticed += 1
    assert noticed > 200
