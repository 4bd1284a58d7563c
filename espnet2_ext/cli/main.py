"""`espnet2-ext COMMAND ...`: the table of commands, and the one way in which each ends (`run`).

A command's module is imported when it is called.
"""

import contextlib
import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable

from espnet2_ext import __version__
from espnet2_ext.errors import DataError, explain
from espnet2_ext.util import process

PROG = "espnet2-ext"
# malloc.h of glibc: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX
_MALLOPT = {-4: 0, -1: 2**31 - 1, -2: 2**26, -8: 1}
ASTEROID = ("asteroid", "asteroid_filterbanks", "pytorch_lightning")
PACKAGES = {"espnet2": "espnet", "yaml": "pyyaml", "pytorch_lightning": "pytorch-lightning", "sklearn": "scikit-learn"}
OPTIONAL = {"h5py", "dask", "distributed", "dask_jobqueue", "onnx", "onnxscript", "onnxruntime"}  # extras of setup.py

# group: {command: (module:function, one line of help)}; the function takes the arguments after the command's name,
# behind those that stand after its own name here
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Use a trained model": {
        "separate": ("espnet2_ext.cli.separate:separate", "separate a sound from recordings, by example or by class"),
        "app": ("espnet2_ext.cli.app:app", "separate on a page in the browser"),
        "find": ("espnet2_ext.cli.separate:find", "list where in a recording a sound occurs"),
        "embed": ("espnet2_ext.cli.separate:embed", "save the query vector of some sounds"),
        "adapt": ("espnet2_ext.cli.separate:adapt", "tune the query of some examples to the sounds around it"),
        "info": ("espnet2_ext.cli.bundles:info", "describe a bundle"),
        "classes": ("espnet2_ext.cli.bundles:classes", "list the classes that a model knows"),
        "calibrate": ("espnet2_ext.cli.bundles:calibrate", "measure what a query model heard, for class:NAME queries"),
        "pack": ("espnet2_ext.cli.bundles:pack", "pack a training into a bundle"),
        "unpack": ("espnet2_ext.cli.bundles:unpack", "begin a training with the model of a bundle"),
        "export": ("espnet2_ext.cli.bundles:export", "write a query separator as ONNX"),
        "convert": ("espnet2_ext.cli.infer:convert", "convert published checkpoints"),
    },
    "Data": {
        "validate-data": ("espnet2_ext.cli.data:validate_data", "check label tables"),
        "prepare": ("espnet2_ext.cli.data:prepare", "stage 1: lists of any corpus"),
        "prepare-audioset": ("espnet2_ext.cli.data:prepare audioset", "stage 1: lists of AudioSet"),
        "prepare-esc50": ("espnet2_ext.cli.data:prepare esc50", "stage 1: lists of ESC-50"),
        "prepare-starter": ("espnet2_ext.cli.data:prepare starter", "stage 1: sounds for the model in the package"),
        "prepare-urbansound8k": ("espnet2_ext.cli.data:prepare urbansound8k", "stage 1: lists of UrbanSound8K"),
        "prepare-musdb18": ("espnet2_ext.cli.data:prepare musdb18", "stages 1 and 4: lists and tables of MUSDB18"),
        "prepare-own": ("espnet2_ext.cli.data:prepare own", "stage 1: lists of your own sounds"),
        "prepare-own-weak": ("espnet2_ext.cli.data:prepare own-weak", "stages 1 and 4: your own labelled recordings"),
        "hold-out": ("espnet2_ext.cli.data:hold_out", "split a list of clips in two"),
        "scan": ("espnet2_ext.cli.data:scan", "stage 2: decode every clip, write its manifest"),
        "archive": ("espnet2_ext.cli.data:archive", "stage 3: resample every clip into a clip bank"),
        "draw-lists": ("espnet2_ext.cli.data:draw_lists", "stage 4: draw a list of mixtures for queries"),
        "render-lists": ("espnet2_ext.cli.data:render_lists", "stage 4: render a list of mixtures"),
        "draw-mixtures": ("espnet2_ext.cli.data:draw_mixtures", "stage 4: draw a table of weakly labelled mixtures"),
        "render-mixtures": ("espnet2_ext.cli.data:render_mixtures", "stage 4: render a table of mixtures"),
        "make-mini": ("espnet2_ext.cli.data:make_mini", "make the embedded corpus in the layout of another"),
        "make-mini-audioset": ("espnet2_ext.cli.data:make_mini audioset", "make the embedded AudioSet"),
        "make-mini-urbansound8k": ("espnet2_ext.cli.data:make_mini urbansound8k", "make the embedded UrbanSound8K"),
        "make-mini-musdb18": ("espnet2_ext.cli.data:make_mini musdb18", "make the embedded MUSDB18"),
    },
    "Training": {
        "qsep-train": ("espnet2_ext.cli.train:qsep_train", "train a query-based separator"),
        "qweak-train": ("espnet2_ext.cli.train:qweak_train", "train a query-based separator from weak labels"),
        "weak-train": ("espnet2_ext.cli.train:weak_train", "train a classifier or separator from weak labels"),
        "tag-train": ("espnet2_ext.cli.train:tag_train", "train a tagger"),
        "weak-train-asteroid": ("espnet2_ext.cli.train:weak_train_asteroid", "weak labels with Asteroid and Lightning"),
        "qsep-check": ("espnet2_ext.cli.train:qsep_check", "check data and model before training"),
        "tag-check": ("espnet2_ext.cli.train:tag_check", "check a tagger and its data before training"),
        "keep-best": ("espnet2_ext.cli.train:keep_best", "keep the best of several trials"),
    },
    "Test sets": {
        "qsep-inference": ("espnet2_ext.cli.infer:qsep_inference", "separate a rendered test set by queries"),
        "class-queries": ("espnet2_ext.cli.infer:class_queries", "queries of classes heard in labelled recordings"),
        "weak-inference": ("espnet2_ext.cli.infer:weak_inference", "separate a rendered test set by classes"),
        "tag-inference": ("espnet2_ext.cli.infer:tag_inference", "tag a clip bank"),
        "tag-anchors": ("espnet2_ext.cli.infer:tag_anchors", "find anchors with a tagger"),
        "qsep-scoring": ("espnet2_ext.cli.score:score", "score separation by queries"),
        "weak-scoring": ("espnet2_ext.cli.score:score", "score separation by classes"),
        "tag-scoring": ("espnet2_ext.cli.score:score_tags", "score tags"),
        "qsep-report": ("espnet2_ext.cli.score:report_queries", "table, pictures and page of a query experiment"),
        "weak-report": ("espnet2_ext.cli.score:report_classes", "table, pictures and page of weak-label experiments"),
        "tag-report": ("espnet2_ext.cli.score:report_tags", "table of a tagger"),
        "qsep-pack": ("espnet2_ext.cli.bundles:qsep_pack", "bundle of a scored query experiment"),
        "weak-pack": ("espnet2_ext.cli.bundles:weak_pack", "bundles of scored weak-label experiments"),
        "qsep-describe": ("espnet2_ext.cli.bundles:qsep_describe", "describe a model that was trained elsewhere"),
        "embedding-figure": ("espnet2_ext.cli.score:embedding_figure", "figure 3 of the CaRE-SEP paper"),
    },
    "Recipes": {
        "recipe": ("espnet2_ext.cli.train:recipe", "copy a recipe's folder, such as audioset_qsep, to work in"),
        "recipe-qsep": ("espnet2_ext.recipe.qsep:main", "run a recipe of query-based separation (its run.sh does)"),
        "recipe-weak": ("espnet2_ext.recipe.weak:main", "run a recipe of separation from weak labels"),
        "recipe-tag": ("espnet2_ext.recipe.tag:main", "run a recipe of taggers"),
        "recipe-folds": ("espnet2_ext.recipe.folds:main", "cross-validate with a recipe: a model for each fold"),
    },
    "Papers and benchmarks": {
        "tables": ("espnet2_ext.cli.papers:tables", "the papers' tables, filled with your results"),
        "sweep": ("espnet2_ext.cli.papers:sweep", "run the cells of a table one after the other"),
        "bench": ("espnet2_ext.cli.papers:bench", "time training steps, data loading and queries"),
    },
}


def usage() -> str:
    """Text of `espnet2-ext --help`."""
    lines = [f"usage: {PROG} COMMAND ...   ({PROG} COMMAND --help: its options; {PROG} --version)"]
    for group, commands in COMMANDS.items():
        lines += ["", group, *(f"  {name:<22} {text}" for name, (_, text) in commands.items())]
    return "\n".join(lines)


def find(name: str) -> str:
    """`module:function` of a command, and arguments that stand with it; `scan_x` is `scan-x`.

    Raises:
        DataError: no such command; names the nearest.
    """
    known = {command: target for commands in COMMANDS.values() for command, (target, _) in commands.items()}
    key = name.replace("_", "-")
    if key not in known:
        from espnet2_ext.util.names import nearest

        near = nearest(key, known)
        raise DataError(f"unknown command {name}" + (f"; did you mean {near}?" if near else f"; see {PROG} --help"))
    return known[key]


def main(argv: list[str] | None = None) -> None:
    """Console script: run one command; ends the process with a plain message when something is wrong."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] in ([], ["-h"], ["--help"]):
        run(lambda: print(usage(), file=sys.stdout if argv else sys.stderr))
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        return run(lambda: print(f"{PROG} {__version__}"))
    try:
        target, *more = find(argv[0]).split()
    except DataError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    sys.argv[0] = f"{PROG} {argv[0]}"  # what argparse calls the program
    module, _, function = target.partition(":")
    run(lambda: getattr(importlib.import_module(module), function)([*more, *argv[1:]]))


# ---- how a command ends --------------------------------------------------------------------------


def run(main: Callable) -> None:
    """Run `main()`; end with a plain message and a status other than zero when it fails.

    What the user can mend (`explain`: bad input, a full disk, a worker that was killed) or a package that is
    not installed is a line, status 1. Ctrl-C ends with 130, SIGTERM with 143, a reader that has gone (`| head`) with
    141 and no word. Anything else is an error of this program and keeps its traceback.
    """
    import logging

    keep_memory()
    with process.ends_on_signals():
        process.follow_driver()
        process.allow_open_files()
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow down a busy machine; before torch
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
        logging.raiseExceptions = False  # a log that cannot be written is no reason for a traceback
        sys.unraisablehook = _unraisable
        try:
            status = None
            try:
                main()
            except SystemExit as e:  # of argparse
                status = e
            sys.stdout.flush()
            if status:
                raise status
        except Exception as e:
            process.no_more_of_workers()
            if isinstance(e, BrokenPipeError) and process.reader_is_gone():
                os._exit(141)
            text = _missing(e) if isinstance(e, ModuleNotFoundError) else explain(e)
            if text is None:
                raise
            print(f"error: {text}", file=sys.stderr)
            process.end_children()
            sys.exit(1)


def program(main: Callable) -> None:
    """`run` as all that a process does: Ctrl-C is no traceback before and after it either."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    run(main)


def _unraisable(found) -> None:
    """What the user is told anyway, such as a loader's worker that died, is no traceback where it cannot be raised."""
    if found.exc_value is None or explain(found.exc_value) is None:
        sys.__unraisablehook__(found)


def _missing(error: ModuleNotFoundError) -> str | None:
    top = (error.name or "").partition(".")[0]
    return None if top in ("", "espnet2_ext") else missing_package(top)


def keep_memory() -> None:
    """Let the process keep the memory that it frees, and take it in large pages.

    By default, Linux maps every large tensor anew and clears it page by page; where page faults
    are dear (virtual machines), that takes several times as long as a training step itself. Call
    it before PyTorch makes its first tensor. Elsewhere than on glibc it does nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by PyTorch's allocator
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            for option, value in _MALLOPT.items():
                libc.mallopt(option, value)


def missing_package(module: str) -> str:
    """What to tell a user without the package of `module`."""
    import platform

    package = PACKAGES.get(module, module)
    text = f"this command needs the package {package}, which is not installed"
    if package in OPTIONAL:
        return f"{text}: pip install {package}"
    old = f" (ESPnet needs Python 3.12 or 3.13, this is {platform.python_version()})"
    needs_more = sys.version_info < (3, 12) and module in ("espnet2", "torchaudio", *ASTEROID)
    return f"{text}; `pip install espnet2_ext` without --no-deps installs it{old if needs_more else ''}"


if __name__ == "__main__":
    main()
