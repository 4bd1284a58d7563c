"""Tags by a trained network, a tagger or a query separator with a tagging head, and clip banks through it.

Of a bank's clips come tags, and anchors: the segments where classes are most active (CaRE-SEP paper, section 2.1: the
frame-wise activity of the class, smoothed over the segment's length, is highest there).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from espnet2_ext.core.nets.contracts import QueryOutput, Tagger
from espnet2_ext.data import outputs
from espnet2_ext.data.bank.bank import ClipBank, bank_key
from espnet2_ext.data.bank.per_clip import AnchorTable, best_starts, write_anchors
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer import folder
from espnet2_ext.infer.bundle import open_bundle, read_config
from espnet2_ext.infer.weights import labels_beside, model_of_bundle, model_of_exp, pick_device
from espnet2_ext.util.files import digest, write_record
from espnet2_ext.util.locks import holding

MOST = 256  # clips of a part
HOPS = 4  # windows per segment's length that are tried with a network whose tags have no time


class SeparatorTags(Tagger):
    """The tags of a query separator, such as CaRE-CLS+SEP, of whole clips.

    Args:
        model: see `core.nets.contracts`; where: what messages call it.

    Raises:
        BundleError: a model without a head.
    """

    def __init__(self, model: torch.nn.Module, where: str):
        super().__init__()
        self.model, self.sample_rate = model.eval(), int(model.fs)
        self.query_dim, self.num_classes = model.query_dim, model.num_classes
        if not self.num_classes:
            raise BundleError(f"{where}: this separator has no head that tags")

    def forward(
        self, wave: torch.Tensor, lengths: torch.Tensor | None = None, mixup: torch.Tensor | None = None
    ) -> QueryOutput:
        """See `Tagger`; nothing is mixed."""
        return self.model.embed(wave, lengths)._replace(framewise=None)


class TaggerInference:
    """Tags sound with one network.

    Args:
        net: a `Tagger`.
        classes: its labels, empty when they are not known.
        device: `auto`, or a name that PyTorch knows.
    """

    precision = "fp32"  # see `weights.at_precision`

    def __init__(self, net: Tagger, classes: Sequence[Label] = (), device: str = "auto"):
        self.device = pick_device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)
        self.classes = list(classes)

    @classmethod
    def from_bundle(cls, path: str | Path, device: str = "auto") -> "TaggerInference":
        """From the bundle of a separator that tags; raises `BundleError`."""
        with open_bundle(path) as bundle:
            return cls(SeparatorTags(model_of_bundle(bundle, "qsep"), str(path)), bundle.labels, device)

    @classmethod
    def from_exp(cls, train_config: str | Path, model_file: str | Path, device: str = "auto") -> "TaggerInference":
        """From `config.yaml` and weights of an experiment, with the `labels.tsv` beside them.

        The experiment is a tagger's, or that of a separator that tags.

        Raises:
            BundleError: a file that is missing, broken or of another model.
        """
        if "extractor" in read_config(train_config):  # a separator's
            net = SeparatorTags(model_of_exp(train_config, model_file, "qsep"), str(model_file))
        else:
            net = model_of_exp(train_config, model_file, "tag").net
        return cls(net, labels_beside(model_file), device)

    def check(self, bank: ClipBank) -> None:
        """Refuse a bank of another rate or of other classes than the model's (DataError)."""
        for what, own, other in (
            ("classes", self.net.num_classes, bank.num_classes),
            ("Hz", self.net.sample_rate, bank.fs),
        ):
            if own != other:
                raise DataError(f"{bank.path}: the bank has {other} {what}, the network {own}")
        if self.classes and [c.mid for c in self.classes] != [c.mid for c in bank.classes]:
            raise DataError(f"{bank.path}: its classes are not those that the tagger was trained on")

    @torch.inference_mode()
    def tag(self, waves: np.ndarray) -> list[outputs.Tags]:
        """Tags of each of `waves` `[B, T]` float32, all of one length."""
        out = self.net(torch.from_numpy(waves).to(self.device))
        clip = out.clipwise.float().sigmoid().cpu().numpy()
        if out.framewise is None:
            return [outputs.Tags(c) for c in clip]
        edges = self.net.edges(waves.shape[1]).cpu().numpy()
        frame = out.framewise.float().sigmoid().cpu().numpy()[:, : len(edges) - 1]
        return [outputs.Tags(c, f, edges) for c, f in zip(clip, frame)]


# ---- clips ---------------------------------------------------------------------------------------


def tag_clips(
    tagger: TaggerInference, bank: ClipBank, rows: Sequence[int], batch_size: int
) -> Iterator[tuple[int, outputs.Tags]]:
    """(position in `rows`, tags of that clip alone) in some order; clips of one length go through together.

    Raises:
        DataError: naming a clip whose tags are not finite.
    """
    by_length: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        by_length.setdefault(bank.num_samples(row), []).append(at)
    batches = (same[i : i + batch_size] for same in by_length.values() for i in range(0, len(same), batch_size))
    for places in batches:
        for at, tags in zip(places, tagger.tag(np.stack([bank.read(rows[at]) for at in places]))):
            if not (np.isfinite(tags.clip).all() and (tags.frame is None or np.isfinite(tags.frame).all())):
                raise DataError(f"{bank.path}: clip {bank.id(rows[at])}: tags that are not finite")
            yield at, tags


# ---- tags ----------------------------------------------------------------------------------------


@holding("output_dir")
def tag_bank(
    bank_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    model: folder.ModelFiles,
    *,
    frames: bool = False,
    batch_size: int = 16,
    workers: folder.Workers = folder.HERE,
) -> None:
    """Tag every clip of a bank; outputs of the same model and clips are kept.

    Args:
        frames: write `activity.npz` too.
        batch_size: clips of one length that go through the network together.

    Writes:
        `tags.npz` and perhaps `activity.npz`, see `data.outputs`; `about.json` last.

    Raises:
        DataError: files of the model that are missing or do not fit the bank; frames asked of a network that has none.
    """
    folder.check_batch_size(batch_size)
    bank, out = ClipBank(bank_dir), Path(output_dir)
    if not len(bank):
        raise DataError(f"{bank.path}: holds no clips, there is nothing to tag")
    key = {"digest": digest(folder.VERSION, model.digest(), bank_key(bank), frames)}
    files = [out / "tags.npz"] + [out / "activity.npz"] * frames
    if folder.up_to_date(out / "about.json", key, *files):
        return folder.end_job(out / "parts")
    outputs.remove_old(out, r"about\.json|activity\.npz")
    job = TagClips(str(bank_dir), frames, batch_size, str(model.bundle or model.model_file))
    size = folder.part_size(len(bank), most=MOST)
    parts = folder.run_job(job, range(len(bank)), out / "parts", size=size, model=model, stamp=key, workers=workers)
    keys = [bank.id(i) for i in range(len(bank))]
    outputs.write_tags(files[0], keys, outputs.joined(parts, "clip"))
    if frames:
        times = {"fs": int(bank.fs), "edges": outputs.joined(parts, "edges")}
        outputs.write_activity(files[1], outputs.Activity(np.array(keys), **outputs.frames_of(parts), **times))
    about = {"keys": len(bank), "bank": str(bank_dir), "model": model.digest(), **bank_key(bank)}
    write_record(out / "about.json", key, about, files)
    folder.end_job(out / "parts")


@dataclass(frozen=True)
class TagClips:
    """Tag rows of a bank. model: what messages call the tagger."""

    desc = "tagging"
    bank_dir: str
    frames: bool
    batch_size: int
    model: str

    def answer(self, tagger: TaggerInference, items: Sequence[int]) -> tuple[dict, dict]:
        """See `folder.Job`."""
        bank = ClipBank(self.bank_dir)
        tagger.check(bank)
        tags: list = [None] * len(items)
        for at, one in tag_clips(tagger, bank, items, self.batch_size):
            tags[at] = one if self.frames else outputs.Tags(one.clip)
        if self.frames and tags[0].frame is None:
            raise DataError(f"{self.model}: this network's tags have no frames")
        return {}, outputs.tag_arrays(tags)


# ---- anchors -------------------------------------------------------------------------------------


@holding("path", file=True)
def find_anchors(
    bank_dir: str | os.PathLike,
    path: str | os.PathLike,
    model: folder.ModelFiles,
    *,
    segment: float,
    batch_size: int = 16,
    workers: folder.Workers = folder.HERE,
) -> None:
    """Write the table of a bank's anchors; one of the same model, clips and length is kept.

    Args:
        path: the table, `.npz`; see `AnchorTable`.
        segment: seconds.
        batch_size: clips of one length (or windows) that go through the network together.

    Raises:
        DataError: files of the model that are missing or do not fit the bank.
    """
    bank, path = ClipBank(bank_dir), Path(path)
    num = round(segment * bank.fs)
    if num < 1 or batch_size < 1:
        raise DataError(
            f"segment must be longer than one sample and batch_size 1 or more; got {segment} s and {batch_size}"
        )
    made_by = digest(folder.VERSION, model.digest())
    parts_dir = path.with_name(f"{path.name}.parts")
    if _is_there(path, bank, num, made_by):
        logging.info("%s: up to date, skipped", path)
        return folder.end_job(parts_dir)
    job, stamp = FindAnchors(str(bank_dir), num, batch_size), [made_by, bank_key(bank)]
    size = folder.part_size(len(bank), most=MOST)
    parts = folder.run_job(job, range(len(bank)), parts_dir, size=size, model=model, stamp=stamp, workers=workers)
    write_anchors(path, bank, outputs.joined(parts, "starts"), num, made_by)
    folder.end_job(parts_dir)


def _is_there(path: Path, bank: ClipBank, num: int, model: str) -> bool:
    if not path.exists():
        return False
    try:
        table = AnchorTable(path)
        table.check(bank, num)
    except DataError:
        return False
    return table.model == model


@dataclass(frozen=True)
class FindAnchors:
    """Starts `[sum of labels]` of the segments of `num` samples, one for each label of each row of a bank."""

    desc = "anchors"
    bank_dir: str
    num: int
    batch_size: int

    def answer(self, tagger: TaggerInference, items: Sequence[int]) -> tuple[dict, dict]:
        """See `folder.Job`."""
        bank = ClipBank(self.bank_dir)
        tagger.check(bank)
        starts = [np.zeros(len(bank.labels(row)), np.int64) for row in items]
        long = [at for at, row in enumerate(items) if bank.num_samples(row) > self.num and len(starts[at])]
        for at, best in self._best(tagger, bank, [items[at] for at in long]):
            starts[long[at]] = best
        return {}, {"starts": np.concatenate([np.zeros(0, np.int64), *starts])}

    def _best(self, tagger: TaggerInference, bank: ClipBank, rows: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(position in `rows`, start for each of the clip's labels)."""
        if rows and tagger.tag(bank.read(rows[0])[None])[0].frame is None:
            yield from ((at, self._best_window(tagger, bank, row)) for at, row in enumerate(rows))
            return
        for at, tags in tag_clips(tagger, bank, rows, self.batch_size):
            row = rows[at]
            yield at, best_starts(tags.frame[:, bank.labels(row)], tags.edges, bank.num_samples(row), self.num)

    def _best_window(self, tagger: TaggerInference, bank: ClipBank, row: int) -> np.ndarray:
        """Of windows of the segment's length, the one with the highest tag of each label."""
        wave = bank.read(row)
        last = len(wave) - self.num
        starts = np.append(np.arange(0, last, max(1, self.num // HOPS)), last)
        tags = [
            one.clip
            for i in range(0, len(starts), self.batch_size)
            for one in tagger.tag(np.stack([wave[s : s + self.num] for s in starts[i : i + self.batch_size]]))
        ]
        return starts[np.stack(tags)[:, bank.labels(row)].argmax(axis=0)]
