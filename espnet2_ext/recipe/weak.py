"""The driver of separation from weak labels."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.recipe.options import initial, weak_tags
from espnet2_ext.recipe.stages import Driver, Stage
from espnet2_ext.recipe.steps import end, log, need, need_rendered, value_of
from espnet2_ext.recipe.training import Training
from espnet2_ext.recipe.weak_options import WeakOptions


class Test(NamedTuple):
    """Mixtures of a test set. name: of the mixtures; table: their table; lambda_: mean number of events."""

    name: str
    set: str
    table: Path
    lambda_: str


class Run(NamedTuple):
    """A test of a separator. queries: what it is asked with, one of --queries; empty: a separator of classes."""

    test: Test
    queries: str = ""

    @property
    def name(self) -> str:
        """Of the results."""
        return "_".join(filter(None, [self.test.name, self.queries]))


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
        self.by_query, self.init = o.task == "query", initial(o.init)
        if self.init and not self.by_query:
            raise DataError(
                "--init: a separator of classes begins with random weights; --task query can begin with a bundle"
            )
        named = {"trainer": o.trainer, "strategy": self.strategy, "trials": self.trials}
        self.tags = weak_tags(o.weak_config, **shared, **named, init=self.init.stem if self.init else "")
        lambdas = (o.test_mean_events or o.mean_events).split()
        self.folder = self.experiment("report")
        self.tests = [self._test(name, value, len(lambdas) > 1) for name in self.test_sets for value in lambdas]
        if self.by_query != bool(self.config.get("extractor")):
            raise DataError(f"--task {o.task}: {o.weak_config} is of the other task")
        asked = ["class"] if o.mixtures_from == "recordings" else o.queries.split()
        self.runs = [Run(test, queries) for test in self.tests for queries in (asked if self.by_query else [""])]

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
        """Table of a set's mixtures."""
        return self.data / name / "mixtures"

    @property
    def valid_table(self) -> Path:
        """That of the validation; where the training set validates, other mixtures of its clips, if they are drawn."""
        same = self.o.valid_set == self.o.train_set and self.o.mixtures_from == "drawn"
        return self.data / self.o.valid_set / ("mixtures_valid" if same else "mixtures")

    def rendered(self, test: Test) -> Path:
        """Folder of the mixtures of a test."""
        return self.dump / f"{test.name}_mix"

    def mixtures(self) -> None:
        """Stage 4: tables are drawn from an archive once and written; those of the tests are rendered as well."""
        o = self.o
        known = ["--known", o.train_known]
        self._make_table(o.train_set, self.table(o.train_set), o.train_mixtures, o.mean_events, 0, known)
        if self.valid_table != self.table(o.train_set):
            self._make_table(o.valid_set, self.valid_table, o.valid_mixtures, o.mean_events, 1, known)
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
        begin = self._begin()
        for label in self.labels:
            if label != "strong" or self.by_query:
                args = ["--part", "classifier", "--label_type", label, *begin, *self.o.words("classifier_args")]
                self._train_trials(self.classifier(label), args)

    def train_separators(self) -> None:
        """Stage 6."""
        self._need_tables()
        begin = self._begin()
        for label in self.labels:
            args = ["--part", "separator", "--label_type", label]
            args += ["--strategy", self.strategy] if self.strategy else []
            args += self.o.words("separator_args")
            if (label != "strong" or self.by_query) and self.strategy != "joint":
                need(self.classifier(label) / ".done", 5)
                args += ["--classifier_file", str(self.classifier(label) / self.o.inference_model)]
            else:
                args += begin
            self._train_trials(self.experiment(label), args)

    def _begin(self) -> list[str]:
        return self.begin_with(self.exp / f"weak_{self.tags.classifier}_init")

    def _need_tables(self) -> None:
        for table in (self.table(self.o.train_set), self.valid_table):
            need(table / "table.json", 4)

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
        train, valid = self.table(o.train_set), self.valid_table
        more = [*o.words("weak_args"), *args]
        training = Training(
            exp=exp,
            data=f"mixtures in {train}",
            data_digest=value_of(train / "table.json", "table_hash"),
            valid_digest=value_of(valid / "table.json", "table_hash"),
            config=self.config,
            args=more,
        )
        options: list = ["--config", self.config_file, "--output_dir", exp, "--resume", "true"]
        options += ["--train_table", train, "--train_bank", self.dump / o.train_set]
        options += ["--valid_table", valid, "--valid_bank", self.dump / o.valid_set, *more]
        with_trainer = {"espnet": self._with_espnet, "asteroid": self._with_asteroid}[o.trainer]
        self.train_once(training, partial(with_trainer, exp, options))

    def _with_espnet(self, exp: Path, options: Sequence[object]) -> None:
        # its curves are not drawn at each epoch: stage 9 draws them
        self.train_with_espnet(
            exp, "qweak_train" if self.by_query else "weak_train", ["--use_matplotlib", "false", *options]
        )

    def _with_asteroid(self, exp: Path, options: Sequence[object]) -> None:
        if self.is_distributed:
            raise DataError("--trainer asteroid trains on one machine")
        where = ["--devices", str(gpus)] if (gpus := self.gpus()) else ["--accelerator", "cpu"]
        log(f"full log: {exp}/train.log; curves: {exp}/lightning/metrics.csv")
        command = [self.o.python, "-m", "espnet2_ext", "weak-train-asteroid", *map(str, options), *where]
        self.follow(exp, command)

    # ---- use ---------------------------------------------------------------------------------

    def inference_dir(self, label: str, run: Run) -> Path:
        """Folder of a separator's outputs for a test."""
        return self.experiment(label) / self.outputs(run.name)

    def _need_rendered(self) -> None:
        for test in self.tests:
            need_rendered(self.rendered(test), test.table / "table.json", "table_hash")

    def infer(self) -> None:
        """Stage 7: the separators of all label types together, test by test."""
        self._need_rendered()
        for label in self.labels:
            need(self.experiment(label) / self.o.inference_model, 6)
            if self.by_query:
                train, valid = self.o.train_set, self.o.valid_set
                heard = ["--table", self.table(train), "--bank", self.dump / train, *self.inference_options([])[:2]]
                heard += ["--held_out", self.valid_table, self.dump / valid] if valid != train else []
                self.step("class-queries", *self._model(label), *heard)
        for run in self.runs:
            models: list = []
            for label in self.labels:
                models += ["--output_dir", self.inference_dir(label, run), *self._model(label)]
            options = self.inference_options(self.o.words("inference_args"))
            options += ["--queries", run.queries] if run.queries else []
            self.step("weak-inference", "--data_dir", self.rendered(run.test), *models, *options)

    def _model(self, label: str) -> list:
        exp = self.experiment(label)
        return ["--train_config", exp / "config.yaml", "--model_file", exp / self.o.inference_model]

    def score(self) -> None:
        """Stage 8."""
        self._need_rendered()
        for run in self.runs:
            folders: list = []
            for label in self.labels:
                need(self.inference_dir(label, run) / "about.json", 7)
                folders += ["--inference_dir", self.inference_dir(label, run)]
            args = ["--data_dir", self.rendered(run.test), *folders, *self.jobs, *self.o.words("scoring_args")]
            self.step("weak-scoring", *args, one_thread=True)

    def report(self) -> None:
        """Stage 9."""
        for label in self.labels:
            for run in self.runs:
                need(self.inference_dir(label, run) / "scores/summary.json", 8)
        experiments = [w for label in self.labels for w in ("--experiment", f"{label}={self.experiment(label)}")]
        tests = [w for run in self.runs for w in ("--test_set", self.outputs(run.name).removeprefix("inference_"))]
        self.step("weak-report", "--output_dir", self.folder, *experiments, *tests, one_thread=True)
        models = [self.experiment(label) for label in self.labels]
        self.step("weak-pack", *models, "--model_file", self.o.inference_model, *tests)
        self.last_words = [f"Listen:   {self.folder}/index.html"]


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-weak`."""
    end(lambda: Weak(WeakOptions.parse(argv)).run())
