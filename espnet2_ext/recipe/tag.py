"""The driver of taggers; the data of stages 1 to 3 are those of the separation's driver."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from espnet2_ext.recipe import names
from espnet2_ext.recipe.options import Options, option
from espnet2_ext.recipe.stages import Driver, Stage, need, number_of_classes, value_of
from espnet2_ext.recipe.steps import end
from espnet2_ext.recipe.training import Training


@dataclasses.dataclass(kw_only=True)
class TagOptions(Options):
    """Options of `tag.sh`."""

    CONFIG = "tag_config"
    USAGE = """Usage: ./run.sh --task tagging [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 5 checks, 6 training, 7 tagging, 8 scoring, 9 report, 10 anchors."""

    tag_config: str = option("Model", "conf/mini/tag_care_cls.yaml", "YAML of the tagger and its training", path=True)
    tag_tag: str = option("Model", "", "name of the experiment; empty: from the YAML's name")
    tag_exp: str = option("Model", "", "its folder; empty: EXPDIR/tag_TAG")
    tag_args: str = option("Model", "", "more options for training, as ESPnet takes them")
    inference_tag: str = option("Model", "", "prefix of the names of tags and scores")
    anchor_seconds: str = option(
        "Model", "2.0", "length of the anchors in seconds, as the separator's pair_conf: segment"
    )
    anchor_sets: str = option("Model", "", "sets to find anchors in; empty: the training set")


class Tag(Driver):
    """Taggers: stages 1 to 3 and 5 to 10; there are no lists to draw in stage 4."""

    o: TagOptions
    kind = "tag"

    def __init__(self, options: TagOptions):
        super().__init__(options)
        tag = self.o.tag_tag or names.tagger_tag(self.o.tag_config, self.o.tag_args)
        self.exp_dir = Path(self.o.tag_exp or self.exp / f"tag_{tag}")
        self.tests = self.o.test_sets.split()

    def folder(self) -> Path:
        return self.exp_dir

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
        """The training, and its options; a tagger has one output per class of the label table."""
        o = self.o
        for name in (o.train_set, o.valid_set):
            need(self.dump / name / "bank.json", 3)
        classes = number_of_classes(self.dump / o.train_set)
        more = ["--query_net_conf", f"num_classes={classes}", *o.words("tag_args")]
        training = Training(
            exp=self.exp_dir,
            data=f"clips in {self.dump / o.train_set}",
            data_digest=value_of(self.dump / o.train_set / "bank.json", "manifest_hash"),
            valid_digest=value_of(self.dump / o.valid_set / "bank.json", "manifest_hash"),
            config=self.config,
            args=more,
        )
        banks = ["--train_bank", self.dump / o.train_set, "--valid_bank", self.dump / o.valid_set]
        args = ["--config", o.tag_config, "--output_dir", self.exp_dir, "--resume", "true", *banks]
        return training, [*args, *more]

    def check(self) -> None:
        """Stage 5."""
        training, args = self.training()
        self.check_once(training, "tag-check", args)

    def train(self) -> None:
        """Stage 6."""
        training, args = self.training()
        self.train_once(training, partial(self.train_with_espnet, self.exp_dir, "tag_train", args))

    def tags(self, name: str) -> Path:
        """Folder of a test set's tags."""
        return self.exp_dir / "_".join(filter(None, ["tagging", self.o.inference_tag, name]))

    def _use(self, command: str, args: list, options: list[str]) -> None:
        """A step with the trained model."""
        model = self.exp_dir / self.o.inference_model
        need(model, 6)
        args += ["--train_config", self.exp_dir / "config.yaml", "--model_file", model]
        self.step(command, *args, *self.inference_options(options))

    def infer(self) -> None:
        """Stage 7."""
        for name in self.tests:
            need(self.dump / name / "bank.json", 3)
            args = ["--bank", self.dump / name, "--output_dir", self.tags(name)]
            self._use("tag-inference", args, self.o.words("inference_args"))

    def score(self) -> None:
        """Stage 8."""
        for name in self.tests:
            need(self.tags(name) / "about.json", 7)
            self.step("tag-scoring", "--bank", self.dump / name, "--tags_dir", self.tags(name), one_thread=True)

    def report(self) -> None:
        """Stage 9."""
        for name in self.tests:
            need(self.tags(name) / "scores.json", 8)
        folders = [word for name in self.tests for word in ("--tags_dir", self.tags(name))]
        self.step("tag-report", "--exp_dir", self.exp_dir, *folders, one_thread=True)

    def anchors(self) -> None:
        """Stage 10: anchors for a separator's training (--qsep_args "--anchor_file FILE")."""
        options = [word for word in self.o.words("inference_args") if word != "--frames"]  # made of frames anyway
        for name in self.o.anchor_sets.split() or [self.o.train_set]:
            need(self.dump / name / "bank.json", 3)
            args = ["--bank", self.dump / name, "--out", self.exp_dir / f"anchors_{name}.npz"]
            self._use("tag-anchors", [*args, "--segment", self.o.anchor_seconds], options)


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-tag`."""
    end(lambda: Tag(TagOptions.parse(argv)).run())
