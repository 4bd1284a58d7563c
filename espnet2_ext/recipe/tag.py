"""The driver of taggers; the data of stages 1 to 3 are those of the separation's driver."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.recipe.options import Options, group, tagger_tag
from espnet2_ext.recipe.stages import ClipDriver, Stage
from espnet2_ext.recipe.steps import end, need, number_of_classes, value_of
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
