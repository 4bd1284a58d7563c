"""Options of the driver of separation from weak labels."""

import dataclasses
import re

from espnet2_ext.errors import DataError
from espnet2_ext.recipe.options import BEGINS, Options, group, option

LABEL_TYPES = ("strong", "frame", "clip", "mixed")
QUERIES = ("self", "other", "class")  # what a separator by query is tested with
_mix, _model = group("Mixtures"), group("Model")
# checkpoints whose validation loss is known, so that trials can be compared
_COMPARABLE = re.compile(r"latest\.pth|valid\.loss\.best\.pth|\d.*epoch\.pth")


@dataclasses.dataclass(kw_only=True)
class WeakOptions(Options):
    """Options of `weak.sh`."""

    CONFIG = "weak_config"
    USAGE = """Usage: ./run.sh [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 4 mixtures, 5 classifiers, 6 separators, 7 inference, 8 scoring, 9 report.
With --task query, stage 5 trains encoders and their tags, stage 6 separators by query that begin with them."""

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
    task: str = _model(
        "class",
        "class: a separator has an output for each class; query: it answers examples (a --config train_qweak_...)",
        choices=("class", "query"),
    )
    queries: str = _model(
        "self other class",
        "of --task query: what the test asks with; self, the clean sound; other, that in another mixture; class, the"
        " mean query of the class (for recordings alone, which have no clean sounds)",
    )
    weak_config: str = _model("conf/train_weak_small.yaml", "YAML of the model and its training", path=True)
    weak_tag: str = _model("", "name of the experiments; empty: from the YAML's name")
    init: str = _model("none", f"of --task query: {BEGINS}", path=True)
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
        for word in self.queries.split():
            if word not in QUERIES:
                raise DataError(f"--queries: {word} is none of {' '.join(QUERIES)}")
        if self.task == "query" and self.trainer != "espnet":
            raise DataError(f"--trainer {self.trainer} trains separators of classes; --task query needs espnet")
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
