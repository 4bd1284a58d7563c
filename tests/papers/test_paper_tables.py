"""The papers' tables: what is listed, and what is filled from experiments made by hand."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from recipe_options import options_of

from espnet2_ext.cli.papers import sweep_parser, tables
from espnet2_ext.cli.score import figure_parser
from espnet2_ext.errors import DataError
from espnet2_ext.papers import fill
from espnet2_ext.papers.measured import over_seeds, read_scores
from espnet2_ext.papers.sweep import Sweep
from espnet2_ext.papers.tables import CITED, PAPERS, find_table, listing, load_paper
from espnet2_ext.util.config import read_config

ROOT = Path(__file__).resolve().parents[2]
# rows of each table and figure, counted in the papers
COUNTS = {
    "care_sep": {"1": 13, "2": 7, "3": 3, "Fig. 3": 2},
    "weak": {
        "II": 2,
        "III": 4,
        "IV": 2,
        "V": 2,
        "VI": 4,
        "VII": 2,
        "VIII": 2,
        "IX": 2,
        "X": 4,
        "XI": 4,
        "XII": 3,
        "Fig. 3": 1,
        "Fig. 4": 1,
    },
}
TABLES = [t for key in PAPERS for t in load_paper(key).tables.values()]
ROWS = [(t, row) for t in TABLES for row in t.rows]


def rows(text: str, section: str = "##") -> dict[str, list[str]]:
    """Cells of the first Markdown table after `section`, by the first column."""
    lines = text[text.index(section) :].split("\n\n|")[1].split("\n\n")[0].splitlines()
    cells = [line.strip("|").split("|") for line in lines]
    return {row[0]: row[1:] for row in [cells[0], *cells[2:]]}


# ---- what is listed ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", PAPERS)
def test_every_table_and_row_is_there(key):
    assert {k: len(t.rows) for k, t in load_paper(key).tables.items()} == COUNTS[key]


def test_list_prints_every_row_with_its_command(capsys):
    tables(["--list"])
    text = capsys.readouterr().out
    lines = [v for v in text.splitlines() if v.startswith("|") and "|---" not in v]
    lines = [v for v in lines if not v.startswith("|row|")]
    assert len(lines) == sum(sum(c.values()) for c in COUNTS.values())
    assert sum(CITED in line for line in lines) == 4
    assert all("`" in line for line in lines if CITED not in line)
    for table in TABLES:
        assert f"## {table.name}: " in text
    for word in ("activate", "AUDIOSET, are paths", "--ngpu 8", "tables --table"):
        assert word in text


def test_values_of_the_papers():
    care, weak = (load_paper(key).tables for key in PAPERS)
    by_name = {row.name: row.values for row in care["1"].rows}
    assert by_name["2048-d ST-SED-SEP"] == ["0.459", "10.55", "27.83", "16.64"]
    assert by_name["768-d CaRE-SEP"] == [None, "13.14", "103.16", "17.72"]
    assert by_name["527-d PANN-SEP"] == ["NP", "7.38", "8.89", "11.00"]  # as it is written
    assert [row.values[0] for row in care["2"].rows] == ["10.55", "10.77", "13.14", "10.09", "11.33", "9.14", "10.34"]
    assert [row.values for row in care["3"].rows] == [["9.03"], ["9.83"], ["10.34"]]
    assert weak["VIII"].rows[1].values == ["0.9", "3.9", "6.8", "5.1", "1.1"]
    assert weak["XI"].rows[1].values == "9.0 7.0 9.4 7.3 3.2 1.8 9.3 7.4".split()
    assert weak["VI"].rows[2].values[-1] == ["6.8", "6.2"]


@pytest.mark.parametrize("table, row", ROWS, ids=lambda v: v.name.replace(" ", "_"))
def test_every_row_has_a_yaml_and_a_command_that_can_be_run(table, row):
    if row.cited:
        assert row.yaml is None and table.command(row) is None
        return
    assert (ROOT / row.yaml).is_file()
    command = table.command(row)
    words = shlex.split(command.strip("()"))
    if words[0] == "cd":
        assert command.startswith("(") and command.endswith(")")  # the user stays where he stands
        recipe, sign, *words = words[1:]
        assert sign == "&&"
        if words[0] == "./run.sh":
            assert {w[2:] for w in words if w.startswith("--")} <= options_of(ROOT / recipe)
        else:
            assert words[:2] == ["espnet2-ext", "embedding-figure"]
            figure_parser().parse_args(words[2:])
        return
    assert words[:2] == ["espnet2-ext", "sweep"]
    args = sweep_parser().parse_args(words[2:])
    sweep = Sweep(ROOT / args.sweep, size=args.size, run_options=shlex.split(args.run_options))
    assert sweep.recipe.resolve() == (ROOT / table.recipe).resolve()
    assert sweep.run_options and sweep.run_options.keys() <= options_of(sweep.recipe)
    wanted = {run.cell.name for run in sweep.runs(args.only)}
    assert wanted >= set(table.cells(row)) and wanted


@pytest.mark.parametrize(
    "table, row",
    [r for r in ROWS if r[0].paper == "care_sep" and not r[1].cited and not r[1].command],
    ids=lambda v: v.name.replace(" ", "_"),
)
def test_a_rows_yaml_is_that_of_its_cell(table, row):
    sweep = Sweep(ROOT / "conf/sweeps/care_sep.yaml")
    assert sweep.cells[table.cells(row)[-1]].config == row.yaml


@pytest.mark.parametrize("name", ["weak_table_vi", "weak_table_vii", "weak_table_viii", "weak_table_ix"])
def test_the_small_classifier_becomes_that_of_the_papers_yaml(name):
    sweep = Sweep(ROOT / f"conf/sweeps/{name}.yaml", size="paper")
    expected = read_config(ROOT / "conf/train_weak_rnn.yaml")
    assert sweep.configs.content("rnn") == expected


def test_grids_have_a_cell_for_each_value_and_no_other():
    for number in ("VII", "VIII", "IX", "X", "XI"):
        table = find_table("weak", number)
        sweep = Sweep(ROOT / f"conf/sweeps/{table.sweeps[0]}.yaml")
        assert {c for row in table.rows for c in table.cells(row)} == set(sweep.cells), number


def test_tables_are_found_by_number():
    assert find_table("weak", "vii").key == "VII" and find_table("care_sep", "fig3").key == "Fig. 3"
    with pytest.raises(DataError, match="--table XX: there is no such table; --paper weak has II,"):
        find_table("weak", "XX")
    with pytest.raises(DataError, match="--paper weak has II, .*Fig. 4"):
        find_table("care_sep", "fig4")


def test_both_lambdas_share_test_mixtures_with_the_sweep_that_trains_on_them():
    sweep = Sweep(ROOT / "conf/sweeps/weak_table_xi.yaml", size="paper")
    sweeps = shlex.join(sweep.command(next(iter(sweep.runs(["dense"])))))
    table = find_table("weak", "II")
    five, ten = (shlex.split(table.command(row).strip("()")) for row in table.rows)
    assert "--datadir" not in five and "--test_mean_events" not in five  # as the other sweeps
    for option in ("--datadir", "--test_mean_events"):  # folders named after both lambdas
        assert shlex.join(ten[(at := ten.index(option)) : at + 2]) in sweeps


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rows": [{"name": "a"}]}, r"x.yaml: tables.1.rows\[0\]: values is missing"),
        ({"rows": [{"name": "a", "values": [1, 2]}]}, r"tables.1.rows\[0\].values: 2 for 1 columns"),
        ({"rows": [{"name": "a", "values": [1], "yml": ""}]}, r"rows\[0\]: unknown key yml"),
        ({"columns": [{"name": "b", "at": {"sel": 1}}]}, "tables.1.at: unknown key sel"),
        ({"sweep": "a"}, "tables.1: unknown key sweep"),
    ],
)
def test_wrong_files_name_file_and_key(tmp_path, change, message):
    table = {"title": "t", "recipe": "egs2/a", "columns": [{"name": "b"}], "rows": []}
    content = {"paper": "x", "title": "x", "tables": {"1": {**table, **change}}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=message):
        load_paper("x", tmp_path)


# ---- what is filled ------------------------------------------------------------------------------


def stats(mean: float, median: float | None = None) -> dict:
    return {"mean": mean, "median": mean if median is None else median}


def put(path: Path, content: dict | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def qsep(folder: Path, sdr: float, test: str = "test", tagging: dict | None = None, digest: str = "abc123") -> None:
    put(folder / "config.yaml", "seed: 0\n")
    put(folder / ".begun_with", "clips in dump/train: feedfeed\nweights: \noptions: 1 2\n")
    one = {"sdr": stats(sdr), "clean_sdr": stats(20.0), "silence_sdr": stats(None)}
    other = {**one, "sdr": stats(sdr - 1)}
    put(
        folder / f"inference_{test}/scores/summary.json",
        {
            "keys": 240,
            "data_dir": "dump/embedded/test_pairs",
            "tagging": tagging or {},
            "list": {"pairs": 120, "list_hash": digest},
            "protocols": {"self": one, "other": other},
        },
    )


def weak(folder: Path, gain: float, test: str = "folds9-10", f: float = 0.8, digest: str = "beef") -> None:
    put(folder / "config.yaml", "seed: 0\n")
    classes = ["car_horn", "dog_bark", "gun_shot", "jackhammer", "siren"]
    one = {"input": stats(-4.5, -4.0), "gain": stats(gain, gain / 2)}
    put(
        folder / f"inference_{test}/scores/summary.json",
        {
            "keys": 9,
            "data_dir": "dump/x",
            "classes": classes,
            "table": {"table_hash": digest, "settings": {"mean_events": 2.0}},
            "scores": {c: one for c in classes},
            "overall": one,
            "detection": {k: {"f": [f, None, f, f, f]} for k in ("frame", "clip")},
        },
    )


def noted(folder: Path, sweep: str, runs: list[tuple], **variables: str) -> None:
    """The note of a sweep: (cell, seed, {label: folder name})."""
    content = {f"{c}_seed{s}": {"cell": c, "seed": s, "id": "", "folders": f, "seconds": 1} for c, s, f in runs}
    put(folder / f"sweep_{sweep}.json", {"sweep": sweep, "runs": content, "variables": variables})


def filled(capsys, *args) -> str:
    tables([*map(str, args)])
    return capsys.readouterr().out


def test_table_2_has_what_was_measured_and_empty_cells(tmp_path, capsys):
    qsep(tmp_path / "exp/e/qsep_C_seed0", 6.0)
    qsep(tmp_path / "exp/e/qsep_C_seed1", 8.0)
    qsep(tmp_path / "exp/e/qsep_A", 4.0)
    qsep(tmp_path / "exp/e/qsep_another", 9.0)
    text = filled(capsys, "--table", "2", "--exp_dirs", tmp_path / "exp")
    assert text.count("###") == 2 and f"### {tmp_path}/exp/e: test, query `self`" in text
    assert "240 targets in 120 mixtures, list abc123" in text
    assert "- training data: `feedfeed`" in text
    found = rows(text, "### " + str(tmp_path / "exp/e") + ": test, query `self`")
    # mean of 6 and 8, standard deviation sqrt(2); no silence-SDR was scored
    assert found["C: 768-d CaRE-SEP (grad, init, shared)"] == [
        "7.00 ± 1.41 (2)",
        "13.14",
        "20.00 ± 0.00 (2)",
        "103.16",
        "",
        "17.72",
    ]
    assert found["A: 2048-d ST-SED-SEP (init)"][:2] == ["4.00", "10.55"]
    assert found["B: A with gradient (grad, init)"] == ["", "10.77", "", "31.85", "", "13.67"]
    assert rows(text, "query `other`")["A: 2048-d ST-SED-SEP (init)"][0] == "3.00"


@pytest.mark.parametrize(
    "name, about",
    [
        ("bank.json", {"clips": 7, "manifest_hash": "feedfeed"}),
        ("table.json", {"mixtures": 7, "table_hash": "feedfeed"}),
    ],
)
def test_the_training_datas_size_stands_beside_its_hash(tmp_path, capsys, name, about):
    qsep(tmp_path / "exp/e/qsep_C", 6.0)
    put(tmp_path / "dump/train" / name, about)
    unit = next(iter(about))
    text = filled(capsys, "--table", "2", "--exp_dirs", tmp_path)
    assert f"- training data: `7 {unit}, feedfeed`" in text
    put(tmp_path / "dump/train" / name, {k: v if k == unit else "other" for k, v in about.items()})
    text = filled(capsys, "--table", "2", "--exp_dirs", tmp_path)
    assert "- training data: `feedfeed`" in text


def test_table_1_takes_map_over_all_clips_from_taggers_and_from_joint_training(tmp_path, capsys):
    top = tmp_path / "exp"
    qsep(top / "qsep_cls_sep_seed0", 5.0, tagging={"self": {"map": 0.9}})  # of a list's targets
    for name, value in (("qsep_cls_sep_seed0", 0.7), ("tag_tag_hts_at_seed0", 0.25)):
        put(
            top / name / "tagging_test/scores.json",
            {"map": value, "keys": 30, "bank": "dump/test", "manifest_hash": "cafe"},
        )
    text = filled(capsys, "--table", "1", "--exp_dirs", top)
    found = rows(text, "query `self`")
    assert found["768-d CaRE-CLS+SEP"][:4] == ["0.700", "0.446", "5.00", "11.48"]
    assert found["2048-d ST-SED-SEP"][:4] == ["0.250", "0.459", "", "10.55"]
    assert found["DeepRes"] == ["", "0.392", "", "–", "", "–", "", "–"]
    assert found["527-d PANN-SEP"][1] == "NP" and "manifest cafe" in text
    found = rows(text, "query `other`")
    assert found["768-d CaRE-CLS+SEP"][0] == "0.700" and found["2048-d ST-SED-SEP"][0] == "0.250"


def test_nothing_run_leaves_the_papers_values_alone(tmp_path, capsys):
    for number in ("1", "2", "3", "fig3"):
        text = filled(capsys, "--table", number, "--exp_dirs", tmp_path)
        assert all(v == "" for row in list(rows(text).values())[1:] for v in row[::2])
    assert "Nothing drawn" in filled(capsys, "--table", "fig4", "--exp_dirs", tmp_path)


def test_zero_shot_takes_its_own_set_alone(tmp_path, capsys):
    qsep(tmp_path / "qsep_C_seed0", 6.0)
    qsep(tmp_path / "qsep_C_seed0", 2.0, test="folds12345")
    text = filled(capsys, "--table", "3", "--exp_dirs", tmp_path)
    assert rows(text, "query `self`")["768-d CaRE-SEP"] == ["2.00", "9.83"]
    assert text.count("###") == 2


def test_zero_shot_takes_no_model_of_the_same_classes_and_tells_which_it_took(tmp_path, capsys):
    qsep(tmp_path / "qsep_C_seed0", 2.0, test="folds12345")
    about = {"zero_shot": True, "facts": {"scored model": "a/C.zip", "trained on": "clips 9"}}
    put(tmp_path / "qsep_C_seed0/model.json", about)
    text = filled(capsys, "--table", "3", "--exp_dirs", tmp_path)
    assert "- model of qsep_C_seed0: `a/C.zip`" in text and "- training data: `clips 9`" in text
    put(tmp_path / "qsep_C_seed0/model.json", about | {"zero_shot": False})
    text = filled(capsys, "--table", "3", "--exp_dirs", tmp_path)
    assert "Nothing measured" in text and rows(text)["768-d CaRE-SEP"] == ["", "9.83"]


def test_a_bundle_scored_in_another_recipe_is_not_of_this_table(tmp_path, capsys):
    roots = [tmp_path / "egs2" / recipe / "exp" for recipe in ("esc50_qsep", "audioset_qsep")]
    for root in roots:
        qsep(root / "zero/qsep_C_seed0", 6.0)
        put(root / "zero/qsep_C_seed0/model.json", "{}")
    text = filled(capsys, "--table", "1", "--exp_dirs", *roots)
    assert "audioset_qsep/exp/zero: test" in text and "esc50_qsep" not in text


def test_an_experiment_found_twice_counts_once(tmp_path, capsys):
    qsep(tmp_path / "exp/qsep_C_seed1", 6.0)
    given = [tmp_path, tmp_path / "exp", f"C={tmp_path / 'exp/qsep_C_seed1'}"]
    found = rows(filled(capsys, "--table", "2", "--exp_dirs", *given), "query `self`")
    assert found["C: 768-d CaRE-SEP (grad, init, shared)"][0] == "6.00"


def test_one_that_several_sweeps_noted_counts_once(tmp_path, capsys):
    qsep(tmp_path / "exp/qsep_C_seed1", 6.0)
    for sweep in ("care_sep", "side_by_side"):
        noted(tmp_path / "exp", sweep, [("C", 1, {"": "qsep_C_seed1"})])
    given = [f"C={tmp_path / 'exp/qsep_C_seed1'}", tmp_path]
    found = rows(filled(capsys, "--table", "Table 2", "--exp_dirs", *given), "query `self`")
    assert found["C: 768-d CaRE-SEP (grad, init, shared)"][0] == "6.00"


def test_beside_a_sweeps_notes_only_what_is_noted_counts(tmp_path, capsys):
    for seed, sdr in ((0, 6.0), (7, 50.0)):
        qsep(tmp_path / f"exp/qsep_C_seed{seed}", sdr)
    noted(tmp_path / "exp", "side_by_side", [("C", 0, {"": "qsep_C_seed0"})])
    found = rows(filled(capsys, "--table", "2", "--exp_dirs", tmp_path), "query `self`")
    assert found["C: 768-d CaRE-SEP (grad, init, shared)"][0] == "6.00"


def test_scores_on_different_test_sets_are_not_averaged(tmp_path, capsys):
    qsep(tmp_path / "qsep_C_seed0", 6.0)
    qsep(tmp_path / "qsep_C_seed1", 8.0, digest="other")
    text = filled(capsys, "--table", "2", "--exp_dirs", tmp_path)
    sections = [part for part in text.split("### ")[1:] if "query `self`" in part]
    assert "±" not in text and len(sections) == 2
    for digest, sdr in (("abc123", "6.00"), ("other", "8.00")):
        (section,) = (part for part in sections if f"list {digest}" in part)
        assert rows(section, "data")["C: 768-d CaRE-SEP (grad, init, shared)"][0] == sdr
    weak(tmp_path / "weak_a_frame", 5.0)
    weak(tmp_path / "weak_b_clip", 7.0, digest="other")
    noted(tmp_path, "weak_table_vi", [("crnn", 0, {"frame": "weak_a_frame", "clip": "weak_b_clip"})])
    text = filled(capsys, "--table", "VI", "--exp_dirs", tmp_path)
    assert text.count("### ") == 2 and "table beef, lambda 2" in text


def test_an_experiment_can_be_named_as_a_cell(tmp_path, capsys):
    qsep(tmp_path / "any=thing", 6.0)
    text = filled(capsys, "--table", "2", "--exp_dirs", f"D={tmp_path / 'any=thing'}")
    assert rows(text, "query `self`")["D: C without gradient (init, shared)"][0] == "6.00"
    filled(capsys, "--table", "2", "--exp_dirs", tmp_path / "any=thing")  # a folder, no cell
    with pytest.raises(DataError, match="--exp_dirs H=.*: no table has a cell H; available: A, B, C"):
        tables(["--table", "2", "--exp_dirs", f"H={tmp_path}"])
    with pytest.raises(DataError, match="--exp_dirs E=nowhere: no such folder"):
        tables(["--table", "2", "--exp_dirs", "E=nowhere"])


def test_weak_tables_find_what_sweeps_noted(tmp_path, capsys):
    for name, gain in (("weak_a_frame", 5.0), ("weak_b_frame", 7.0), ("weak_c_strong", 9.0)):
        weak(tmp_path / name, gain)
    alphas = [("crnn_alpha_10", 0, {"frame": "weak_a_frame"}), ("crnn_alpha_100", 0, {"frame": "weak_b_frame"})]
    noted(tmp_path, "weak_table_viii", alphas)
    noted(tmp_path, "weak_table_vii", [("crnn_fixed", 0, {"frame": "weak_b_frame"})])
    noted(tmp_path, "weak_table_vi", [("crnn", 0, {"frame": "weak_b_frame", "strong": "weak_c_strong"})])
    text = filled(capsys, "--table", "VIII", "--exp_dirs", tmp_path)
    assert rows(text, "###")["2D-CRNN (STFT)"] == ["", "0.9", "5.00", "3.9", "7.00", "6.8", "", "5.1", "", "1.1"]
    found = rows(filled(capsys, "--table", "VII", "--exp_dirs", tmp_path), "###")
    assert found["2D-CRNN (STFT)"] == ["", "-0.2", "", "1.3", "7.00", "6.8"]
    found = rows(filled(capsys, "--table", "IV", "--exp_dirs", tmp_path), "###")
    assert found["2D-CRNN (STFT)"][:4] == ["0.800", "0.948", "", "0.870"]
    found = rows(filled(capsys, "--table", "VI", "--exp_dirs", tmp_path), "###")
    assert found["ΔSI-SDR strong"][-2:] == ["9.00 / 4.50", "9.0 / –"]
    assert found["ΔSI-SDR clip"][-2:] == ["", "5.6 / 5.5"]
    assert found["input SI-SDR"][-2:] == ["-4.50 / -4.00", "-4.5 / –"]


def test_table_xi_tells_the_tests_lambdas_apart(tmp_path, capsys):
    weak(tmp_path / "weak_a_frame", 6.0, "folds9-10_lambda2")
    weak(tmp_path / "weak_a_frame", 4.0, "folds9-10_lambda5")
    weak(tmp_path / "weak_a_frame", 1.0, "folds9-10")
    noted(tmp_path, "weak_table_xi", [("sparse", 0, {"frame": "weak_a_frame"})], sparse="2", dense="5")
    text = filled(capsys, "--table", "XI", "--exp_dirs", tmp_path)
    found = rows(text, "###")["ΔSI-SDR frame"]
    assert "- the sweep's size: dense 5, sparse 2" in text
    assert found[:4] == ["6.00", "6.8", "4.00", "5.2"] and set(found[4::2]) == {""}


def test_tables_ii_and_iii_come_from_the_preparation(tmp_path, capsys):
    folder = tmp_path / "data/folds1-6/mixtures"
    put(folder / "table.json", {"settings": {"mean_events": 5.0}, "mixtures": 7, "table_hash": "beef"})
    lines = ["table\tname\tvalue", "frame_prior\tcar_horn\t0.25", "clip_sources\t1\t0.0625"]
    put(folder / "statistics.tsv", "\n".join(lines) + "\n")
    found = rows(filled(capsys, "--table", "II", "--exp_dirs", tmp_path), "###")
    assert found["lambda 5"][:4] == ["0.250", "0.26", "", "0.36"]
    assert found["lambda 10"][:2] == ["", "0.44"]
    text = filled(capsys, "--table", "III", "--exp_dirs", tmp_path)
    assert rows(text, "###")["clips, lambda 5"][2:4] == ["0.062", "0.06"]
    assert "7 mixtures, table beef" in text
    whole = (folder / "statistics.tsv").read_text()
    put(folder / "statistics.tsv", "name\n")
    with pytest.raises(DataError, match="statistics.tsv") as e:
        tables(["--table", "II", "--exp_dirs", str(tmp_path)])
    assert str(e.value).count("statistics.tsv") == 1
    put(folder / "statistics.tsv", whole)
    put(folder / "table.json", {"settings": 3})
    with pytest.raises(DataError, match="table.json: key mixtures: is missing"):
        tables(["--table", "II", "--exp_dirs", str(tmp_path)])
    put(folder / "table.json", {"settings": {"mean_events": 2.0}, "mixtures": 7, "table_hash": "beef"})
    found = rows(filled(capsys, "--table", "II", "--exp_dirs", tmp_path), "###")
    assert found["lambda 5"][0] == "" and found["lambda 2"][:2] == ["0.250", "–"]


def test_tables_ii_and_iii_where_nothing_was_prepared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fill, "__file__", str(tmp_path / "a/b/fill.py"))
    assert "Nothing prepared." in filled(capsys, "--table", "II")
    weak(tmp_path / "weak_crnn_frame", 1.0)
    given = f"crnn={tmp_path / 'weak_crnn_frame'}"
    assert "Nothing prepared." in filled(capsys, "--table", "III", "--exp_dirs", given)


def test_figure_3_of_care_sep_has_its_divergences(tmp_path, capsys):
    put(tmp_path / "e/figure_3.png", "")
    put(tmp_path / "e/other.json", "{")  # not a figure's: there is no picture of that name
    put(
        tmp_path / "e/figure_3.json",
        {
            "classes": ["Bark", "Piano"],
            "clips": ["a", "b"],
            "kl_formula": "symmetric",
            "systems": [
                {"name": name, "kl": {"separation feature": kl, "query embedding": 7.25}}
                for name, kl in (("qsep_A_seed0", 2.5), ("C_seed1", 3.0), ("care_seeded", 1))
            ],
        },
    )
    assert "Nothing drawn" in filled(capsys, "--table", "fig3", "--exp_dirs", tmp_path)
    text = filled(capsys, "--table", "Figure 3", "--exp_dirs", tmp_path / "e")
    put(tmp_path / "e/qsep_A_seed0/config.yaml", "seed: 0\n")
    assert filled(capsys, "--table", "fig3", "--exp_dirs", tmp_path) == text  # beside a training
    found = rows(text, "###")
    assert found["(a), (b): 2048-d ST-SED-SEP"] == ["2.50", "4.34", "7.25", "10.37"]
    assert found["(c), (d): 768-d CaRE-SEP"] == ["3.00", "5.08", "7.25", "5.77"]
    assert f"### {tmp_path}/e/figure_3.png" in text
    put(tmp_path / "e/figure_3.json", "{")
    with pytest.raises(DataError, match="figure_3.json: is not valid JSON"):
        tables(["--table", "fig3", "--exp_dirs", str(tmp_path)])


def test_pictures_of_weak_labels_are_found(tmp_path, capsys):
    weak(tmp_path / "weak_x_frame", 5.0)
    noted(tmp_path, "weak_table_vi", [("crnn", 0, {"frame": "weak_x_frame"})])
    put(tmp_path / "weak_x_report/figures/folds9-10_density.png", "")
    text = filled(capsys, "--paper", "weak", "--table", "fig3", "--exp_dirs", tmp_path)
    assert text.rstrip().endswith("weak_x_report/figures/folds9-10_density.png")


def test_all_tables_into_a_file(tmp_path, capsys):
    out = tmp_path / "tables.md"
    text = filled(capsys, "--paper", "weak", "--table", "all", "--exp_dirs", tmp_path, "-o", out)
    assert out.read_text() == text
    assert text.count("## ") == len(COUNTS["weak"])


@pytest.mark.parametrize(
    "path, content, message",
    [
        ("inference_t/scores/summary.json", "{", "summary.json: is not valid JSON"),
        (
            "inference_t/scores/summary.json",
            '{"protocols": {}}',
            "summary.json: is not the scores of a test set: list is mis",
        ),
        ("inference_t/scores/summary.json", "3", "summary.json: expected keys with values"),
        ("tagging_t/scores.json", "{}", "scores.json: key map: is missing"),
        ("tagging_t/scores.json", '{"map": "x"}', "scores.json: key map: expected a number"),
        ("tagging_t/scores.json", "3", "scores.json: expected keys"),
    ],
)
def test_broken_scores_are_named(tmp_path, path, content, message):
    put(tmp_path / path, content)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path)


def test_a_broken_note_is_named(tmp_path):
    put(tmp_path / "sweep_x.json", "[]")
    with pytest.raises(DataError, match="sweep_x.json: expected keys .*; remove it"):
        tables(["--table", "1", "--exp_dirs", str(tmp_path)])


def test_mean_and_spread():
    assert over_seeds([1.0, None, 3.0]) == (2.0, pytest.approx(2**0.5), 2)
    assert over_seeds([1.0]) == (1.0, None, 1) and over_seeds([None]) is None


def test_list_and_table_exclude_each_other(capsys):
    for cmd in ([], ["--list", "--table", "1"]):
        with pytest.raises(SystemExit):
            tables(cmd)
    assert "--list, or --table" in capsys.readouterr().err


def test_listing_tells_what_is_changed():
    assert "query_grad false" in listing("care_sep")
