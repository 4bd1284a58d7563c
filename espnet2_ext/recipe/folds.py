"""Cross-validation of a tagger: for each fold, one is trained on the others and scored on it; then the means."""

from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.recipe import names, steps
from espnet2_ext.recipe.options import pairs
from espnet2_ext.recipe.steps import log

# options of this command; all others are run.sh's
_OWN = {
    "folds": "",
    "tag_config": "conf/mini/tag_care_cls.yaml",
    "tag_tag": "",
    "tag_args": "",
    "inference_tag": "",
    "expdir": "exp",
    "python": "python",
}


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-folds --folds "1 2 3" [options of ./run.sh --task tagging]`, in a recipe's folder.

    Resumes where it was stopped. The means are printed and written to `EXPDIR/tag_TAG_folds/scores.json` (with
    `--inference_tag T`: `T_scores.json`).
    """
    own, rest = dict(_OWN), []
    for given, name, value in pairs(argv, ["config", "tag_config", "expdir", "datadir", "dumpdir"]):
        name = "tag_config" if name == "config" else name
        if name in own:
            own[name] = value or ""
        else:
            rest += [given] if value is None else [given, value]
    steps.end(lambda: _cross_validate(own, rest))


def _cross_validate(own: dict[str, str], rest: Sequence[str]) -> None:
    folds, expdir, python = own.pop("folds").split(), own["expdir"], own["python"]
    if len(folds) < 2:
        raise DataError("the corpus has one fold alone; there is none to train on")
    tag = own["tag_tag"] or names.tagger_tag(own["tag_config"], own["tag_args"])
    prefix = f"{own['inference_tag']}_" if own["inference_tag"] else ""
    scored = []
    for fold in folds:
        others = " ".join(f for f in folds if f != fold)
        log(f"Fold {fold}: trained on {others}")
        options = [w for name, value in (own | {"tag_tag": f"{tag}_fold{fold}"}).items() for w in (f"--{name}", value)]
        sets = ["--train_folds", others, "--test_folds", fold]
        steps.run(["./run.sh", "--task", "tagging", *sets, *options, "--stop_stage", "9", *rest])
        scored.append(f"{expdir}/tag_{tag}_fold{fold}/tagging_{prefix}folds{fold}")
    for folder in scored:
        if not Path(folder, "scores.json").exists():
            log(f"{folder} is not scored yet, so there is no mean")
            return
    out = f"{expdir}/tag_{tag}_folds/{prefix}scores.json"
    steps.run([python, "-m", "espnet2_ext", "tag-scoring", "--folds", *scored, "--out", out])
