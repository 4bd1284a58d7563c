"""Tables of mixtures: round trips, priors, what is refused; drawing and counting them."""

import logging
import pickle

import pytest
from mixture_tables import CLASSES, FS, MIXTURES, RULES, make_bank, table
from sounds import snapshot

from espnet2_ext.cli.data import draw_mixtures
from espnet2_ext.core.mixing.events import Event, Mixture
from espnet2_ext.data.bank.bank import bank_digest
from espnet2_ext.data.mixtures.draw import count, draw_table, known_of, parse_known
from espnet2_ext.data.mixtures.event_table import MixtureTable, write_table
from espnet2_ext.errors import DataError


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("bank"))


# --- tables


def test_round_trip(tmp_path):
    t = table(tmp_path / "t")
    assert [t.row(i) for i in range(len(t))] == MIXTURES
    assert (t.fs, t.classes, len(t)) == (FS, CLASSES, 3)
    assert [t.id(i) for i in range(3)] == ["b", "a", "ü"]
    assert [t.index_of(v) for v in "baü"] == [0, 1, 2]
    assert (tmp_path / "t" / "ids").read_text() == "b b\na a\nü ü\n"
    for name in ("c", "", "bb", "\0"):
        with pytest.raises(DataError, match="no mixture"):
            t.index_of(name)
    for i in (-1, 3):
        with pytest.raises(IndexError):
            t.row(i)
    data = pickle.dumps(t)
    again = pickle.loads(data)
    assert len(data) < 500 and again.row(0) == MIXTURES[0]


def test_priors_by_hand(tmp_path):
    info = table(tmp_path / "t").info
    # b: 5 frames, class 0 in 2, class 1 in 2; a: 5 frames, class 0 in all; ü: for the clips only
    assert info["frame_prior"] == [0.7, 0.2]
    assert info["clip_prior"] == [2 / 3, 1 / 3]
    assert (info["mixtures"], info["events"], info["seed"]) == (3, 4, 1)


def test_clip_priors_stand_in_where_no_frame_is_known(tmp_path):
    label = Event(0, None, 0, 0, 16, 1.0)
    mixtures = [Mixture("a", 16, "clip", (label,)), Mixture("b", 16, "clip", ())]
    assert table(tmp_path / "t", mixtures).info["frame_prior"] == [0.5, 0.0]


def test_class_that_never_occurs_or_always(tmp_path, caplog):
    mixtures = [Mixture("a", 16, "frame", (Event(0, None, 0, 0, 16, 1.0),))]
    with caplog.at_level(logging.WARNING):
        info = table(tmp_path / "t", mixtures).info
    assert info["frame_prior"] == info["clip_prior"] == [1.0, 0.0]
    assert "class horn is active in every frame" in caplog.text
    assert "class bark never occurs" in caplog.text


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("mixtures.tsv", "a\t16\tframe", "b\t16\tframe", "mixtures.tsv:3: id 'b'.*duplicated"),
        ("mixtures.tsv", "a\t16\tframe", "a\t0\tframe", "mixtures.tsv:3: samples"),
        ("mixtures.tsv", "frame", "weak", "mixtures.tsv:3: known must be one of strong, frame"),
        ("mixtures.tsv", "a\t16\tframe", "a\t16", "mixtures.tsv:3: 2 fields"),
        ("events.tsv", "b\thorn\tc1", "b\tcat\tc1", "events.tsv:2: class 'cat' is none of horn"),
        ("events.tsv", "b\thorn\tc1", "x\thorn\tc1", "events.tsv:2: mixture 'x' is not in"),
        ("events.tsv", "\t4\t4\t", "\t4\t13\t", "events.tsv:2: the event ends past.*sample 16"),
        ("events.tsv", "\t4\t4\t", "\t16\t4\t", "events.tsv:2: the event begins past the end"),
        ("events.tsv", "\t4\t4\t", "\t4\t-4\t", "events.tsv:2: samples must be 1 or more"),
        ("events.tsv", "\t4\t4\t", "\t4\tx\t", "events.tsv:2: samples must be a whole number"),
        ("events.tsv", "\t0.1", "\tnan", "events.tsv:2: gain must be a finite number"),
        ("events.tsv", "horn\tc1", "horn\t", "events.tsv:2: a strong label without a clip"),
        ("events.tsv", "\t\tc3", "\t\t", "events.tsv:4: a row with neither class nor clip"),
        ("events.tsv", "\tgain", "", "events.tsv:1: expected the columns"),
        ("events.tsv", "\t0.1", "\t0.2", "changed since table.json was written"),
        ("table.json", '"version": 1', '"version": 7', "table.json: changed since it was made"),
        ("table.json", "{", "", "table.json"),
    ],
)
def test_broken_tables(tmp_path, name, old, new, message):
    table(tmp_path / "t")
    path = tmp_path / "t" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        MixtureTable(tmp_path / "t")


def test_events_out_of_order(tmp_path):
    table(tmp_path / "t")
    path = tmp_path / "t" / "events.tsv"
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *reversed(lines)]))
    with pytest.raises(DataError, match=r"events.tsv:4: mixture 'b' is not in .* or out of order"):
        MixtureTable(tmp_path / "t")


def test_nothing_is_left_that_looks_whole(tmp_path):
    with pytest.raises(DataError, match="no table.json|no such file"):
        MixtureTable(tmp_path / "none")
    bad = [MIXTURES[0], MIXTURES[0]]
    table(tmp_path / "t")
    with pytest.raises(DataError, match="mixtures.tsv:3: id 'b'"):
        table(tmp_path / "t", bad)
    assert not (tmp_path / "t" / "table.json").exists()
    with pytest.raises(DataError, match="holds no mixture"):
        table(tmp_path / "t", [])
    with pytest.raises(DataError, match="mixture b: class 1 of 1"):
        table(tmp_path / "t", MIXTURES, ["horn"])


def test_check_against_a_bank(tmp_path, bank):
    event = Event(0, "c1", 600, 0, 100, 1.0)
    ok = table(tmp_path / "t", [Mixture("m", 200, "strong", (event,))])
    ok.check(bank)
    for change, message in (
        ({"start": 601}, "events.tsv:3: past the end of clip c1"),
        ({"clip": "c11"}, "events.tsv:3: .*no clip 'c11'"),
    ):
        t = table(tmp_path / "t", [Mixture("m", 200, "strong", (event, event._replace(**change)))])
        with pytest.raises(DataError, match=message):
            t.check(bank)
    other = write_table(tmp_path / "r", [MIXTURES[2]], fs=8, classes=["horn"], n_fft=8, hop=4)
    assert other["fs"] == 8
    with pytest.raises(DataError, match="at 8 Hz, but .* at 1000 Hz"):
        MixtureTable(tmp_path / "r").check(bank)


# --- drawing


def test_known_shares():
    shares = parse_known("strong:0.1,frame:0.3,clip:0.6")
    for first in (0, 777):
        kinds = [known_of(shares, 5, first + i) for i in range(200)]
        assert [kinds.count(k) for k in shares] == pytest.approx([20, 60, 120], abs=3)
    assert parse_known("clip") == {"clip": 1.0} and known_of({"clip": 1.0}, 0, 3) == "clip"
    for text in ("weak", "strong:0.5", "strong:x", "clip,clip", "strong:2,clip:-1", ""):
        with pytest.raises(DataError, match="known"):
            parse_known(text)


def test_draw_is_seeded_and_done_once(tmp_path, bank):
    a = draw_table(bank, tmp_path / "a", 30, 7, CLASSES, background=["park"], **RULES)
    before = snapshot(tmp_path / "a")
    again = draw_table(bank, tmp_path / "a", 30, 7, CLASSES, background=["park"], **RULES)
    assert snapshot(tmp_path / "a") == before and len(again) == 30
    b = draw_table(bank, tmp_path / "b", 40, 7, CLASSES, background=["park"], **RULES)
    assert [a.row(i) for i in range(30)] == [b.row(i) for i in range(30)]
    c = draw_table(bank, tmp_path / "b", 30, 8, CLASSES, background=["park"], **RULES)
    assert c.row(0) != a.row(0) and len(c) == 30
    a.check(bank)
    assert a.info["bank_hash"] == bank_digest(bank)
    assert {e.cls for i in range(30) for e in a.row(i).events} == {-1, 0, 1}
    with pytest.raises(DataError, match="mixtures must be 1 or more"):
        draw_table(bank, tmp_path / "d", 0, 7, CLASSES)


def test_statistics_by_hand(tmp_path):
    s = count(table(tmp_path / "t"))
    # b: frames with 0, 1, 1, 1, 1 sources; a: 1 in each; ü: 11 frames with none
    assert s.frame_sources.tolist() == pytest.approx([12 / 21, 9 / 21, 0])
    assert s.clip_sources.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert s.frame_prior.tolist() == pytest.approx([7 / 21, 2 / 21])
    assert s.clip_prior.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert s.known == {"strong": 1, "frame": 1, "clip": 1} and s.events == 1.0


def test_draw_command_prints_the_tables(tmp_path, bank, capsys):
    out = tmp_path / "t"
    draw_mixtures(
        [
            "--bank",
            str(bank.path),
            "--out",
            str(out),
            *"--mixtures 5 --classes horn,bark --seconds 1 --event_seconds 0.1 0.8 --known clip".split(),
            *"--background_classes park".split(),
        ]
    )
    printed = capsys.readouterr().out
    assert "5 mixtures (5 clip)" in printed and "|  | horn | bark |" in printed
    assert (out / "statistics.md").read_text().strip() in printed
    assert (out / "statistics.tsv").read_text().startswith("table\tname\tvalue\nframe_prior\thorn")
