"""The driver of query-based separation."""

import dataclasses
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.recipe.options import BEGINS, Options, bundle_tag, group, initial, query_tag
from espnet2_ext.recipe.stages import ClipDriver, Stage
from espnet2_ext.recipe.steps import end, need, need_rendered, number_of_classes, value_of
from espnet2_ext.recipe.training import Training
from espnet2_ext.util.binary import BROKEN, open_zip
from espnet2_ext.util.names import bundle_file

_mix, _model = group("Mixtures"), group("Model")


@dataclasses.dataclass(kw_only=True)
class QSepOptions(Options):
    """Options of `qsep.sh`."""

    CONFIG = "qsep_config"
    USAGE = """Usage: ./run.sh [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 4 lists, 5 checks, 6 training, 7 inference, 8 scoring, 9 report."""

    valid_pairs: str = _mix("500", "number of validation mixtures; auto: 8 for each clip, 24 to 500")
    valid_seconds: str = _mix("2.0", "their length in seconds; 0: whole clips")
    test_pairs: str = _mix("0", "mixtures of each test set; 0: each clip once as first target")
    test_seconds: str = _mix("0", "their length in seconds; 0: whole clips")
    test_protocols: str = _mix(
        "", "further test lists of each set, NAME or NAME:MIXTURES: conditions (targets of each), dcase2024"
    )
    list_anchors: str = _mix(
        "", "a tagger's folder: its anchors_SET.npz place the lists' segments; empty: by energy", path=True
    )
    pairs_seed: str = _mix("0", "seed of the lists")
    query_set: str = _mix("", "set that has the other query of a class with a single clip in a test set")
    qsep_config: str = _model("conf/train_qsep_care_sep_small.yaml", "YAML of the model and its training", path=True)
    qsep_tag: str = _model("", "name of the experiment; empty: from the YAML's name")
    qsep_exp: str = _model("", "its folder; empty: EXPDIR/qsep_TAG")
    qsep_args: str = _model("", "more options for training, as ESPnet takes them")
    init: str = _model("none", BEGINS, path=True)
    bundle: str = _model("", "score this model instead of training one: a bundle, or an experiment's folder", path=True)
    scoring_args: str = _model("", "more options for scoring")
    presence_mixtures: str = _model(
        "100", "validation mixtures that the bundle's presence score is calibrated on, as by `calibrate`; 0: none"
    )


class QSep(ClipDriver):
    """Query-based separation: stages 1 to 9."""

    o: QSepOptions
    kind = "qsep"

    def __init__(self, options: QSepOptions):
        o = options
        self.bundle, init = Path(bundle_file(o.bundle)) if o.bundle else None, None
        if self.bundle:  # the test sets alone, and a folder of its own for the outputs
            o.train_set = o.valid_set = ""
            o.skip_train = True
            tag = bundle_tag(o.qsep_tag or o.bundle)
        else:
            init = initial(o.init)
            tag = o.qsep_tag or query_tag(o.qsep_config, o.qsep_args)
            tag += f"_from_{init.stem}" if init and not o.qsep_tag else ""
        super().__init__(options, tag)
        self.init = init
        if self.bundle:
            check_bundle(self.bundle, o.inference_model)
            if (self.folder / "checkpoint.pth").exists():
                text = "whose config.yaml its scores would replace; for a folder of its own: --qsep_tag NAME"
                raise DataError(f"--bundle: {self.folder} holds a training, {text}")
        protocols = [word.partition(":") for word in o.words("test_protocols")]
        # name of each list -> the bank that it is drawn from, and options of its own
        self.test_lists = {name: (name, [], o.test_pairs) for name in self.test_sets}
        self.test_lists |= {
            f"{name}_{protocol}": (name, ["--protocol", protocol], number or "0")
            for name in self.test_sets
            for protocol, _, number in protocols
        }
        self.valid_list = self.data / o.valid_set / "valid_pairs.tsv"

    def stages(self) -> list[Stage]:
        return [
            *self.data_stages(),
            Stage(4, "data", "draw and render lists", self.lists),
            Stage(5, "train", "checks", self.check),
            Stage(6, "train", "training", self.train),
            Stage(7, "eval", "inference", self.infer),
            Stage(8, "eval", "scoring", self.score),
            Stage(9, "eval", "report and bundle", self.report),
        ]

    def lists(self) -> None:
        """Stage 4: lists are drawn from an archive once and written; test lists are rendered as well."""
        o = self.o
        for name in o.sets:
            need(self.dump / name / "bank.json", 3)
        if not self.bundle:
            self._draw(o.valid_set, self.valid_list, self.valid_pairs(), o.valid_seconds)
        for name, (bank, more, number) in self.test_lists.items():
            pairs = self.data / name / "pairs.tsv"
            self._draw(bank, pairs, number, o.test_seconds, *more)
            args = ["--list", pairs, "--bank", self.dump / bank, "--out", self.rendered(name), *self.jobs]
            args += ["--query_bank", self.dump / o.query_set] if o.query_set and not self.bundle else []
            self.step("render-lists", *args, one_thread=True)

    def valid_pairs(self) -> str:
        """Number of validation mixtures."""
        if self.o.valid_pairs != "auto":
            return self.o.valid_pairs
        return str(min(500, max(24, 8 * int(value_of(self.dump / self.o.valid_set / "bank.json", "clips") or 0))))

    def _draw(self, name: str, out: Path, number: str, seconds: str, *more: str) -> None:
        args = ["--num_pairs", number, "--segment", seconds, "--seed", self.o.pairs_seed, *more]
        if self.o.list_anchors:
            args += ["--anchor_file", f"{self.o.list_anchors}/anchors_{name}.npz"]
        self.step("draw-lists", "--bank", self.dump / name, "--out", out, *args)

    def training(self) -> tuple[Training, list]:
        need(self.dump / self.o.train_set / "bank.json", 3)
        need(self.valid_list, 4)
        more = self.begin_with(self.folder / "init")
        # a network that tags has one output per class of the label table, unless --qsep_args says otherwise
        parts = [part for part, conf in self.config.items() if isinstance(conf, dict) and conf.get("num_classes")]
        classes = number_of_classes(self.dump / self.o.train_set)
        more += [word for part in parts for word in (f"--{part}", f"num_classes={classes}")]
        valid = value_of(self.valid_list.with_suffix(".json"), "list_hash")
        return self.clip_training(valid, more + self.o.words("qsep_args"), "--valid_pairs", self.valid_list)

    def rendered(self, name: str) -> Path:
        """Folder of a list's mixtures."""
        return self.dump / f"{name}_pairs"

    def inference_dir(self, name: str) -> Path:
        """Folder of a list's outputs."""
        return self.folder / self.outputs(name)

    def has_tags(self, name: str) -> bool:
        """Whether the model has tagged the queries of a test set."""
        return (self.inference_dir(name) / "self/tags.npz").exists()

    def model(self) -> Sequence[object]:
        """Options that name the model: the experiment's own, or that of --bundle."""
        if self.bundle and self.bundle.is_file():
            return ["--bundle", self.bundle]
        folder = self.bundle or self.folder
        need(folder / self.o.inference_model, 6)
        return ["--train_config", folder / "config.yaml", "--model_file", folder / self.o.inference_model]

    def infer(self) -> None:
        """Stage 7."""
        model, options = self.model(), self.inference_options(self.o.words("inference_args"))
        if self.bundle and self.bundle.is_dir():
            options.append("--no_tags")  # an experiment does not list its classes
        for name, (_, protocol, _) in self.test_lists.items():
            need_rendered(self.rendered(name), self.data / name / "pairs.json", "list_hash")
            args = ["--data_dir", self.rendered(name), "--output_dir", self.inference_dir(name)]
            args += ["--passes", "mixture", "--no_tags"] if protocol else []
            self.step("qsep-inference", *args, *model, *options)
        # tags of every clip, each once: a list of mixtures has some clips more often than others
        for name in filter(self.has_tags, self.test_sets):
            self.tag_clips(name, self.folder / self.outputs(name, "tagging"), model, self.inference_options([]))

    def score(self) -> None:
        """Stage 8."""
        for name, (_, protocol, _) in self.test_lists.items():
            need(self.inference_dir(name), 7)
            need_rendered(self.rendered(name), self.data / name / "pairs.json", "list_hash")
            args = ["--data_dir", self.rendered(name), "--inference_dir", self.inference_dir(name), *self.jobs]
            more = self.o.words("scoring_args") + (["--espnet_keys", "0"] if protocol else [])
            self.step("qsep-scoring", *args, *more, one_thread=True)
            if not protocol and self.has_tags(name):
                self.score_tags(name, self.folder / self.outputs(name, "tagging"))

    def report(self) -> None:
        """Stage 9."""
        for name in self.test_lists:
            need(self.inference_dir(name) / "scores/summary.json", 8)
        folders, all_folders = (
            [word for name in names for word in ("--inference_dir", self.inference_dir(name))]
            for names in (self.test_sets, self.test_lists)
        )
        exp = ["--exp_dir", self.folder]
        if self.bundle:
            labels = self.rendered(self.test_sets[-1]) / "labels.tsv"
            self.step("qsep-describe", *exp, "--labels", labels, *self.model())
        bundle = self.bundle or self.folder / f"{self.tag}.zip"
        if not self.bundle:
            model = ["--model_file", self.folder / self.o.inference_model, *self.inference_options([])[:2]]
            bank = ["--train_bank", self.dump / self.o.train_set]
            if self.o.presence_mixtures != "0":
                bank += ["--held_out", self.dump / self.o.valid_set, "--mixtures", self.o.presence_mixtures]
            self.step("qsep-pack", *exp, *model, *bank, *folders, "-o", bundle)
        self.step("qsep-report", *exp, *all_folders)
        self.last_words = [f"Listen:   {self.folder}/report/index.html"]
        queries = sorted((self.folder / "report").glob("*/audio/*_query.flac"))
        if queries and bundle.is_file():
            query, out = queries[0], self.folder / "separated.wav"
            mix = query.with_name(query.name.replace("_query.", "_mixture."))
            words = ("espnet2-ext", "separate", mix, "--query", query, "--bundle", bundle, "-o", out)
            self.last_words.append(f"Separate: {shlex.join(map(str, words))}")


def check_bundle(bundle: Path, model: str) -> None:
    """See that --bundle names a model, before anything is made for it.

    Raises:
        DataError: it names nothing, or neither a bundle nor a trained experiment.
    """
    if not bundle.exists():
        raise DataError(f"--bundle: there is no {bundle}")
    if bundle.is_dir():
        for file in ("config.yaml", model):
            if not (bundle / file).exists():
                text = f"{bundle} is no trained experiment: it has no {file} (--inference_model names the weights)"
                raise DataError(f"--bundle: {text}")
        return
    is_bundle = False
    with suppress(*BROKEN), open(bundle, "rb") as file, open_zip(file) as archive:
        is_bundle = any(name.endswith("bundle.yaml") for name in archive.namelist())
    if not is_bundle:
        raise DataError(f"--bundle: {bundle} is no bundle: give what a recipe or 'espnet2-ext pack' has written")


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe-qsep`."""
    end(lambda: QSep(QSepOptions.parse(argv)).run())
