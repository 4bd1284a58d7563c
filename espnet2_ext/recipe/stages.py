"""What the drivers share: numbered stages, data preparation, training once, and the commands of the steps."""

import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.recipe import steps
from espnet2_ext.recipe.options import Options
from espnet2_ext.recipe.steps import log, need, value_of
from espnet2_ext.recipe.training import BEGUN, CHECKED, DONE, Training
from espnet2_ext.util.config import read_config
from espnet2_ext.util.locks import hold

ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # of steps that run one process per core
_SHOWN = "epoch (started|results)|best checkpoint|WARNING|ERROR|^error:|Traceback"  # lines of a training's log


class Stage(NamedTuple):
    """kind: data, train or eval, which `--skip_data_prep`, `--skip_train` and `--skip_eval` leave out."""

    number: int
    kind: str
    title: str
    work: Callable[[], None]


class Driver(ABC):
    """Runs the stages of one recipe in the current folder.

    Raises (constructor):
        DataError: an option's value that is wrong, by name, before anything is made.
    """

    kind: ClassVar[str]  # begins the names of its options: --KIND_config, --KIND_tag
    folder: Path  # the experiment's, which one run holds

    def __init__(self, options: Options):
        self.o = options
        self.config_file = getattr(options, f"{self.kind}_config")
        if not Path(self.config_file).is_file():
            raise DataError(f"--config (--{self.kind}_config): no file {self.config_file}")
        self.config = read_config(self.config_file)
        self.data, self.dump, self.exp = Path(options.datadir), Path(options.dumpdir), Path(options.expdir)
        self.test_sets = options.test_sets.split()
        self._locks: list[int] = []
        self.last_words: list[str] = []  # what to do with what was made
        self.init: Path | None = None  # the bundle that a training begins with

    @abstractmethod
    def stages(self) -> list[Stage]:
        """The stages in order."""

    def run(self) -> None:
        """Run those stages that the options ask for.

        Raises:
            DataError: another run is at work in one of the folders, or a stage lacks what one before it makes.
            steps.StepFailed: a step ended with an error.
        """
        o, begin = self.o, time.monotonic()
        skipped = {"data": o.skip_data_prep, "train": o.skip_train, "eval": o.skip_eval}
        chosen = [s for s in self.stages() if o.stage <= s.number <= o.stop_stage and not skipped[s.kind]]
        kinds = {s.kind for s in chosen}
        with ExitStack() as held:
            if kinds:  # others may read the data too, unless this run makes them
                makes = "data" in kinds
                sets = [folder / name for folder in (self.dump, self.data) for name in o.sets]
                folders = [self.dump, self.data, *(f for f in sets if makes or f.is_dir())]
                held.enter_context(self._holding(*folders, shared=not makes))
            if kinds - {"data"}:
                held.enter_context(self._holding(self.folder))
            for stage in chosen:
                started = time.monotonic()
                log(f"Stage {stage.number}: {stage.title}")
                stage.work()
                log(f"Stage {stage.number}: done in {time.monotonic() - started:.0f} s")
        log(f"finished in {time.monotonic() - begin:.0f} s")
        print(*self.last_words, sep="\n", end="\n" if self.last_words else "")

    @contextmanager
    def _holding(self, *folders: Path, shared: bool = False) -> Iterator[None]:
        """Keep other runs out of folders; the steps inherit the locks, so that what is left of a killed run counts."""
        before = self._locks
        with hold(*folders, shared=shared) as locks:
            self._locks = before + locks
            yield
            self._locks = before

    # ---- steps -------------------------------------------------------------------------------

    def step(self, command: str, *args: object, one_thread: bool = False) -> None:
        """Run `espnet2-ext COMMAND ARGS...`."""
        words = [self.o.python, "-m", "espnet2_ext", command, *map(str, args)]
        steps.run(words, env=ONE_THREAD if one_thread else None, keep_open=self._locks)

    @property
    def jobs(self) -> list[str]:
        """How steps of many processes are run."""
        return ["--num_workers", self.o.nj, *self._scheduler]

    @property
    def _scheduler(self) -> list[str]:
        return ["--scheduler", self.o.scheduler] if self.o.scheduler else []

    def inference_options(self, args: Sequence[str]) -> list[str]:
        """How steps that use a model are run; args: further options of the user."""
        device = {"true": "cuda", "false": "cpu"}.get(self.o.gpu_inference, "auto")
        return ["--device", device, "--num_workers", self.o.inference_nj, *args, *self._scheduler]

    def outputs(self, test: str, what: str = "inference") -> str:
        """Name of the folder of a test's outputs in an experiment; what: inference, or tagging."""
        return "_".join(filter(None, [what, self.o.inference_tag, test]))

    def begin_with(self, folder: Path) -> list[str]:
        """Take the networks of the bundle `init` in place of the YAML's, through `folder`; options for its weights."""
        if self.init is None:
            return []
        if not Path(self.config_file).is_relative_to(folder):
            log(f"begins with the networks and weights of {self.init} (--init none: with those of {self.config_file})")
            self.step("unpack", self.init, "--config", self.config_file, "-o", folder)
            self.config_file = str(folder / "config.yaml")
            self.config = read_config(self.config_file)
        return ["--init_param", str(folder / "model.pth"), "--ignore_init_mismatch", "true"]

    # ---- data preparation --------------------------------------------------------------------

    def data_stages(self) -> list[Stage]:
        """Stages 1 to 3."""
        return [
            Stage(1, "data", "the corpus's lists", self.prepare),
            Stage(2, "data", "decode every clip, manifest", self.scan),
            Stage(3, "data", f"archive at {self.o.fs} Hz", self.archive),
        ]

    def prepare(self) -> None:
        """Stage 1: `local/data.sh`."""
        words = ["local/data.sh", "--datadir", self.o.datadir, *self.o.words("local_data_opts")]
        steps.run(words, env={**ONE_THREAD, "python": self.o.python}, keep_open=self._locks)

    def scan(self) -> None:
        """Stage 2; where stage 3 follows, the clips are stored in the same pass."""
        o = self.o
        store = ["--dump", self.dump, "--fs", o.fs, "--format", o.audio_format] if o.stop_stage >= 3 else []
        for name in o.sets:
            need(self.data / name / "clips.tsv", 1)
            args = ["--max_bad_share", o.max_bad_share, *store, *self.jobs]
            self.step("scan", self.data / name, *args, one_thread=True)

    def archive(self) -> None:
        """Stage 3."""
        for name in self.o.sets:
            need(self.data / name / "manifest.tsv", 2)
            args = ["--labels", self.data / "labels.tsv", "--fs", self.o.fs, "--format", self.o.audio_format]
            self.step("archive", self.data / name, self.dump / name, *args, *self.jobs, one_thread=True)

    # ---- training ----------------------------------------------------------------------------

    def train_once(self, training: Training, train: Callable[[], None]) -> None:
        """Call `train()` unless that was done; one that was begun with something else does not go on.

        Raises:
            DataError: the folder was begun with other data, files or options, or training leaves no model.
        """
        exp = training.exp
        if training.is_done():
            log(f"{exp}: trained already")
            return
        with nullcontext() if exp == self.folder else self._holding(exp):
            if training.is_begun():
                training.refuse_another(f"--{self.kind}_tag")
                log("going on from the last checkpoint")
            training.mark(BEGUN)
            (exp / DONE).unlink(missing_ok=True)
            train()
            model = exp / self.o.inference_model
            if not model.exists():
                raise DataError(f"training ended, but there is no {model} (--inference_model); see {exp}/train.log")
            training.mark(DONE)

    def train_with_espnet(self, exp: Path, module: str, args: Sequence[object]) -> None:
        """Train with ESPnet's trainer, here or, with --num_nodes or --host, elsewhere."""
        o, command = self.o, [self.o.python, "-m", f"espnet2_ext.bin.{module}", *map(str, args)]
        log(f"full log: {exp}/train.log; curves: tensorboard --logdir {exp}/tensorboard")
        devices = ["--ngpu", str(self.gpus()), "--multiprocessing_distributed", "true"]
        if not self.is_distributed:
            self.follow(exp, [*command, *devices])
            return
        launch = [o.python, "-m", "espnet2.bin.launch", "--cmd", _launcher(), "--log", f"{exp}/train.log", *devices]
        launch += ["--init_file_prefix", f"{exp}/.dist_init_"]
        launch += ["--host", o.host] if o.host else ["--num_nodes", str(o.num_nodes)]
        steps.run([*launch, "--", *command], keep_open=self._locks)

    @property
    def is_distributed(self) -> bool:
        """Whether several machines train."""
        return bool(self.o.host) or self.o.num_nodes > 1

    def follow(self, exp: Path, command: Sequence[str]) -> None:
        """Run a training; its output goes to a log, of which the lines of interest are shown."""
        steps.run(command, log_file=exp / "train.log", show=_SHOWN, keep_open=self._locks)

    def gpus(self) -> int:
        """GPUs per node for training.

        Raises:
            DataError: more than this machine has, where it is the one that trains.
        """
        wanted = self.o.ngpu
        if not wanted.isdecimal() and wanted != "auto":
            raise DataError(f"option --ngpu takes a number or auto, not '{wanted}'")
        if wanted == "auto":
            return min(1, self._gpus) if shutil.which("nvidia-smi") else 0
        if int(wanted) and not self.is_distributed and int(wanted) > self._gpus:
            here = self._gpus or "no"
            raise DataError(f"--ngpu {wanted}: PyTorch finds {here} GPU on this machine; give --ngpu {self._gpus}")
        return int(wanted)

    @cached_property
    def _gpus(self) -> int:
        code = "import torch; print(torch.cuda.device_count())"
        done = subprocess.run([self.o.python, "-c", code], stdout=subprocess.PIPE, text=True)
        return int(done.stdout or 0)


class ClipDriver(Driver):
    """A driver with one experiment, which is trained on the clips of an archive."""

    def __init__(self, options: Options, tag: str):
        super().__init__(options)
        self.tag = tag
        self.folder = Path(getattr(options, f"{self.kind}_exp") or self.exp / f"{self.kind}_{tag}")

    @abstractmethod
    def training(self) -> tuple[Training, list]:
        """The training, and the options of its command; see `clip_training`."""

    def clip_training(self, valid_digest: str, more: Sequence[str], *args: object) -> tuple[Training, list]:
        """The training on the clips of the training set.

        Args:
            more: options that decide what it is. args: others of the command.
        """
        o, bank = self.o, self.dump / self.o.train_set
        digest = value_of(bank / "bank.json", "manifest_hash")
        training = Training(self.folder, f"clips in {bank}", digest, valid_digest, self.config, more)
        options = ["--config", self.config_file, "--output_dir", self.folder, "--resume", "true"]
        options += ["--train_bank", bank, "--valid_bank", self.dump / o.valid_set]
        return training, [*options, *args, *more]

    def check(self) -> None:
        """Stage 5: check data and model, unless that was done for the same training."""
        training, options = self.training()
        if training.is_checked():
            log("checked already")
            return
        self.step(f"{self.kind}-check", *options, "--ngpu", self.gpus())
        training.mark(CHECKED)

    def train(self) -> None:
        """Stage 6."""
        training, options = self.training()
        self.train_once(training, lambda: self.train_with_espnet(self.folder, f"{self.kind}_train", options))

    def tag_clips(self, name: str, out: Path, model: Sequence[object], options: Sequence[str]) -> None:
        """Tags of every clip of a test set, each once."""
        self.step("tag-inference", "--bank", self.dump / name, "--output_dir", out, *model, *options)

    def score_tags(self, name: str, tags: Path) -> None:
        """Scores of a test set's tags."""
        need(tags / "about.json", 7)
        self.step("tag-scoring", "--bank", self.dump / name, "--tags_dir", tags, one_thread=True)


def _launcher() -> str:
    """The command of cmd.sh that starts a training on several machines."""
    if not (command := os.environ.get("cuda_cmd")):
        raise DataError("cuda_cmd is not set in cmd.sh")
    return command
