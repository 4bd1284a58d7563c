"""The driver of separation from weak labels."""

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.recipe.options import Options, group, option, weak_tags
from espnet2_ext.recipe.stages import Driver, Stage, need, need_rendered, value_of
from espnet2_ext.recipe.steps import end, log
from espnet2_ext.recipe.training import Training

LABEL_TYPES = ("strong", "frame", "clip", "mixed")
_mix, _model = group("Mixtures"), group("Model")
# checkpoints whose validation loss is known, so that trials can be compared
_COMPARABLE = re.compile(r"latest\.pth|valid\.loss\.best\.pth|\d.*epoch\.pth")


@dataclasses.dataclass(kw_only=True)
class WeakOptions(Options):
    """Options of `weak.sh`."""

    CONFIG = "weak_config"
    USAGE = """Usage: ./run.sh [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 4 mixtures, 5 classifiers, 6 separators, 7 inference, 8 scoring, 9 report."""

    fs: str = option("Data", "16000", "sample rate")
    mixtures_from: str = _mix(
        "drawn",
        "drawn from a bank of events; songs: their chunks, whole for the test; or recordings",
        choices=("drawn", "songs", "recordings"),
    )
    train_mixtures: str = _mix("20000", "number of training mixtures")
    valid_mixtures: str = _mix("5000", "number of validation mixtures")
    test_mixtures: str = _mix("5000", "number of mixtures of each test set")
    mean_events: str = _mix("5", "the paper's lambda, events in a mixture")
    test_mean_events: str = _mix(
        "", "lambda of the test mixtures; several: each test set once per lambda; empty: --mean_events"
    )
    background_classes: str = _mix("", "comma-separated classes used as unlabelled background")
    train_known: str = _mix(
        "strong", "labels known in training: strong, or shares such as strong:0.1,frame:0.3,clip:0.6"
    )
    mixture_args: str = _mix("", "more options for making the mixtures")
    test_mixture_args: str = _mix("", "more options for making the test mixtures")
    mixtures_seed: int = _mix(0, "seed of the tables; validation and test use the next two")
    weak_config: str = _model("conf/train_weak_small.yaml", "YAML of the model and its training", path=True)
    weak_tag: str = _model("", "name of the experiments; empty: from the YAML's name")
    label_types: str = _model("strong frame clip", "separators to train: any of strong, frame, clip, mixed")
    strategy: str = _model("", "of the classifier: joint, finetune, fixed; empty: as the YAML says")
    trials: str = _model("1", "seeds to try (0, 1, ...) for each training; the lowest validation loss is kept")
    trainer: str = _model("espnet", "espnet, or asteroid: its System with Lightning", choices=("espnet", "asteroid"))
    weak_args: str = _model("", "more options for both trainings, as ESPnet takes them")
    classifier_args: str = _model("", "more options for the classifiers' training")
    separator_args: str = _model("", "more options for the separators' training")
    scoring_args: str = _model("", "more options for scoring")

    def check(self) -> None:
        """Refuse values that no stage could use.

        Raises:
            DataError: names the option.
        """
        for label in self.label_types.split():
            if label not in LABEL_TYPES:
                raise DataError(f"--label_types: {label} is none of {' '.join(LABEL_TYPES)}")
        if not self.label_types.split():
            raise DataError(f"--label_types: name at least one of {' '.join(LABEL_TYPES)}")
        if not re.fullmatch("[1-9][0-9]*", self.trials):
            raise DataError(f"--trials takes a whole number from 1, not '{self.trials}'")
        if self.trials == "1":
            return
        if not _COMPARABLE.fullmatch(self.inference_model):
            raise DataError(
                f"--trials {self.trials}: the validation loss of --inference_model {self.inference_model} is not known;"
                " trials are told apart by that of latest.pth, valid.loss.best.pth or Nepoch.pth"
            )
        words = self.words("weak_args") + self.words("classifier_args") + self.words("separator_args")
        if any(word.partition("=")[0] == "--seed" for word in words):
            raise DataError(f"--trials {self.trials} trains with seeds 0, 1, ...: leave out --seed, or add --trials 1")


class Test(NamedTuple):
    """Mixtures of a test set. name: of the results; table: their table; lambda_: mean number of events."""

    name: str
    set: str
    table: Path
    lambda_: str


class Weak(Driver):
    """Separation from weak labels: stages 1 to 9."""

    o: WeakOptions
    kind = "weak"

    def __init__(self, options: WeakOptions):
        super().__init__(options)
        o = self.o
        o.check()
        self.labels, self.trials = o.label_types.split(), int(o.trials)
        self.strategy = o.strategy or self.config.get("strategy") or ""
        shared = {name: getattr(o, name) for name in ("weak_tag", "weak_args", "classifier_args", "separator_args")}
        self.tags = weak_tags(o.weak_config, **shared, trainer=o.trainer, strategy=self.strategy, trials=self.trials)
        lambdas = (o.test_mean_events or o.mean_events).split()
        self.folder = self.experiment("report")
        self.tests = [self._test(name, value, len(lambdas) > 1) for name in self.test_sets for value in lambdas]

    def _test(self, name: str, lambda_: str, several: bool) -> Test:
        end = f"_lambda{lambda_}" if several else ""  # with several lambdas they are part of a test's name
        return Test(name + end, name, self.data / name / f"mixtures{end}", lambda_)

    def experiment(self, label: str) -> Path:
        """Folder of the separator of a label type."""
        return self.exp / f"weak_{self.tags.separator}_{label}"

    def classifier(self, label: str) -> Path:
        """Folder of the classifier of a label type."""
        return self.exp / f"weak_{self.tags.classifier}_classifier_{label}"

    def stages(self) -> list[Stage]:
        return [
            *self.data_stages(),
            Stage(4, "data", "tables of mixtures", self.mixtures),
            Stage(5, "train", "classifiers", self.train_classifiers),
            Stage(6, "train", "separators", self.train_separators),
            Stage(7, "eval", "inference", self.infer),
            Stage(8, "eval", "scoring", self.score),
            Stage(9, "eval", "report and bundles", self.report),
        ]

    # ---- mixtures ----------------------------------------------------------------------------

    def table(self, name: str) -> Path:
        """Table of the mixtures of the training or validation set."""
        return self.data / name / "mixtures"

    def rendered(self, test: Test) -> Path:
        """Folder of the mixtures of a test."""
        return self.dump / f"{test.name}_mix"

    def mixtures(self) -> None:
        """Stage 4: tables are drawn from an archive once and written; those of the tests are rendered as well."""
        o = self.o
        known = ["--known", o.train_known]
        self._make_table(o.train_set, self.table(o.train_set), o.train_mixtures, o.mean_events, 0, known)
        if o.valid_set != o.train_set:
            self._make_table(o.valid_set, self.table(o.valid_set), o.valid_mixtures, o.mean_events, 1, known)
        for test in self.tests:
            self._make_table(test.set, test.table, o.test_mixtures, test.lambda_, 2, [], is_test=True)
            args = ["--table", test.table, "--bank", self.dump / test.set, "--out", self.rendered(test), *self.jobs]
            self.step("render-mixtures", *args, one_thread=True)

    def _make_table(
        self, name: str, table: Path, number: str, lambda_: str, seed: int, known: list[str], *, is_test: bool = False
    ) -> None:
        """Make the table of a set's mixtures; seed: added to --mixtures_seed."""
        o, bank = self.o, self.dump / name
        need(bank / "bank.json", 3)
        more = o.words("mixture_args") + (o.words("test_mixture_args") if is_test else [])
        to = ["--bank", bank, "--out", table]
        if o.mixtures_from == "songs":
            more += ["--whole"] if is_test else []
            self.step("prepare-musdb18", "tables", self.data / name, *to, *self.jobs, *more, one_thread=True)
        elif o.mixtures_from == "recordings":
            self.step("prepare-own-weak", "tables", self.data / name, *to, *more, one_thread=True)
        else:
            drawn = ["--mixtures", number, "--mean_events", lambda_, "--seed", o.mixtures_seed + seed]
            drawn += ["--background_classes", o.background_classes, *self.jobs, *known, *more]
            self.step("draw-mixtures", *to, *drawn, one_thread=True)

    # ---- training ----------------------------------------------------------------------------

    def train_classifiers(self) -> None:
        """Stage 5: the classifiers that separators of weak labels are judged by, one for each kind of label."""
        self._need_tables()
        if self.strategy == "joint":
            log("strategy joint: classifiers are trained with the separators")
            return
        for label in self.labels:
            if label != "strong":
                args = ["--part", "classifier", "--label_type", label, *self.o.words("classifier_args")]
                self._train_trials(self.classifier(label), args)

    def train_separators(self) -> None:
        """Stage 6."""
        self._need_tables()
        for label in self.labels:
            args = ["--part", "separator", "--label_type", label]
            args += ["--strategy", self.strategy] if self.strategy else []
            args += self.o.words("separator_args")
            if label != "strong" and self.strategy != "joint":
                need(self.classifier(label) / ".done", 5)
                args += ["--classifier_file", str(self.classifier(label) / self.o.inference_model)]
            self._train_trials(self.experiment(label), args)

    def _need_tables(self) -> None:
        for name in (self.o.train_set, self.o.valid_set):
            need(self.table(name) / "table.json", 4)

    def _train_trials(self, exp: Path, args: list[str]) -> None:
        """Train as often as --trials says, and have the best in the folder `exp`."""
        if self.trials == 1:
            if exp.is_symlink():
                raise DataError(f"{exp} was chosen from several --trials: give another --weak_tag")
            self._train(exp, args)
            return
        folders = [exp.with_name(f"{exp.name}_seed{seed}") for seed in range(self.trials)]
        for seed, folder in enumerate(folders):
            self._train(folder, [*args, "--seed", str(seed)])
        self.step("keep-best", *folders, "--exp_dir", exp, "--model_file", self.o.inference_model)

    def _train(self, exp: Path, args: list[str]) -> None:
        o = self.o
        train, valid = self.table(o.train_set), self.table(o.valid_set)
        more = [*o.words("weak_args"), *args]
        training = Training(
            exp=exp,
            data=f"mixtures in {train}",
            data_digest=value_of(train / "table.json", "table_hash"),
            valid_digest=value_of(valid / "table.json", "table_hash"),
            config=self.config,
            args=more,
        )
        options: list = ["--config", o.weak_config, "--output_dir", exp, "--resume", "true"]
        options += ["--train_table", train, "--train_bank", self.dump / o.train_set]
        options += ["--valid_table", valid, "--valid_bank", self.dump / o.valid_set, *more]
        with_trainer = {"espnet": self._with_espnet, "asteroid": self._with_asteroid}[o.trainer]
        self.train_once(training, partial(with_trainer, exp, options))

    def _with_espnet(self, exp: Path, options: Sequence[object]) -> None:
        # its curves are not drawn at each epoch: stage 9 draws them
        self.train_with_espnet(exp, "weak_train", ["--use_matplotlib", "false", *options])

    def _with_asteroid(self, exp: Path, options: Sequence[object]) -> None:
        if self.is_distributed:
            raise DataError("--trainer asteroid trains on one machine")
        where = ["--devices", str(gpus)] if (gpus := self.gpus()) else ["--accelerator", "cpu"]
        log(f"full log: {exp}/train.log; curves: {exp}/lightning/metrics.csv")
        command = [self.o.python, "-m", "espnet2_ext", "weak-train-asteroid", *map(str, options), *where]
        self.follow(exp, command)

    # ---- use ---------------------------------------------------------------------------------

    def inference_dir(self, label: str, test: Test) -> Path:
        """Folder of a separator's outputs for a test."""
        return self.experiment(label) / self.outputs(test.name)

    def _need_rendered(self) -> None:
        for test in self.tests:
            need_rendered(self.rendered(test), test.table / "table.json", "table_hash")

    def infer(self) -> None:
        """Stage 7: the separators of all label types together, test by test."""
        self._need_rendered()
        for test in self.tests:
            models: list = []
            for label in self.labels:
                exp = self.experiment(label)
                model = exp / self.o.inference_model
                need(model, 6)
                models += ["--output_dir", self.inference_dir(label, test)]
                models += ["--train_config", exp / "config.yaml", "--model_file", model]
            options = self.inference_options(self.o.words("inference_args"))
            self.step("weak-inference", "--data_dir", self.rendered(test), *models, *options)

    def score(self) -> None:
        """Stage 8."""
        self._need_rendered()
        for test in self.tests:
            folders: list = []
            for label in self.labels:
                need(self.inference_dir(label, test) / "about.json", 7)
                folders += ["--inference_dir", self.inference_dir(label, test)]
            args = ["--data_dir", self.rendered(test), *folders, *self.jobs, *self.o.words("scoring_args")]
            self.step("weak-scoring", *args, one_thread=True)

    def report(self) -> None:
        """Stage 9."""
        for label in self.labels:
            for test in self.tests:
                need(self.inference_dir(label, test) / "scores/summary.json", 8)
        experiments = [w for label in self.labels for w in ("--experiment", f"{label}={self.experiment(label)}")]
        tests = [w for test in self.tests for w in ("--test_set", self.outputs(test.name).removeprefix("inference_"))]
        self.step("weak-report", "--output_dir", self.folder, *experiments, *tests, one_thread=True)
        models = [self.experiment(label) for label in self.labels]
        self.step("weak-pack", *models, "--model_file", self.o.inference_model, *tests)
        self.last_words = [f"Listen:   {self.folder}/index.html"]


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-weak`."""
    end(lambda: Weak(WeakOptions.parse(argv)).run())
