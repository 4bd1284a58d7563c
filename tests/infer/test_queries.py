"""Files, folders, arrays and saved vectors as queries."""

import numpy as np
import pytest
from standin import noise

from espnet2_ext.errors import DataError
from espnet2_ext.infer.queries import (
    Span,
    agreement_of,
    parse_query,
    query_digests,
    query_files,
    query_name,
    query_parts,
    read_query,
    read_saved,
    save_query,
    trim_silence,
    windows,
)
from espnet2_ext.infer.vectors.class_queries import usual_agreement


def tone(hz, seconds=1.0, fs=16000, channels=1):
    t = np.arange(round(seconds * fs))[:, None] / fs
    return (0.3 * np.sin(2 * np.pi * hz * t)).repeat(channels, 1).astype(np.float32)


def test_silence_is_trimmed():
    x = np.zeros(16000, np.float32)
    x[5000:9000] = 0.5
    cut = trim_silence(x, 16000)
    frame, margin = 320, 800
    first, last = 5000 // frame * frame - margin, -(-9000 // frame) * frame + margin
    np.testing.assert_array_equal(cut, x[first:last])
    assert len(trim_silence(np.zeros(100, np.float32), 16000)) == 0
    assert len(trim_silence(np.full(100, 1e-6, np.float32), 16000)) == 0
    np.testing.assert_array_equal(trim_silence(x[5000:5007], 16000), x[5000:5007])


def test_windows_cover_evenly():
    x = np.arange(25)
    np.testing.assert_array_equal(windows(x, 30), x[None])
    w = windows(x, 10)
    assert w.shape == (3, 10) and w[0, 0] == 0 and w[-1, -1] == 24
    assert set(w.ravel()) == set(x)


def test_agreement():
    v = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    lowest, pair = agreement_of(v)
    assert lowest == pytest.approx(0.0) and pair == (0, 1)
    assert agreement_of(v[:1]) == (1.0, (0, 0))
    assert agreement_of(v[[2, 2]])[0] == pytest.approx(1.0)


def test_usual_agreement():
    """Three pairs within a class, of cosines 0, 0.6 and 0.8; pairs of two classes do not count."""
    v = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    names = ["dog", "dog", "dog", "cat"]
    assert usual_agreement(v, names, 0.0) == pytest.approx(0.0)
    assert usual_agreement(v, names, 0.5) == pytest.approx(0.6)
    assert usual_agreement(v, names, 1.0) == pytest.approx(0.8)
    assert usual_agreement(v[2:], names[2:]) is None


def test_rate_channels_and_silence_do_not_matter(separator, wav):
    """A tone is a tone: at 16 kHz mono, at 44.1 kHz stereo, between silences, as file or array."""
    expected = separator.embed_one(tone(500), 16000)
    gap = np.zeros((20000, 2), np.float32)
    others = [
        wav("stereo.wav", tone(500, 1.0, 44100, 2), 44100, "FLOAT"),
        wav("gaps.flac", np.concatenate([gap, tone(500, channels=2), gap])),
    ]
    for other in others:
        e = separator.embed_one(other)
        assert agreement_of(np.stack([e, expected]))[0] > 0.99
    assert agreement_of(np.stack([separator.embed_one(tone(3000), 16000), expected]))[0] < 0.9


def test_long_query_is_the_mean_of_its_windows(separator):
    x = noise(25, 16000)
    parts = [separator.embed_one(x[s : s + 160000], 16000) for s in (0, 120000, 240000)]
    np.testing.assert_allclose(separator.embed_one(x, 16000), np.mean(parts, 0), atol=1e-5)


def test_several_are_averaged(separator, wav, tmp_path):
    for hz in (500, 510):
        wav(f"dogs/{hz}.wav", tone(hz))
    (tmp_path / "dogs" / "notes.txt").write_text("not a sound")
    single = [separator.embed_one(tmp_path / "dogs" / f"{hz}.wav") for hz in (500, 510)]
    vector, agreement = separator.embed_queries([tmp_path / "dogs"])
    np.testing.assert_allclose(vector, np.mean(single, 0), atol=1e-6)
    assert agreement == pytest.approx(agreement_of(np.stack(single))[0], abs=1e-6)
    one, agreement = separator.embed_queries([tmp_path / "dogs" / "500.wav"])
    np.testing.assert_array_equal(one, single[0])
    assert agreement == 1.0


def test_disagreement_is_warned_of(separator, wav, caplog):
    a, b, c = (wav(f"{hz}.wav", tone(hz)) for hz in (500, 520, 6000))
    separator.agreement = 0.9
    separator.embed_queries([a, b])
    assert not caplog.text
    _, agreement = separator.embed_queries([a, b, c])
    assert agreement < 0.9 and "disagree" in caplog.text and "6000.wav" in caplog.text


def test_saved_vector(separator, tmp_path):
    vector = separator.embed_one(tone(500), 16000)
    np.save(tmp_path / "q.npy", vector)
    np.testing.assert_array_equal(separator.embed_queries([tmp_path / "q.npy"])[0], vector)
    np.save(tmp_path / "wide.npy", np.ones(9, np.float32))
    np.save(tmp_path / "int.npy", np.ones(8, np.int64))
    np.save(tmp_path / "nan.npy", np.full(8, np.nan, np.float32))
    (tmp_path / "text.npy").write_text("no")
    for name, message in (
        ("wide", r"holds \[9\] values, this model\'s queries are \[8\]"),
        ("int", "int64"),
        ("nan", "not finite"),
        ("text", "is not a whole .npy file"),
    ):
        with pytest.raises(DataError, match=message) as e:
            separator.embed_queries([tmp_path / f"{name}.npy"])
        assert f"{name}.npy" in str(e.value)


def test_bad_queries(separator, wav, tmp_path):
    (tmp_path / "folder").mkdir()
    nan = tone(500)
    nan[100] = np.nan
    bad = {
        tmp_path / "dog.wav": "no such file or folder",
        tmp_path / "folder": "no sound file",
        wav("silent.wav", np.zeros(16000)): "is silent",
        wav("nan.wav", nan, subtype="FLOAT"): "not numbers",
    }
    for path, message in bad.items():
        with pytest.raises(DataError, match=message) as e:
            separator.embed_queries([wav("good.wav", tone(500)), path])
        assert str(path) in str(e.value)
    with pytest.raises(DataError, match="no query given"):
        separator.embed_queries([])
    with pytest.raises(DataError, match="rate fs"):
        separator.embed_queries([tone(500)])
    with pytest.raises(DataError, match="silent"):
        read_query(np.zeros(100), 16000, 16000)


def test_short_query_is_told(separator, caplog):
    separator.embed_one(tone(500, 0.1), 16000)
    assert "only 0.1" in caplog.text


def test_a_flipped_bit_in_a_saved_query_is_noticed(tmp_path):
    vector, path = np.linspace(-1, 1, 5, dtype=np.float32), tmp_path / "q.npy"
    save_query(path, vector, "a1b2")
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            found, _ = read_saved(path)
            assert np.array_equal(found, vector) and bit // 8 < whole.index(b'{"espnet2_ext'), bit
        except DataError as e:
            assert "q.npy" in str(e)


# ---- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fs", [16000, 44100])
def test_a_span_is_the_samples_between_its_times(separator, wav, fs):
    x = noise(3, fs, 2)
    mix = wav("mix.wav", x, fs, "FLOAT")
    first, last = round(0.7 * fs), round(1.25 * fs)
    expected = read_query(x[first:last], 16000, fs)
    np.testing.assert_array_equal(read_query(f"{mix}@0.7-1.25", 16000), expected)
    np.testing.assert_array_equal(read_query(Span(mix, 0.7, 1.25), 16000), expected)
    np.testing.assert_array_equal(separator.embed_one(f"{mix}@.7-1.25"), separator.embed_one(expected, 16000))
    whole = read_query(f"{mix}@0-3", 16000)  # to the last sample
    np.testing.assert_array_equal(whole, read_query(mix, 16000))


def test_spans_are_averaged_with_other_queries(separator, wav):
    mix, dog = wav("mix.wav", noise(2, 16000), subtype="FLOAT"), wav("dog.wav", tone(500))
    single = [separator.embed_one(q) for q in (f"{mix}@0-0.5", f"{mix}@1-2", dog)]
    mean, _ = separator.embed_queries([f"{mix}@0-0.5", f"{mix}@1-2", dog])
    np.testing.assert_allclose(mean, np.mean(single, 0), atol=1e-6)


def test_bad_spans(separator, wav, tmp_path):
    mix = wav("mix.wav", noise(2, 16000))
    for times, message in (
        ("1-2.001", "the recording ends at 2.0 s"),
        ("2-1", "a span ends after it starts"),
        ("1-1", "a span ends after it starts"),
        ("1-1.19", "is 0.19 s long; a span has 0.2 s or more"),
        ("a-b", "a span is FILE@START-END in seconds"),
        ("1", "a span is FILE@START-END in seconds"),
        ("-1-1", "a span is FILE@START-END in seconds"),
        ("nan-2", "a span is FILE@START-END in seconds"),
        ("0-inf", "a span is FILE@START-END in seconds"),
        ("", "a span is FILE@START-END in seconds"),
    ):
        with pytest.raises(DataError, match=message) as e:
            separator.embed_queries([f"{mix}@{times}"])
        assert str(e.value).startswith(f"{mix}@{times}: ") and "\n" not in str(e.value)
    separator.embed_queries([f"{mix}@1-1.2"])
    with pytest.raises(DataError, match="no.wav: no such file"):
        separator.embed_queries([tmp_path / "no.wav@1-2"])
    with pytest.raises(DataError, match="a span is FILE"):
        separator.embed_queries([f"{tmp_path}@1-2"])
    with pytest.raises(DataError, match="a span ends"):
        Span(mix, 0, float("inf"))
    with pytest.raises(DataError, match=r"mix.wav@0.5-1: is silent"):
        read_query(f"{wav('mix.wav', np.zeros(32000))}@0.5-1", 16000)


def test_a_file_of_exactly_this_name_comes_first(wav, tmp_path):
    wav("mix.wav", noise(2, 16000))
    for name in ("mix.wav@0-1", "a@b.wav"):
        (tmp_path / name).write_bytes((tmp_path / "mix.wav").read_bytes())
        assert query_parts(str(tmp_path / name)) == [tmp_path / name]
        assert len(read_query(tmp_path / name, 16000)) > 31000
    assert parse_query(f"{tmp_path}/a@b.wav@0-1") == Span(tmp_path / "a@b.wav", 0.0, 1.0)
    assert parse_query("tar:a.tar#m.wav@1024+44") == "tar:a.tar#m.wav@1024+44"  # another reference


def test_names_files_and_digests_of_queries(wav, tmp_path):
    mix = wav("mix.wav", noise(2, 16000))
    assert [query_name(q) for q in (f"{mix}@1.50-2", mix, "class:a/b")] == ["mix@1.5-2", "mix", "a_b"]
    assert query_files(f"{mix}@1-2") == query_files(mix) == [mix]
    one, other = f"{mix}@0-1", f"{mix}@1-2"
    assert query_digests([one]) != query_digests([other]) != query_digests([mix])
    assert query_digests([one, other, mix]) == query_digests([mix, other, f"{mix}@0.0-1.0"])
    for query in ("class:dog", "q.npy"):
        with pytest.raises(DataError, match="is no sound"):
            query_parts(query, sounds=True)
