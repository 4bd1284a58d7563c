"""A tiny corpus for training from weak labels: two clip banks and their mixture tables."""

from pathlib import Path

import numpy as np
import soundfile
import yaml

from espnet2_ext.core.mixing.events import EventDrawer, with_ids
from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.data.mixtures.event_table import write_table
from espnet2_ext.data.tables import Clip, Label, write_clips, write_labels
from espnet2_ext.util.config import read_config

ROOT = Path(__file__).parents[1]
FS = 8000
N_FFT, HOP = 128, 64
CLASSES = ["bell", "drum", "rain"]
STFT = [f"sample_rate={FS}", f"n_fft={N_FFT}", f"hop_length={HOP}"]


def write_corpus(root: Path) -> Path:
    """`root/dump/{train,valid}` and `root/data/{train,valid}`: 8 and 4 mixtures of half a second.

    There is a fourth class, `hum`, in the background: sound of no labelled class.
    """
    labels = [Label(k, name, name) for k, name in enumerate([*CLASSES, "hum"])]
    write_labels(root / "labels.tsv", labels)
    for seed, (name, number) in enumerate({"train": 8, "valid": 4}.items()):
        clips = [_sound(root, name, i, seed) for i in range(8)]
        write_clips(root / name / "clips.tsv", clips)
        scan(root / name, num_workers=0)
        archive(root / name, root / "dump" / name, settings=Settings(fs=FS), num_workers=0)
        bank = ClipBank(root / "dump" / name)
        drawer = EventDrawer(
            bank,
            np.full(len(bank), -20.0),
            CLASSES,
            mean_events=2.0,
            seconds=0.5,
            event_seconds=(0.1, 0.4),
            background=["hum"],
        )
        rng = np.random.default_rng(seed)
        rows = [with_ids(drawer.draw(rng, f"m{i:02d}"), bank) for i in range(number)]
        write_table(root / "data" / name, rows, fs=FS, classes=CLASSES, n_fft=N_FFT, hop=HOP)
    return root


def _sound(root: Path, name: str, i: int, seed: int) -> Clip:
    """A tone of the class's own pitch, with some noise."""
    rng, k = np.random.default_rng([seed, i]), i % 4
    t = np.arange(int(FS * rng.uniform(0.6, 0.8))) / FS
    x = 0.2 * np.sin(2 * np.pi * (300 + 700 * k) * t) + 0.02 * rng.standard_normal(len(t))
    path = root / "audio" / f"{name}{i}.wav"
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, x, FS)
    return Clip(f"{name}{i}", ([*CLASSES, "hum"][k],), str(path))


def write_config(path: Path, source: str = "conf/debug/train_weak.yaml", **more) -> Path:
    """A shipped YAML with plain SGD (steps in proportion to gradients) and `more`."""
    conf = read_config(ROOT / source)
    conf |= {"optim": "sgd", "optim_conf": {"lr": 0.01}, "num_iters_per_epoch": 2, **more}
    path.write_text(yaml.safe_dump(conf))
    return path


def command(root: Path, config: Path, output_dir: Path, *more) -> list[str]:
    """Options of `weak_train` for the corpus."""
    given = ["--config", config, "--output_dir", output_dir]
    given += "--ngpu 0 --use_tensorboard false --use_matplotlib false --keep_nbest_models 2".split()
    for name in ("train", "valid"):
        given += [f"--{name}_table", root / "data" / name, f"--{name}_bank", root / "dump" / name]
    for conf in ("encoder_conf", "decoder_conf"):
        for value in STFT:
            given += [f"--{conf}", value]
    return [str(x) for x in [*given, *more]]


def trainer(root: Path, config: Path, main, tmp_path_factory):
    """What trains with `main` and further options, into a new folder, and gives the folder."""

    def train(*more, out=None, main=main, config=config):
        out = out or tmp_path_factory.mktemp("exp") / "model"
        main(command(root, config, out, *more))
        return out

    return train


def model_args(*more, config: str = "conf/debug/train_weak.yaml", task=None):
    """Options of a task (None: `WeakLabelTask`) without data: for its `build_model`."""
    from espnet2_ext.tasks.weak import WeakLabelTask

    given = ["--config", ROOT / config, "--output_dir", "unused", "--class_names", *CLASSES]
    for conf in ("encoder_conf", "decoder_conf"):
        for value in STFT:
            given += [f"--{conf}", value]
    return (task or WeakLabelTask).get_parser().parse_args([str(x) for x in [*given, *more]])
