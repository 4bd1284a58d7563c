"""A recipe's folder with a stand-in Python, for tests of the drivers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Writes down how it was called, and makes the files that the driver looks for.
FAKE = f"""#!{sys.executable} -IS
import os, sys
if sys.argv[1] == "-c" and "REAL_CHECKS" in os.environ:
    code, sys.argv = sys.argv[2], sys.argv[1:2] + sys.argv[3:]
    exec(code)
if sys.argv[1] == "-c":
    sys.exit(print(0))
name, args = sys.argv[2].rpartition(".")[2], sys.argv[3:]
if name == "espnet2_ext":
    name, args = args[0], args[1:]
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
    if os.fork() == 0:
        put(os.environ["CALLS"] + ".worker", str(os.getpid()))
        time.sleep(60)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    time.sleep(60)
if name == os.environ.get("FAIL_IN"):
    sys.exit(print("the reason why", file=sys.stderr) or 3)
if name == "scan":
    put(args[0] + "/manifest.tsv")
if name == "archive":
    put(args[1] + "/bank.json", '{{"manifest_hash": "' + os.environ.get("HASH", "1") + '"}}')
    put(args[1] + "/labels.tsv", "index\\nx\\ny\\n")
if name == "draw_lists":
    put(option["--out"])
    put(option["--out"][:-3] + "json", '{{"list_hash": "l"}}')
if name in ("qsep_train", "weak_train", "weak_train_asteroid", "tag_train"):
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
DATA = """#!/usr/bin/env bash
echo "data $*" >>"$CALLS"
for set in train valid test; do mkdir -p "$2/$set"; touch "$2/$set/clips.tsv"; done
"""


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

    def start(self, *args: str, cwd: Path | None = None, **env: str) -> subprocess.Popen:
        command = [str(self.folder / f"{self.name}.sh"), "--python", self.python]
        command += [f"--{self.name}_config", "conf/train_x.yaml", *args]
        return subprocess.Popen(
            command,
            cwd=cwd or self.folder,
            env={**os.environ, "CALLS": str(self.calls), **env},
            text=True,
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


def options_of(driver: Path) -> list[str]:
    """Names of the options of a driver: its own, set before its help, and those of all drivers."""
    common = (driver.parent / "utils.sh").read_text().split("common_defaults() {")[1]
    lines = common.split("\n}\n")[0].splitlines()
    lines += driver.read_text().split("usage()")[0].splitlines()
    pairs = [line.strip().partition("=") for line in lines]
    return [name for name, equals, _ in pairs if equals and name.isidentifier()]
