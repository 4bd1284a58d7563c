"""A recipe's folder with a stand-in Python, for tests of the drivers."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

from espnet2_ext.recipe.options import Options
from espnet2_ext.recipe.qsep import QSepOptions
from espnet2_ext.recipe.tag import TagOptions
from espnet2_ext.recipe.weak_options import WeakOptions

ROOT = Path(__file__).resolve().parents[1]

# Writes down how it was called, and makes the files that the driver looks for.
FAKE = f"""#!{sys.executable} -IS
import os, sys
if sys.argv[1] == "-c":
    sys.exit(print(os.environ.get("GPUS", 0)))
name, args = sys.argv[2].rpartition(".")[2], sys.argv[3:]
if name == "espnet2_ext":
    name, *args = args
    name = name.replace("-", "_")
if name.startswith("recipe_"):  # the driver itself is the real one
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
with open(os.environ["CALLS"], "a") as f:
    f.write(" ".join([name, *args]) + "\\n")
with open(os.environ["CALLS"] + ".threads", "a") as f:
    f.write(name + " " + os.environ.get("OMP_NUM_THREADS", "unset") + "\\n")
option = dict(zip(args, args[1:]))
def every(name):
    return [b for a, b in zip(args, args[1:]) if a == name]
def put(path, text=""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
if name == os.environ.get("SLEEP_IN"):
    import signal, time
    put(os.environ["CALLS"] + ".step", str(os.getpid()))
    if os.fork() == 0:
        put(os.environ["CALLS"] + ".worker", str(os.getpid()))
        time.sleep(60)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    time.sleep(60)
if name == os.environ.get("FAIL_IN"):
    sys.exit(print("the reason why", file=sys.stderr) or 3)
if name == "unpack":
    put(option["-o"] + "/config.yaml", "extractor_conf: {{num_classes: 5}}\\nmax_epoch: 9\\n")
if name == "scan":
    put(args[0] + "/manifest.tsv")
if name == "archive":
    about = '{{"manifest_hash": "%s", "clips": %s}}' % (os.environ.get("HASH", "1"), os.environ.get("CLIPS", "9"))
    put(args[1] + "/bank.json", about)
    put(args[1] + "/labels.tsv", "index\\nx\\ny\\n")
if name == "draw_lists":
    put(option["--out"])
    put(option["--out"][:-3] + "json", '{{"list_hash": "l"}}')
if name in ("qsep_train", "weak_train", "qweak_train", "weak_train_asteroid", "tag_train"):
    print("1epoch results: fine", "and noise", sep="\\n")
    out = option["--output_dir"]
    for file in ("checkpoint.pth", "config.yaml", "valid.loss.best.pth"):
        put(out + "/" + file, os.environ.get("WEIGHTS", ""))
if name == "keep_best":
    os.path.lexists(option["--exp_dir"]) and os.unlink(option["--exp_dir"])
    os.symlink(os.path.basename(args[0]), option["--exp_dir"])
if name == "render_lists":
    put(option["--out"] + "/list.json", open(option["--list"][:-3] + "json").read())
if name in ("draw_mixtures", "prepare_musdb18", "prepare_own_weak") and "--out" in option:
    put(option["--out"] + "/table.json", '{{"table_hash": "' + os.environ.get("HASH", "1") + '"}}')
if name == "render_mixtures":
    put(option["--out"] + "/list.json", open(option["--table"] + "/table.json").read())
if name in ("qsep_inference", "weak_inference", "tag_inference"):
    for folder in every("--output_dir"):
        put(folder + "/about.json")
        "TAGS" in os.environ and put(folder + "/self/tags.npz")
if name in ("qsep_scoring", "weak_scoring"):
    for folder in every("--inference_dir"):
        put(folder + "/scores/summary.json")
if name == "tag_scoring" and "--tags_dir" in option:
    put(option["--tags_dir"] + "/scores.json")
if name == "launch":
    put(option["--log"][:-9] + "valid.loss.best.pth")
"""
# Stands for qsep.sh and its like: prints the options that run.sh gives, paths as the real driver sees them.
DRIVER = f"""#!{sys.executable}
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from espnet2_ext.recipe.options import pairs
paths = {{paths!r}}
words = [w for given, name, value in pairs(sys.argv[1:], paths) for w in (given, value) if w is not None]
print({{head}}*words, sep={{sep!r}}, end={{sep!r}})
"""
DATA = """#!/usr/bin/env bash
echo "data $*" >>"$CALLS"
for set in train valid test; do mkdir -p "$2/$set"; touch "$2/$set/clips.tsv"; done
"""


def fake_driver(folder: Path, name: str, sep: str = "|", head: str = "") -> None:
    """Write a stand-in for the driver NAME.sh; head: Python of what is printed first."""
    paths = [
        f.name for o in (QSepOptions, TagOptions, WeakOptions) for f in dataclasses.fields(o) if f.metadata["path"]
    ]
    path = folder / f"{name}.sh"
    path.write_text(DRIVER.format(paths=[*paths, "config"], sep=sep, head=head))
    path.chmod(0o755)


def copy_recipe(folder: Path, template: str, sep: str = "|", head: str = "") -> None:
    """Copy the project's recipe of the folder's name, with a stand-in for its template's driver (see `fake_driver`)."""
    shutil.copytree(ROOT / "egs2/TEMPLATE" / template, folder)
    for name in ("run.sh", "db.sh"):
        shutil.copy(ROOT / "egs2" / folder.name / name, folder)
    fake_driver(folder, template.rstrip("1"), sep, head)


def words_of(folder: Path, cwd: Path, *args: str, **env: str) -> str:
    """What a recipe's run.sh gives to its driver, or its error, run from `cwd`."""
    command = [str(folder / "run.sh"), *args]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={"PATH": os.environ["PATH"], **env})
    return done.stdout.strip() + done.stderr


class Recipe:
    """A recipe with the driver of a template (`qsep1`, `tag1`, `weak1`) and the stand-in Python."""

    def __init__(self, top: Path, template: str):
        self.top, self.folder, self.calls = top, top / "egs2/a", top / "calls"
        self.name = template[:-1]
        shutil.copytree(ROOT / "egs2/TEMPLATE" / template, self.folder)
        (self.folder / "local").mkdir()
        self.script("python", FAKE)
        self.script("local/data.sh", DATA)
        (self.folder / "conf").mkdir()
        (self.folder / "conf/train_x.yaml").write_text("extractor_conf:\n  num_classes: 527\n")
        self.python = str(self.folder / "python")

    def script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def start(self, *args: str, cwd: Path | None = None, preexec_fn=None, **env: str) -> subprocess.Popen:
        command = [str(self.folder / f"{self.name}.sh"), "--python", self.python]
        command += [f"--{self.name}_config", "conf/train_x.yaml", *args]
        return subprocess.Popen(
            command,
            cwd=cwd or self.folder,
            env={**os.environ, "CALLS": str(self.calls), "PYTHONPATH": str(ROOT), **env},
            text=True,
            preexec_fn=preexec_fn,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *args: str, **options) -> tuple[int, str, str]:
        self.calls.write_text("")
        process = self.start(*args, **options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def names(self) -> list[str]:
        return [line.split()[0] for line in self.calls.read_text().splitlines()]

    def call(self, name: str) -> str:
        return next(v for v in self.calls.read_text().splitlines() if v.split()[0] == name)


def options_of(options: type[Options]) -> list[str]:
    """Names of the options of a driver: its own, and those of all drivers."""
    return [field.name for field in dataclasses.fields(options)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
