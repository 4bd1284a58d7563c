"""Cross-validation with a recipe: each fold is tested with a model of the others."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.recipe import steps
from espnet2_ext.recipe.options import config_name, pairs, tagger_tag
from espnet2_ext.recipe.steps import log


class Kind(NamedTuple):
    """What differs between the recipes.

    prefix: of the experiments' folders and of the options that name a YAML and an experiment.
    config: its YAML, where none is given.
    labels: separators that are trained side by side, of --label_types, where none are given; empty: one model.
    tag: name of the experiments without the fold; of the options.
    sets: options that choose the sets; of a fold and the others.
    outputs: folder of a fold's outputs in its experiment; of the fold and --inference_tag. scores: file in it.
    command: makes the means.
    """

    prefix: str
    config: str
    labels: str
    tag: Callable[[dict[str, str]], str]
    sets: Callable[[str, list[str]], list[str]]
    outputs: Callable[[str, str], str]
    scores: str
    command: str


def _tested(fold: str, others: list[str]) -> list[str]:
    """The next fold validates; where two alone are left to train on, other mixtures of their clips do."""
    train, valid = others, others
    if len(others) > 2:
        valid = [next((f for f in others if int(f) > int(fold)), others[0])]
        train = [f for f in others if f not in valid]
    return ["--train_folds", ",".join(train), "--valid_folds", ",".join(valid), "--test_folds", fold]


KINDS = {
    "tagging": Kind(
        "tag",
        "conf/mini/tag_care_cls.yaml",
        "",
        lambda own: tagger_tag(own["tag_config"], own["tag_args"]),
        lambda fold, others: ["--train_folds", " ".join(others), "--test_folds", fold],
        lambda fold, run: f"tagging_{run}folds{fold}",
        "scores.json",
        "tag-scoring",
    ),
    "class": Kind(
        "weak",
        "conf/train_weak_few.yaml",
        "strong frame clip",
        lambda own: config_name(own["weak_config"]),
        _tested,
        lambda fold, run: f"inference_{run}folds{fold}",
        "scores/summary.json",
        "weak-scoring",
    ),
}


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-folds --folds "1 2 3" --task TASK [options of ./run.sh]`, in a recipe's folder.

    For each fold, a model is trained on the others and scored on it. Resumes where it was stopped. The means are
    printed and written to the folder `EXPDIR/tag_TAG_folds` (`scores.json`) or `EXPDIR/weak_TAG_folds` (one file a
    label type, `LABELS_scores.json`); with `--inference_tag T` the files' names begin with T.
    """
    given = pairs(argv, ["config", "tag_config", "weak_config", "expdir", "datadir", "dumpdir"])
    task = {name: value for _, name, value in given}.get("task")
    kind = KINDS.get(task or "")
    if kind is None:
        raise DataError(f"--task takes {' or '.join(KINDS)}, not '{task}'")
    # options of this command; all others are run.sh's
    own = {"folds": "", "inference_tag": "", "expdir": "exp", "python": "python"}
    own |= {f"{kind.prefix}_config": kind.config, f"{kind.prefix}_tag": "", f"{kind.prefix}_args": ""}
    own |= {"label_types": kind.labels} if kind.labels else {}
    words = []
    for option, name, value in given:
        name = f"{kind.prefix}_config" if name == "config" else name
        if name in own:
            own[name] = value or ""
        if name not in ("folds", f"{kind.prefix}_tag"):
            words += [option] if value is None else [option, value]
    steps.end(lambda: _cross_validate(kind, own, words))


def _cross_validate(kind: Kind, own: dict[str, str], words: Sequence[str]) -> None:
    folds, exp, python = own["folds"].split(), own["expdir"], own["python"]
    if len(folds) < 2:
        raise DataError("the corpus has one fold alone; there is none to train on")
    tag = own[f"{kind.prefix}_tag"] or kind.tag(own)
    for fold in folds:
        others = [f for f in folds if f != fold]
        log(f"Fold {fold}: tested with a model of the others")
        named = [f"--{kind.prefix}_tag", f"{tag}_fold{fold}", "--stop_stage", "9"]
        steps.run(["./run.sh", *kind.sets(fold, others), *named, *words])
    run = f"{own['inference_tag']}_" if own["inference_tag"] else ""
    for label in own.get("label_types", "").split() or [""]:
        model = f"{kind.prefix}_{tag}_foldFOLD" + (f"_{label}" if label else "")
        folders = [f"{exp}/{model.replace('FOLD', fold)}/{kind.outputs(fold, run)}" for fold in folds]
        for folder in folders:
            if not Path(folder, kind.scores).exists():
                log(f"{folder} is not scored yet, so there is no mean")
                return
        out = f"{exp}/{kind.prefix}_{tag}_folds/{run}{label}{'_' if label else ''}scores.json"
        steps.run([python, "-m", "espnet2_ext", kind.command, "--folds", *folders, "--out", out])
