"""Lists of conditions from the draw to the table: what is in each mixture, and the scores of made-up estimates."""

import math

import numpy as np
import pytest
from sounds import bank_of, numbered

from espnet2_ext.audio.read import FlacArkWriter, read_audio
from espnet2_ext.cli.data import draw_lists, render_lists
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.pair_list import condition_of, draw_list, draw_protocol, read_list
from espnet2_ext.errors import DataError
from espnet2_ext.report.experiment import load_rows, load_summary
from espnet2_ext.report.results import query_report, write_results
from espnet2_ext.scores.score import score
from espnet2_ext.scores.test_set import load_test_set
from espnet2_ext.util.tables import read_scp

FS = 8000
NAMES = ["-20 dB", "-10 dB", "0 dB", "10 dB", "20 dB", "3 sources", "4 sources", "absent", "alone", "same class"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> ClipBank:
    """Four clips of each of five classes, quiet noise of 0.6 s."""
    rng = np.random.default_rng(0)
    waves = {f"clip{i:02d}": (rng.uniform(-0.04, 0.04, 6 * FS // 10), (f"/m/{i % 5}",)) for i in range(20)}
    return bank_of(tmp_path_factory.mktemp("bank"), waves, numbered(5), FS)


@pytest.fixture(scope="module")
def folder(bank, tmp_path_factory):
    """The rendered list, 4 targets of each condition."""
    top = tmp_path_factory.mktemp("list")
    where = ["--bank", str(bank.path)]
    draw_lists([*where, "--out", str(top / "pairs.tsv"), "--protocol", "conditions", "--num_pairs", "4", "--seed", "3"])
    render_lists([*where, "--list", str(top / "pairs.tsv"), "--out", str(top / "dump"), "--num_workers", "0"])
    return top / "dump"


def labels(bank, clip):
    return int(bank.labels(bank.index_of(clip))[0])


def test_each_condition_has_its_targets(bank, folder):
    data = load_test_set(folder)
    found = list(data.conditions.values())
    assert {name: found.count(name) for name in NAMES} == dict.fromkeys(NAMES, 4)
    pairs = {pair.id: pair for pair in read_list(folder / "pairs.tsv", bank)}
    for key, condition in data.conditions.items():
        pair, first = pairs[key[:-2]], key.endswith("-1")
        sounding = {labels(bank, c) for c in (pair.clip1, pair.clip2, *(o.clip for o in pair.others))}
        if condition == "same class":
            assert pair.clip1 != pair.clip2 and len(sounding) == 1
            assert not {pair.query1, pair.query2} & {pair.clip1, pair.clip2}
        elif condition == "alone":
            assert first and f"{key[:-2]}-2" not in data.conditions
        else:
            assert len(sounding) == 2 + len(pair.others)
        asked = pair.class1 if first else pair.class2
        assert (asked in sounding) == (condition != "absent")
        assert labels(bank, pair.query1 if first else pair.query2) == asked
        assert (key in data.scp["enroll_self.scp"]) == (condition != "absent")


def test_levels_of_the_targets(folder):
    data = load_test_set(folder)
    for key, condition in data.conditions.items():
        mix, ref = (read_audio(data.scp[name][key])[0][:, 0].astype(float) for name in ("wav.scp", "spk1.scp"))
        assert ref.any() == (condition != "absent")
        if condition == "alone":
            assert (mix == ref).all()
        elif condition != "absent":
            level = 10 * math.log10(np.sum(ref**2) / np.sum((mix - ref) ** 2))
            wanted = -10 * math.log10(int(condition[0]) - 1) if "sources" in condition else 0.0
            wanted = float(condition.removesuffix(" dB")) if condition.endswith("dB") else wanted
            assert level == pytest.approx(wanted, abs=0.5 if "sources" in condition else 0.05)


def test_dcase_2024_and_unknown_protocols(bank):
    pairs = draw_protocol(bank, "dcase2024", 40, 1, segment=None, anchor="whole")
    assert all(pair.num == 10 * FS and not pair.others and -15 <= pair.snr_db <= 15 for pair in pairs)
    assert min(p.snr_db for p in pairs) < -10 and max(p.snr_db for p in pairs) > 10
    assert all(labels(bank, p.clip1) != labels(bank, p.clip2) for p in pairs)
    assert {condition_of(p, i, False) for p in pairs for i in (1, 2)} <= {"-20 dB", "-10 dB", "0 dB", "10 dB", "20 dB"}
    with pytest.raises(DataError, match="protocol must be one of conditions, dcase2024"):
        draw_protocol(bank, "dcase2023")


def test_a_plain_list_has_no_conditions(bank, tmp_path):
    draw_lists(["--bank", str(bank.path), "--out", str(tmp_path / "pairs.tsv"), "--num_pairs", "5"])
    assert read_list(tmp_path / "pairs.tsv") == draw_list(bank, 5)
    out = ["--list", str(tmp_path / "pairs.tsv"), "--out", str(tmp_path / "dump"), "--num_workers", "0"]
    render_lists(["--bank", str(bank.path), *out])
    assert load_test_set(tmp_path / "dump").conditions == {}


def test_scores_by_condition(folder, tmp_path):
    """Estimates that keep a tenth of the rest, but twice as much of it at 20 dB, and too much for absent queries."""
    data, inference = load_test_set(folder), tmp_path / "exp" / "inference_test"
    for protocol in ("self", "other"):
        with FlacArkWriter(inference / protocol / "mixture", "spk1", FS) as writer:
            for key in data.keys_of(protocol):
                mix, ref = (read_audio(data.scp[name][key])[0][:, 0] for name in ("wav.scp", "spk1.scp"))
                share = {"20 dB": 2.0, "absent": 0.05}.get(data.conditions[key], 0.1)
                share = 0.5 if data.conditions[key] == "absent" and key.endswith("-1") else share
                est = 0.9 * ref if data.conditions[key] == "alone" else ref + share * (mix - ref)
                writer.write(key, est.astype(np.float32))
    score(folder, inference, espnet_keys=0, num_workers=0)
    rows, summary = load_rows(inference), load_summary(inference)
    assert {row["key"]: row["condition"] for row in rows} == data.conditions
    table = {c["name"]: c for c in summary["protocols"]["other"]["conditions"]}
    assert list(table) == [*NAMES, "all"]
    assert [c["name"] for c in summary["protocols"]["self"]["conditions"]] == [
        n for n in (*NAMES, "all") if n != "absent"
    ]
    for name in NAMES:
        c = table[name]
        assert c["targets"] == 4
        if name == "absent":  # -6 and -26 dB
            assert c["false_extraction"] == 0.5 and c["sdr_gain"]["count"] == 0 and c["worse"] is None
            assert c["level_db"]["mean"] == pytest.approx(-16.0, abs=0.1)
        elif name == "alone":
            assert c["sdr"]["mean"] == pytest.approx(20, abs=0.1) and c["worse"] is None
        else:
            gain = -20 * math.log10(2) if name == "20 dB" else 20
            assert c["sdr_gain"]["mean"] == pytest.approx(gain, abs=0.2)
            assert c["worse"] == (name == "20 dB") and c["false_extraction"] is None
            assert c["sdr"]["mean"] - c["input_sdr"]["mean"] == pytest.approx(c["sdr_gain"]["mean"])
    assert table["-10 dB"]["input_sdr"]["mean"] == pytest.approx(-10, abs=0.1)
    assert table["all"]["targets"] == 32 and table["all"]["worse"] == 4 / 32
    text = write_results(query_report(tmp_path / "exp")).read_text()
    assert "|20 dB|other|4|20.0" in text.replace(" | ", "|").replace("| ", "|") and "|100 %|" in text.replace(
        " | ", "|"
    )


def test_a_list_that_does_not_fit_its_tables_is_refused(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "list.json").write_text('{"keys": 40}')
    lines = (tmp_path / "pairs.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "pairs.tsv").write_text("".join([lines[0], *(line.replace("p0", "q0") for line in lines[1:])]))
    with pytest.raises(DataError, match="target q00000.-1 is not in utt2class"):
        load_test_set(tmp_path)
    assert read_scp(tmp_path / "utt2class")
