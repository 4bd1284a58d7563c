"""The driver of taggers; the data of stages 1 to 3 are those of the separation's driver."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.recipe import steps
from espnet2_ext.recipe.options import Options, group, pairs, tagger_tag
from espnet2_ext.recipe.stages import ClipDriver, Stage, need, number_of_classes, value_of
from espnet2_ext.recipe.steps import end, log
from espnet2_ext.recipe.training import Training

_model = group("Model")


@dataclasses.dataclass(kw_only=True)
class TagOptions(Options):
    """Options of `tag.sh`."""

    CONFIG = "tag_config"
    USAGE = """Usage: ./run.sh --task tagging [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 5 checks, 6 training, 7 tagging, 8 scoring, 9 report, 10 anchors."""

    tag_config: str = _model("conf/mini/tag_care_cls.yaml", "YAML of the tagger and its training", path=True)
    tag_tag: str = _model("", "name of the experiment; empty: from the YAML's name")
    tag_exp: str = _model("", "its folder; empty: EXPDIR/tag_TAG")
    tag_args: str = _model("", "more options for training, as ESPnet takes them")
    anchor_seconds: str = _model("2.0", "seconds of an anchor, as the separator's pair_conf: segment")
    anchor_sets: str = _model("", "sets to find anchors in; empty: the training set")


class Tag(ClipDriver):
    """Taggers: stages 1 to 3 and 5 to 10; there are no lists to draw in stage 4."""

    o: TagOptions
    kind = "tag"

    def __init__(self, options: TagOptions):
        super().__init__(options, options.tag_tag or tagger_tag(options.tag_config, options.tag_args))

    def stages(self) -> list[Stage]:
        return [
            *self.data_stages(),
            Stage(5, "train", "checks", self.check),
            Stage(6, "train", "training", self.train),
            Stage(7, "eval", "tagging of the test sets", self.infer),
            Stage(8, "eval", "scoring", self.score),
            Stage(9, "eval", "report", self.report),
            Stage(10, "eval", "anchors", self.anchors),
        ]

    def training(self) -> tuple[Training, list]:
        o = self.o
        for name in (o.train_set, o.valid_set):
            need(self.dump / name / "bank.json", 3)
        classes = number_of_classes(self.dump / o.train_set)  # a tagger has one output per class of the label table
        more = ["--query_net_conf", f"num_classes={classes}", *o.words("tag_args")]
        return self.clip_training(value_of(self.dump / o.valid_set / "bank.json", "manifest_hash"), more)

    def tags(self, name: str) -> Path:
        """Folder of a test set's tags."""
        return self.folder / self.outputs(name, "tagging")

    def model(self) -> list:
        """Options that name the trained model."""
        model = self.folder / self.o.inference_model
        need(model, 6)
        return ["--train_config", self.folder / "config.yaml", "--model_file", model]

    def infer(self) -> None:
        """Stage 7."""
        options = self.inference_options(self.o.words("inference_args"))
        for name in self.test_sets:
            need(self.dump / name / "bank.json", 3)
            self.tag_clips(name, self.tags(name), self.model(), options)

    def score(self) -> None:
        """Stage 8."""
        for name in self.test_sets:
            self.score_tags(name, self.tags(name))

    def report(self) -> None:
        """Stage 9."""
        for name in self.test_sets:
            need(self.tags(name) / "scores.json", 8)
        folders = [word for name in self.test_sets for word in ("--tags_dir", self.tags(name))]
        self.step("tag-report", "--exp_dir", self.folder, *folders, one_thread=True)

    def anchors(self) -> None:
        """Stage 10: anchors for a separator's training (--qsep_args "--anchor_file FILE")."""
        words = [word for word in self.o.words("inference_args") if word != "--frames"]  # made of frames anyway
        for name in self.o.anchor_sets.split() or [self.o.train_set]:
            need(self.dump / name / "bank.json", 3)
            args = ["--bank", self.dump / name, "--out", self.folder / f"anchors_{name}.npz"]
            args += ["--segment", self.o.anchor_seconds, *self.model()]
            self.step("tag-anchors", *args, *self.inference_options(words))


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-tag`."""
    end(lambda: Tag(TagOptions.parse(argv)).run())


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


def cross_validate(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-folds --folds "1 2 3" [options of ./run.sh --task tagging]`, in a recipe's folder.

    For each fold, a tagger is trained on the others and scored on it. Resumes where it was stopped. The means are
    printed and written to `EXPDIR/tag_TAG_folds/scores.json` (with `--inference_tag T`: `T_scores.json`).
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
    tag = own["tag_tag"] or tagger_tag(own["tag_config"], own["tag_args"])
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
