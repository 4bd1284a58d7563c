"""Lists of pairs and the folders rendered from them, on a bank on disk."""

import dataclasses
import json

import numpy as np
import pytest
from sounds import bank_of

from espnet2_ext.audio.read import read_audio
from espnet2_ext.cli import data as command
from espnet2_ext.core.mixing.pair_drawer import energy_gain, render
from espnet2_ext.core.mixing.pairs import peak_start
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.per_clip import AnchorTable, write_anchors
from espnet2_ext.data.mixtures import render as module
from espnet2_ext.data.mixtures.pair_list import COLUMNS, draw_list, read_list, write_list
from espnet2_ext.data.mixtures.render import pair_sounds, render_pairs
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import parse_json, read_json
from espnet2_ext.util.tables import read_scp

FS = 8000
SIZES = (4, 4, 3, 1)  # clips a class
LEVELS = (0.05, 0.5, 0.9, 0.9)
LSB = 1 / 32768


@pytest.fixture(scope="session")
def pair_bank(tmp_path_factory) -> ClipBank:
    """Noise of 0.6 to 1.2 s; class 1 is related to class 2."""
    rng, waves = np.random.default_rng(0), {}
    for k, n in enumerate(SIZES):
        for i in range(n):
            x = rng.uniform(-LEVELS[k], LEVELS[k], int(FS * rng.uniform(0.6, 1.2)))
            waves[f"clip{k}{i}"] = x, (f"/m/{k}",)
    related = ((), (2,), (1,), ())
    labels = [Label(k, f"/m/{k}", f"Class {k}", related[k]) for k in range(len(SIZES))]
    return bank_of(tmp_path_factory.mktemp("bank"), waves, labels, FS)


@pytest.fixture
def pairs(pair_bank):
    return draw_list(pair_bank, None, 5, segment=0.5, anchor="random")


def test_each_clip_is_the_first_target_once(pair_bank):
    for n in (None, len(pair_bank)):
        pairs = draw_list(pair_bank, n, 3)
        assert [p.clip1 for p in pairs] == [pair_bank.id(i) for i in range(len(pair_bank))]
        assert pairs[0].id == "p000000" and len({p.id for p in pairs}) == len(pairs)
        for p in pairs:
            one, two = (pair_bank.index_of(c) for c in (p.clip1, p.clip2))
            assert p.num == max(pair_bank.num_samples(one), pair_bank.num_samples(two))
            assert p.start1 == p.start2 == 0
    assert draw_list(pair_bank, None, 3) == pairs
    assert draw_list(pair_bank, None, 4) != pairs


def test_rows_of_a_list(pair_bank, pairs):
    related = pair_bank.related
    for p in pairs:
        names = ("clip1", "clip2", "query1", "query2", "absent1", "absent2")
        labels = {c: pair_bank.labels(pair_bank.index_of(getattr(p, c)))[0] for c in names}
        assert not related[labels["clip1"], labels["clip2"]]
        assert labels["query1"] == labels["clip1"] == p.class1
        assert labels["query2"] == labels["clip2"] == p.class2
        assert not related[p.class1, labels["absent1"]] and not related[p.class2, labels["absent2"]]
        assert (p.query1 == p.clip1) == (p.class1 == 3)
        one, two = (
            pair_bank.read(pair_bank.index_of(c), s, p.num) for c, s in ((p.clip1, p.start1), (p.clip2, p.start2))
        )
        assert p.gain2 == energy_gain(one, two)


def test_any_number_is_drawn_balanced(pair_bank):
    pairs = draw_list(pair_bank, 400, 0, segment=0.1, anchor="whole")
    counts = np.bincount([p.class1 for p in pairs])
    assert len(counts) == 4 and np.abs(counts - 100).max() < 35


def test_a_list_comes_back_as_it_was_written(pair_bank, pairs, tmp_path):
    write_list(tmp_path / "pairs.tsv", pairs)
    assert read_list(tmp_path / "pairs.tsv") == pairs
    assert read_list(tmp_path / "pairs.tsv", pair_bank) == pairs


def test_lists_of_levels_and_further_sounds(pair_bank, tmp_path):
    pairs = draw_list(
        pair_bank, 30, 0, segment=0.1, anchor="peak", snr_db=[-5, 20], num_sources=[2, 4], single_prob=0.2
    )
    assert any(p.alone for p in pairs) and any(p.others for p in pairs)
    path = tmp_path / "pairs.tsv"
    write_list(path, pairs)
    assert read_list(path, pair_bank) == pairs
    one = next(p for p in pairs if p.others)
    assert render(one, pair_bank)["mix"].any() and isinstance(one.others[0].gain, float)
    path.write_text(path.read_text().replace(f'["{one.others[0].clip}"', "[7", 1))
    with pytest.raises(DataError, match=r"pairs\.tsv:\d+: others"):
        read_list(path, pair_bank)


@pytest.mark.parametrize(
    "line, column, value, message",
    [
        (3, "clip2", "nobody", "nobody"),
        (2, "absent1", "nobody", "nobody"),
        (4, "num", "many", "num.*'many'"),
        (4, "num", "0", "num"),
        (4, "start1", "-1", "start1"),
        (5, "gain2", "nan", "gain2"),
        (5, "gain2", "None", "gain2"),
        (3, "class1", "3", "class 3"),
        (3, "id", "p000000", "p000000.*duplicated"),
    ],
)
def test_broken_rows_name_file_and_line(pair_bank, pairs, tmp_path, line, column, value, message):
    path = tmp_path / "pairs.tsv"
    write_list(path, pairs)
    lines = [row.split("\t") for row in path.read_text().splitlines()]
    lines[line - 1][COLUMNS.index(column)] = value
    path.write_text("\n".join("\t".join(row) for row in lines) + "\n")
    with pytest.raises(DataError, match=rf"pairs\.tsv:{line}: .*{message}"):
        read_list(path, pair_bank)


def test_broken_lists_name_the_file(pair_bank, pairs, tmp_path):
    path = tmp_path / "pairs.tsv"
    with pytest.raises(DataError, match=r"pairs\.tsv: no such file"):
        read_list(path)
    write_list(path, [])
    with pytest.raises(DataError, match=r"pairs\.tsv: .*no pair"):
        read_list(path)
    write_list(path, pairs, {"seed": 1, "manifest_hash": "another"})
    with pytest.raises(DataError, match=r"pairs\.tsv: drawn from another bank"):
        read_list(path, pair_bank)
    path.write_text(path.read_text().replace("p000001\t", "p000001"))
    with pytest.raises(DataError, match=r"pairs\.tsv: changed since it was made"):
        read_list(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"pairs\.tsv:3: 15 fields"):
        read_list(path)


def tables(out):
    names = ("wav", "spk1", "enroll_self", "enroll_other", "absent")
    found = {name: read_scp(out / f"{name}.scp") for name in names}
    return found | {name: read_scp(out / name) for name in ("utt2class", "utt2labels")}


def sound(reference):
    x, fs = read_audio(reference)
    assert fs == FS
    return x[:, 0]


def test_rendered_folder_is_what_render_gives(pair_bank, pairs, tmp_path):
    about = render_pairs(pairs, pair_bank, tmp_path / "out", seed=5, part_size=5, num_workers=0)
    t = tables(tmp_path / "out")
    assert list(t["wav"]) == [f"{p.id}-{i}" for p in pairs for i in (1, 2)] == sorted(t["wav"])
    lowered = without = 0
    for p in pairs:
        out, (_, factor) = render(p, pair_bank), pair_sounds(p, pair_bank)
        assert factor == 1.0 or np.abs(factor * out["mix"]).max() <= 1.0
        lowered += factor != 1.0
        for i, clip, query, absent in (("1", p.clip1, p.query1, p.absent1), ("2", p.clip2, p.query2, p.absent2)):
            key = f"{p.id}-{i}"
            np.testing.assert_allclose(sound(t["wav"][key]), factor * out["mix"], atol=LSB)
            np.testing.assert_allclose(sound(t["spk1"][key]), factor * out[f"ref{i}"], atol=LSB)
            assert t["enroll_self"][key] == t["spk1"][key]
            if query == clip:
                assert key not in t["enroll_other"]
                without += 1
            else:
                heard = sound(t["enroll_other"][key])
                np.testing.assert_array_equal(heard, out[f"query{i}"])
            row = pair_bank.index_of(absent)
            expected = pair_bank.read(row, peak_start(pair_bank, row, p.num), p.num)
            np.testing.assert_array_equal(sound(t["absent"][key]), expected)
            mid = f"/m/{getattr(p, f'class{i}')}"
            assert t["utt2class"][key] == t["utt2labels"][key] == mid
    assert 0 < lowered < len(pairs) and without > 0
    assert about == read_json(tmp_path / "out" / "list.json")
    assert (about["pairs"], about["keys"], about["fs"], about["seed"]) == (12, 24, FS, 5)
    assert (about["scaled"], about["without_other"]) == (lowered, without)
    assert about["manifest_hash"] == pair_bank.info["manifest_hash"]
    assert read_list(tmp_path / "out" / "pairs.tsv", pair_bank) == pairs
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert not any("parts" in name or name.startswith(".") for name in left)
    assert {n for n in left if n.startswith("audio")} == {f"audio.0000{n}.ark" for n in range(3)}


def test_queries_of_another_bank_where_a_class_has_one_clip(pair_bank, pairs, tmp_path):
    plain = render_pairs(pairs, pair_bank, tmp_path / "plain", num_workers=0)
    about = render_pairs(pairs, pair_bank, tmp_path / "out", query_bank=pair_bank, num_workers=0)
    assert plain["without_other"] > 0 == about["without_other"] and "query_bank" not in plain
    one, two = tables(tmp_path / "plain"), tables(tmp_path / "out")
    lonely = pair_bank.index_of("clip30")
    for p in pairs:
        for i in "12":
            key = f"{p.id}-{i}"
            heard = sound(two["enroll_other"][key])
            if key in one["enroll_other"]:
                np.testing.assert_array_equal(heard, sound(one["enroll_other"][key]))
            else:
                start = peak_start(pair_bank, lonely, p.qnum)
                np.testing.assert_array_equal(heard, pair_bank.read(lonely, start, p.qnum))


def test_a_stopped_rendering_goes_on_and_a_whole_one_is_left(pair_bank, pairs, tmp_path, monkeypatch):
    out, made = tmp_path / "out", []
    real = module.pair_sounds

    def breaks(pair, bank):
        made.append(pair.id)
        if len(made) == 7:
            raise OSError("no space left on device")
        return real(pair, bank)

    monkeypatch.setattr(module, "pair_sounds", breaks)
    with pytest.raises(OSError, match="no space"):
        render_pairs(pairs, pair_bank, out, part_size=5, num_workers=0)
    assert not (out / "list.json").exists() and not (out / "wav.scp").exists()
    render_pairs(pairs, pair_bank, out, part_size=5, num_workers=0)
    assert made[7:] == [p.id for p in pairs[5:]]
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    render_pairs(pairs, pair_bank, out, part_size=5, num_workers=0)
    assert len(made) == 14
    whole = render_pairs(pairs, pair_bank, tmp_path / "again", part_size=5, num_workers=0)
    assert whole == parse_json(first["list.json"], out)
    for name in ("audio.00000.ark", "audio.00002.ark", "pairs.tsv", "utt2class"):
        assert (tmp_path / "again" / name).read_bytes() == first[name]
    shorter = render_pairs(pairs[:3], pair_bank, out, part_size=5, num_workers=0)
    assert shorter["keys"] == 6 == len(read_scp(out / "wav.scp"))
    assert [p.name for p in out.glob("audio*")] == ["audio.00000.ark"]


def test_two_processes_make_the_same_folder(pair_bank, pairs, tmp_path):
    for name, workers in (("one", 0), ("two", 2)):
        render_pairs(pairs, pair_bank, tmp_path / name, part_size=4, num_workers=workers)
    for n in range(3):
        ark = f"audio.0000{n}.ark"
        assert (tmp_path / "one" / ark).read_bytes() == (tmp_path / "two" / ark).read_bytes()


def test_entry_points(pair_bank, tmp_path, capsys):
    path, out, bank = tmp_path / "pairs.tsv", tmp_path / "out", str(pair_bank.path)
    draw = ["--bank", bank, "--out", str(path), "--num_pairs", "6", "--seed", "2"]
    command.draw_lists(draw)
    about = json.loads((tmp_path / "pairs.json").read_text())
    assert (about["seed"], about["pairs"], about["options"]["anchor"]) == (2, 6, "whole")
    stamp = path.stat().st_mtime_ns
    command.draw_lists(draw)
    assert path.stat().st_mtime_ns == stamp
    command.draw_lists([*draw, "--segment", "0.25"])
    assert path.stat().st_mtime_ns != stamp
    rows = read_list(path, pair_bank)
    assert {p.num for p in rows} == {2000}
    assert rows == draw_list(pair_bank, 6, 2, segment=0.25, anchor="peak")
    args = ["--list", str(path), "--bank", bank, "--out", str(out), "--num_workers", "0"]
    command.render_lists(args)
    assert json.loads((out / "list.json").read_text())["seed"] == 2
    assert "6 pairs" in capsys.readouterr().out
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    command.draw_lists([*draw, "--segment", "0.25"])  # what was changed by hand is drawn anew
    assert read_list(path, pair_bank) == rows


def test_a_taggers_anchors_place_the_segments(pair_bank, tmp_path):
    labels = [k for n in range(len(pair_bank)) for k in pair_bank.labels(n)]
    starts = np.arange(100, 100 + 10 * len(labels), 10)
    write_anchors(tmp_path / "a.npz", pair_bank, starts, 2000, "m")
    draw = [
        "--bank",
        str(pair_bank.path),
        "--out",
        str(tmp_path / "pairs.tsv"),
        *"--seed 2 --num_pairs 6 --segment 0.25".split(),
    ]
    command.draw_lists(draw)
    by_energy = read_list(tmp_path / "pairs.tsv", pair_bank)
    command.draw_lists([*draw, "--anchor_file", str(tmp_path / "a.npz")])  # another list: drawn anew
    table, pairs = AnchorTable(tmp_path / "a.npz"), read_list(tmp_path / "pairs.tsv", pair_bank)
    ids = [pair_bank.id(n) for n in range(len(pair_bank))]
    for p in pairs:
        assert p.start1 == table(ids.index(p.clip1), p.class1, 2000)
        assert p.start2 == table(ids.index(p.clip2), p.class2, 2000)
    command.draw_lists(draw)
    assert read_list(tmp_path / "pairs.tsv", pair_bank) == by_energy != pairs
    with pytest.raises(DataError, match="a.npz: its segments are 0.25 s long, but 0.5 s are requested"):
        command.draw_lists([*draw[:-1], "0.5", "--anchor_file", str(tmp_path / "a.npz")])
    with pytest.raises(DataError, match="a.npz: anchors place segments, but .*pairs.tsv is to be"):
        command.draw_lists([*draw[:-1], "0", "--anchor_file", str(tmp_path / "a.npz")])


def test_silent_targets_keep_the_folder_whole(pair_bank, pairs, tmp_path):
    far = dataclasses.replace(pairs[0], start1=10**6, start2=10**6, num=800)
    sounds, factor = pair_sounds(far, pair_bank)
    assert factor == 1.0 and not sounds["mix"].any() and len(sounds["mix"]) == 800
