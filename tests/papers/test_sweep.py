"""Sweeps on a recipe whose run.sh only writes down what it was asked and leaves scores."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fake_recipe import ROOT, Recipe
from recipe_options import options_of

from espnet2_ext.cli.papers import sweep as run_command
from espnet2_ext.errors import DataError
from espnet2_ext.papers.experiments import Notes
from espnet2_ext.papers.run_sweep import write_sweep_table
from espnet2_ext.papers.sweep import Sweep
from espnet2_ext.train.experiment import seconds_of, training_of

RUN = f"""#!{sys.executable} -IS
import json, os, sys, time
args = sys.argv[1:]
option = dict(zip(args[::2], args[1::2]))
kind = "tag" if option.get("--task") == "tagging" else "qsep"
tag = option[f"--{{kind}}_tag"]
with open("calls", "a") as f:
    f.write(json.dumps(args) + "\\n")
if os.path.exists("sleep_in_" + tag):
    import signal
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (open("ended", "w").close(), sys.exit(143)))
    open("started", "w").close()
    time.sleep(60)
if os.path.exists("fail_in_" + tag):
    sys.exit(print("the reason why", file=sys.stderr) or 3)
exp = f"{{option['--expdir']}}/{{kind}}_{{tag}}"
def put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
put(exp + "/config.yaml", "batch_size: 8\\nextractor: care_sep\\n")
put(exp + "/train.log", open("log").read())
put(exp + "/.begun_with", "clips: feed\\n")
value = float(open("scores").read()) + 10 * int(tag[-1])
figures = lambda x: {{"mean": x, "median": x + 1}}
if kind == "tag":
    put(exp + "/tagging_test/scores.json", json.dumps({{"map": 0.5, "keys": 9, "classes": {{}}}}))
else:
    one = {{"sdr": figures(value), "clean_sdr": figures(50.0), "silence_sdr": figures(7.0)}}
    put(exp + "/inference_test/scores/summary.json", json.dumps({{
        "keys": 4, "data_dir": "dump/test_pairs", "list": {{"pairs": 2, "list_hash": "abc"}},
        "protocols": {{"self": one, "other": one}}, "tagging": {{}}}}))
"""
LOG = """Total Number of model parameters: 1.11 M
x INFO: 1epoch results: [train] iter_time=0.1, loss=2.0, time=1 minute and 9.5 seconds, \
total_count=50, [valid] loss=1.0, time=7 seconds, total_count=10
x INFO: 2epoch results: [train] loss=1.0, time=30 seconds, total_count=100, [valid] time=7 seconds
"""
CONTENT = {
    "title": "A test",
    "recipe": "egs2/fake",
    "tables": {"care_sep": ["1", "2"]},
    "cells": [
        {"name": "tag_care_cls", "task": "tagging", "config": "conf/tag.yaml"},
        {
            "name": "C",
            "config": "conf/sep.yaml",
            "seeds": [0, 1],
            "args": "--init_param {exp:tag_care_cls}/valid.loss.best.pth:net.net:extractor.net",
        },
        {"name": "F", "config": "{less}", "options": {"test_sets": "test"}},
    ],
    "configs": {"less": {"from": "conf/sep.yaml", "set": {"criterions.0.conf.alpha": 3}}},
}


class Place:
    """A project's folder with one recipe and one sweep."""

    def __init__(self, top: Path):
        self.top, self.recipe = top, top / "egs2/fake"
        self.yaml = top / "conf/sweeps/side_by_side.yaml"
        self.exp = self.recipe / "exp/side_by_side"
        self.yaml.parent.mkdir(parents=True)
        (self.recipe / "conf").mkdir(parents=True)
        (self.recipe / "run.sh").write_text(RUN)
        (self.recipe / "run.sh").chmod(0o755)
        for kind in ("qsep", "tag", "weak"):
            (self.recipe / f"{kind}.sh").touch()
        (self.recipe / "log").write_text(LOG)
        (self.recipe / "scores").write_text("1.0")
        (self.recipe / "conf/tag.yaml").write_text("query_net: care_cls\n")
        (self.recipe / "conf/sep.yaml").write_text("criterions: [{name: a, conf: {alpha: 1}}]\n")
        self.write(CONTENT)

    def write(self, content: dict) -> None:
        self.yaml.write_text(yaml.safe_dump(content, sort_keys=False))

    def __call__(self, *args: str) -> list[str]:
        """Run the sweep; the tags of the runs that were started."""
        calls = self.recipe / "calls"
        calls.write_text("")
        try:
            run_command([str(self.yaml), *args])
        finally:
            self.calls = [json.loads(line) for line in calls.read_text().splitlines()]
            self.tags = [next(b for a, b in zip(c, c[1:]) if a.endswith("_tag")) for c in self.calls]
        return self.tags

    def table(self) -> str:
        return (self.exp / "sweep_side_by_side.md").read_text()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


ALL = ["tag_care_cls_seed0", "C_seed0", "F_seed0", "C_seed1"]


def test_cells_in_order_first_seeds_first_and_what_they_need_is_filled_in(place):
    assert place() == ALL
    tagger, first, f, _ = place.calls
    assert tagger[:6] == ["--expdir", "exp/side_by_side", "--task", "tagging", "--tag_config", "conf/tag.yaml"]
    needed = "exp/side_by_side/tag_tag_care_cls_seed0/valid.loss.best.pth:net.net:extractor.net"
    assert first[-2:] == ["--qsep_args", f"--init_param {needed} --seed 0"]
    assert "--test_sets" in f and "exp/side_by_side/conf/less.yaml" in f
    edited = yaml.safe_load((place.exp / "conf/less.yaml").read_text())
    assert edited == {"criterions": [{"name": "a", "conf": {"alpha": 3}}]}


def test_a_sweep_without_edited_yamls_begins_in_no_folder(place):
    cells = [cell for cell in CONTENT["cells"] if cell["name"] == "tag_care_cls"]
    place.write({"title": "A test", "recipe": "egs2/fake", "cells": cells})
    assert place("--table_only") == [] and "0 of 1 trainings finished" in place.table()
    (place.exp / "sweep_side_by_side.md").unlink()
    place.exp.rmdir()
    assert place() == ["tag_care_cls_seed0"]


def test_what_is_done_is_not_done_again_unless_it_changed(place):
    place()
    assert place() == []
    (place.recipe / "conf/sep.yaml").write_text("criterions: [{name: b, conf: {alpha: 1}}]\n")
    assert place() == ["C_seed0", "F_seed0", "C_seed1"]
    (place.recipe / "conf/tag.yaml").write_text("query_net: hts_at\n")
    assert place() == ["tag_care_cls_seed0", "C_seed0", "C_seed1"]  # what needs it as well


def test_only_runs_these_and_their_needs(place):
    assert place("--only", "F") == ["F_seed0"]
    assert place("--only", "C") == ["tag_care_cls_seed0", "C_seed0", "C_seed1"]
    assert place("--max_seeds", "1", "--table_only") == []
    assert [r.name for r in Sweep(place.yaml).runs(max_seeds=1)] == ALL[:3]
    with pytest.raises(DataError, match="--only X: no such cell; .*side_by_side.yaml has "):
        place("--only", "X")


def test_a_failure_is_told_the_rest_goes_on_and_it_is_tried_again(place, capsys):
    (place.recipe / "fail_in_tag_care_cls_seed0").touch()
    with pytest.raises(DataError) as e:
        place()
    assert place.tags == ["tag_care_cls_seed0", "F_seed0"]
    assert "tag_care_cls_seed0 (status 3, " in str(e.value)
    assert "C_seed1 (needs tag_care_cls_seed0)" in str(e.value)
    out = capsys.readouterr().out
    assert "the reason why" in out and "C_seed0: not run, needs tag_care_cls_seed0" in out
    assert "the reason why" in (place.exp / "log/tag_care_cls_seed0.log").read_text()
    (place.recipe / "fail_in_tag_care_cls_seed0").unlink()
    assert place() == ["tag_care_cls_seed0", "C_seed0", "C_seed1"]


def test_entry_point_ends_with_a_status(place):
    (place.recipe / "fail_in_F_seed0").touch()
    done = subprocess.run(
        [sys.executable, "-m", "espnet2_ext", "sweep", str(place.yaml)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "failed: F_seed0 (status 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_prints_commands_and_writes_nothing(place, capsys):
    assert place("--dry_run", "--run_options", "--esc50 /a --ngpu 1", "--only", "F") == []
    out = capsys.readouterr().out
    command, made = out.splitlines()
    assert command.startswith("(cd ") and command.endswith("--esc50 /a --ngpu 1)")
    assert made.startswith("# made when the sweep runs: ") and made.endswith("conf/less.yaml")
    assert "egs2/fake && ./run.sh --expdir exp/side_by_side --qsep_config exp/" in out
    assert not place.exp.exists()


def test_no_cell_is_started_after_the_time(place, capsys):
    assert place("--max_minutes", "0") == []
    assert "tag_care_cls_seed0: not started after 0 minutes" in capsys.readouterr().out


@pytest.mark.parametrize("sent, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_ends_what_it_started_and_goes_on_later(place, sent, status):
    (place.recipe / "sleep_in_C_seed0").touch()
    command = [sys.executable, "-m", "espnet2_ext", "sweep", str(place.yaml)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (place.recipe / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    process.communicate(timeout=120)
    assert process.returncode == status and (place.recipe / "ended").exists()
    (place.recipe / "sleep_in_C_seed0").unlink()
    assert place() == ["C_seed0", "F_seed0", "C_seed1"]


def rows(text: str, section: str) -> dict[str, list[str]]:
    """Cells of the Markdown table after `section`, by the first column."""
    lines = text[text.index(section) :].split("\n\n|")[1].split("\n\n")[0].splitlines()
    cells = [line.strip("|").split("|") for line in lines]
    return {row[0]: row[1:] for row in [cells[0], *cells[2:]]}


def test_the_table_has_means_spread_cost_and_the_papers_values(place):
    place("--only", "C", "F")
    text = place.table()
    assert "4 of 4 trainings finished" in text and "list abc" in text
    scores = rows(text, "## Scores: test, query `self`")
    # seeds 0 and 1 give 1 and 11: mean 6, standard deviation 10 / sqrt(2)
    assert scores["C"] == ["6.00 ± 7.07 (2)", "50.00 ± 0.00 (2)", "7.00 ± 0.00 (2)"]
    assert rows(text, "## Cost")["C"][:5] == ["1", "1.11 M", "1 min 40 s", "100", "1600"]
    table = rows(text, "## Table 2")
    assert table["C: 768-d CaRE-SEP (grad, init, shared)"][:2] == ["6.00 ± 7.07 (2)", "13.14"]
    assert table["D: C without gradient (init, shared)"][:2] == ["", "10.09"]
    table = rows(text, "## Table 1")
    assert table["768-d CaRE-CLS"][:2] == ["0.500", "0.463"] and table["PANN"][0] == ""


def test_scores_of_another_command_leave_the_table(place):
    place()
    cells = [cell | {"args": "--other 1"} if cell["name"] == "F" else cell for cell in CONTENT["cells"]]
    place.write({**CONTENT, "cells": cells})
    place("--table_only")
    assert "3 of 4 trainings finished" in place.table()
    assert "other YAMLs: F_seed0." in place.table()
    assert "F" not in rows(place.table(), "## Scores: test, query `self`")
    (place.recipe / "fail_in_F_seed0").touch()
    with pytest.raises(DataError, match="F_seed0"):
        place()
    assert "other YAMLs" not in place.table()  # it is no longer noted
    assert "F" not in rows(place.table(), "## Scores: test, query `self`")
    assert rows(place.table(), "## Table 2")["F: C without gradient and initialisation (shared)"][0] == ""


def test_what_is_built_on_a_run_that_is_done_anew_is_so_too(place):
    place()
    shutil.rmtree(place.exp / "tag_tag_care_cls_seed0")
    assert place() == ["tag_care_cls_seed0", "C_seed0", "C_seed1"]


def test_broken_scores_do_not_stop_the_rest(place):
    place("--only", "F")
    (place.exp / "qsep_F_seed0/inference_test/scores/summary.json").write_text("{")
    with pytest.raises(DataError, match="the table .*F_seed0.*summary.json: is not valid JSON"):
        place("--max_seeds", "1")
    assert place.tags == ["tag_care_cls_seed0", "C_seed0"]


def test_a_copied_sweep_fills_the_papers_tables(place):
    place.yaml = place.yaml.rename(place.yaml.with_name("mine.yaml"))
    place.write({**CONTENT, "folder": "side_by_side"})
    place("--only", "C")
    table = rows((place.exp / "sweep_mine.md").read_text(), "## Table 2")
    assert table["C: 768-d CaRE-SEP (grad, init, shared)"][:2] == ["6.00 ± 7.07 (2)", "13.14"]


@pytest.mark.parametrize("content", ["[]", '{"runs": null}', '{"runs": {"a": {"folders": null}}}'])
def test_broken_notes_are_named(place, content):
    place.exp.mkdir(parents=True)
    (place.exp / "sweep_side_by_side.json").write_text(content)
    with pytest.raises(DataError, match="sweep_side_by_side.json: .*; remove it"):
        place()


def test_the_table_alone(place):
    place("--only", "F")
    (place.exp / "sweep_side_by_side.md").unlink()
    assert place("--table_only") == [] and "1 of 4 trainings finished" in place.table()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cels": []}, "side_by_side.yaml: unknown key cels"),
        ({"cells": [{"name": "x"}]}, r"side_by_side.yaml: cells\[0\]: config is missing"),
        ({"cells": [{"name": "x", "config": "y", "seed": 1}]}, r"cells\[0\]: unknown key seed"),
        ({"cells": [{"name": "x", "config": "y", "task": "z"}]}, r"cells\[0\].task: 'z' is none of"),
        (
            {"cells": [{"name": "x", "config": "y", "seeds": ["a"]}]},
            r"cells\[0\]: key seeds.0: expected a whole number",
        ),
        ({"cells": [{"name": "x", "config": "y", "seeds": [1, 1]}]}, "expected a list of different"),
        ({"cells": []}, "side_by_side.yaml: cells: there is none"),
        (
            {"cells": [{"name": "x", "config": "y", "options": {"qsep_tag": "a"}}]},
            r"cells\[0\]: qsep_tag cannot be an option: the sweep sets that",
        ),
        (
            {"task": "weak", "cells": [{"name": "x", "config": "y", "options": {"trials": 2}}]},
            r"cells\[0\]: trials cannot be an option",
        ),
        (
            {"task": "weak", "cells": [{"name": "x", "config": "y"}, {"name": "z", "config": "y", "args": "{exp:x}"}]},
            r"cells\[1\]: \{exp:x\} has several experiments, one a label type",
        ),
        ({"cells": [{"name": "x", "config": "y"}] * 2}, "cells: x is duplicated"),
        ({"cells": [{"name": "x", "config": "{base}"}]}, r"cells\[0\]: \{base\} is not known"),
        ({"cells": [{"name": "x", "config": "y", "args": "{exp:a}"}]}, "no such cell before x"),
        ({"configs": {"a": {"set": {}}}}, "key configs.a.from: is missing"),
        ({"configs": {"less": {"from": "conf/sep.yaml", "set": {"a.b": 1}}}}, "configs.less.set: a.b leads nowhere"),
        ({"recipe": "egs2/nowhere"}, "nowhere: no run.sh there"),
        ({"cells": None}, "side_by_side.yaml: key cells: expected a list"),
        ({"cells": [{"name": "x", "config": 3}]}, r"cells\[0\]: key config: expected text"),
        ({"sizes": [1]}, "sizes: expected keys with values"),
        ({"sizes": 3}, "sizes: expected keys with values or nothing, got 3"),
        ({"configs": {"less": {"from": "conf/sep.yaml", "set": 3}}}, "less.set: expected keys with"),
        ({"tables": ["1"]}, "tables: expected keys with values"),
        ({"options": ["a"]}, "options: expected keys with values"),
        ({"configs": {"less": {"from": "{less}", "set": {}}}}, "configs.less: is made of itself"),
        ({"folder": "my exp"}, "'my exp' cannot name the folder"),
        ({"recipe": "egs2/weak"}, r"cells\[0\]: .*/weak is no recipe of tagging \(it has no tag.sh"),
    ],
)
def test_wrong_yamls_name_file_and_key(place, change, message):
    (place.top / "egs2/weak").mkdir()
    (place.top / "egs2/weak/run.sh").touch()
    place.write({**CONTENT, **change})
    with pytest.raises(DataError, match=message):
        place()


def test_what_is_no_sweep_is_named(place, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    for path, message in (
        (tmp_path / "a.png", "a.png: is not UTF-8 text"),
        (tmp_path, "is a folder"),
        (tmp_path / "b.yaml", "b.yaml: no such file"),
    ):
        with pytest.raises(DataError, match=message):
            Sweep(path)
    with pytest.raises(DataError, match="--size x: .*: this sweep has no sizes"):
        Sweep(place.yaml, size="x")


@pytest.mark.parametrize(
    "options, message",
    [
        ("--expdir /scratch", r"cells\[0\]: expdir cannot be an option"),
        ("--qsep-args '--seed 3'", "qsep_args cannot be an option"),
        ("--ngpu", "--run_options: expected --name value, got --ngpu"),
        ("ngpu 1", "--run_options: expected --name value, got ngpu"),
        ("--test_sets other", "--run_options: F is what it is by --test_sets test"),
    ],
)
def test_wrong_options_of_run_sh_are_named(place, options, message):
    with pytest.raises(DataError, match=message):
        place(f"--run_options={options}")


def test_needs_come_first_whatever_their_seeds(place):
    place.write(
        {
            **CONTENT,
            "cells": [
                {"name": "a", "config": "conf/sep.yaml", "seeds": [0, 1]},
                {"name": "b", "config": "conf/sep.yaml", "seeds": [1], "args": "{exp:a}"},
            ],
        }
    )
    assert place("--max_seeds", "1") == ["a_seed0", "a_seed1", "b_seed1"]
    with pytest.raises(DataError, match="--max_seeds 0: 1 is the least"):
        place("--max_seeds", "0")


def test_two_processes_note_beside_each_other(place):
    sweep = Sweep(place.yaml)
    first, second = Notes(sweep), Notes(sweep)
    runs = sweep.runs()
    first.add(runs[0], first.start(runs[0]), 1.0)
    second.add(runs[1], second.start(runs[1]), 1.0)
    assert set(Notes(sweep).runs) == {runs[0].name, runs[1].name}


def test_a_table_is_written_whole_beside_another_process(place):
    early = Notes(Sweep(place.yaml))
    place()
    write_sweep_table(early)
    assert "4 of 4 trainings finished" in place.table()


def test_edited_yamls_are_the_same_in_every_sweep_that_has_them(place):
    texts = []
    for name in ("one", "two"):
        path = place.yaml.with_name(f"{name}.yaml")
        path.write_text(place.yaml.read_text())
        Sweep(path, folder="both").configs.write()
        texts.append((place.recipe / "exp/both/conf/less.yaml").read_text())
    assert texts[0] == texts[1] and "alpha: 3" in texts[0]


def test_arguments_for_all_cells_or_for_those_of_a_task(place):
    place.write({**CONTENT, "args": "--a 1"})
    args = [Sweep(place.yaml).cells[name].args for name in ("tag_care_cls", "F")]
    assert args == ["--a 1", "--a 1"]
    place.write({**CONTENT, "args": {"separation": "--b {exp:tag_care_cls}/x"}})
    sweep = Sweep(place.yaml)
    assert sweep.cells["tag_care_cls"].args == ""
    assert sweep.cells["C"].args == f"--b {{exp:tag_care_cls}}/x {CONTENT['cells'][1]['args']}"
    assert sweep.cells["F"].needs == ["tag_care_cls"]
    place.write({**CONTENT, "args": {"tag": "--a 1"}})
    with pytest.raises(DataError, match="args: unknown key tag; available: separation, tagging"):
        Sweep(place.yaml)


def test_sizes(place):
    sizes = {"mini": {"base": "conf/sep.yaml"}, "paper": {"base": "conf/tag.yaml"}}
    place.write(
        {
            **CONTENT,
            "sizes": sizes,
            "configs": {},
            "cells": [{"name": "x", "config": "{base}", "options": {"datadir": "data/{folder}"}}],
        }
    )
    assert Sweep(place.yaml).options(Sweep(place.yaml).runs()[0])["qsep_config"] == "conf/sep.yaml"
    sweep = Sweep(place.yaml, size="paper")
    assert sweep.expdir == "exp/side_by_side_paper"
    options = sweep.options(sweep.runs()[0])
    assert options["qsep_config"] == "conf/tag.yaml"
    assert options["datadir"] == "data/side_by_side_paper"
    assert Sweep(place.yaml, size="paper", folder="own").expdir == "exp/own_paper"
    with pytest.raises(DataError, match="--size big: .*side_by_side.yaml: available: mini, paper"):
        Sweep(place.yaml, size="big")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"strategy": "joint"},
        {"trainer": "asteroid", "strategy": "finetune"},
        {"weak_args": "--classifier_conf pooling=average", "classifier_args": "--max_epoch 3"},
        {"weak_tag": "own"},
        {"run": "--label-types=frame --nj 2"},
    ],
)
def test_experiments_of_weak_labels_are_named_as_the_driver_names_them(place, tmp_path, more):
    recipe = Recipe(tmp_path / "real", "weak1")
    more, words = {k: v for k, v in more.items() if k != "run"}, more.get("run", "")
    (recipe.folder / "conf/less.yaml").write_text("strategy: fixed\n")
    (recipe.folder / "run.sh").touch()
    place.write(
        {
            "title": "t",
            "recipe": "egs2/fake",
            "task": "weak",
            "cells": [
                {
                    "name": "x",
                    "config": "conf/less.yaml",
                    "args": "--config conf/less.yaml",
                    "options": {"label_types": "strong clip", **more},
                }
            ],
        }
    )
    sweep = Sweep(place.yaml, recipe=recipe.folder, run_options=words.split())
    (run,) = sweep.runs()
    status, _, err = recipe(*sweep.command(run)[1:], "--stop_stage", "6")
    assert status == 0, err
    assert list(sweep.folders(run)) == (["frame"] if words else ["strong", "clip"])
    for folder in sweep.folders(run).values():
        assert (recipe.folder / folder / "valid.loss.best.pth").exists(), folder


def test_cells_that_would_be_one_experiment_are_refused(place):
    place.write(
        {
            "title": "t",
            "recipe": "egs2/fake",
            "task": "weak",
            "cells": [
                {"name": "a", "config": "conf/sep.yaml", "options": {"weak_args": "--pooling max"}},
                {"name": "b", "config": "conf/sep.yaml", "options": {"label_types": "clip"}},
            ],
        }
    )
    Sweep(place.yaml)
    with pytest.raises(DataError, match="a and b would both be the experiment .*--weak_args"):
        Sweep(place.yaml, run_options=["--weak_tag", "own"])


def test_times_of_the_log():
    assert seconds_of("1 hour, 2 minutes and 3.5 seconds") == 3723.5
    assert seconds_of("50.03 seconds") == 50.03


def test_training_facts_of_nothing_are_none(tmp_path):
    assert training_of(tmp_path) == (None, None, None, None)


SWEEPS = sorted((ROOT / "conf/sweeps").glob("*.yaml"))


def sizes_of(path: Path) -> list[str | None]:
    return list(yaml.safe_load(path.read_text()).get("sizes") or [None])


@pytest.mark.parametrize(
    "path, size", [(p, s) for p in SWEEPS for s in sizes_of(p)], ids=lambda v: v.stem if isinstance(v, Path) else v
)
def test_shipped_sweeps_name_yamls_and_options_that_exist(path, size):
    sweep = Sweep(path, size=size)
    for name in sweep.configs:
        assert sweep.configs.content(name)["max_epoch"] > 0
    for run in sweep.runs():
        options = sweep.options(run)
        assert options.keys() <= options_of(sweep.recipe, run.cell.task), run.name
        for word in " ".join(options.values()).split():
            if word.endswith(".yaml") and not word.startswith("exp/"):
                assert (sweep.recipe / word).is_file(), f"{run.name}: {word}"
