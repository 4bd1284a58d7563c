"""Class queries of a model that was trained on recordings of which one only knows what can be heard in them."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from espnet2_ext.core.mixing.events import clip_activity, render
from espnet2_ext.core.mixing.stretches import surest
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.errors import DataError
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.calibrate import FEWEST, Heard, fitted
from espnet2_ext.infer.vectors.presence import SEEN, Features, Scale

RECORDINGS, SECONDS = 4, 1.0  # looked at for each stretch that counts; of a stretch


class Recordings:
    """`calibrate.Sounds` of a table of recordings, and the clip bank of their sounds."""

    def __init__(self, table: Path, bank: Path):
        self.table, self.bank = MixtureTable(table), ClipBank(bank)
        self.digest: str = self.table.info["table_hash"]

    def heard(self, separator: Separator, most: int) -> list[Heard]:
        """(class, query `[E]`, tags `[K]`) of up to `most` stretches of each class: those in which the tags are surest
        of it alone.

        Args:
            separator: tags framewise, the classes of the table in order.

        Raises:
            DataError: other classes than the model's.
        """
        table, net, k = self.table, separator.model.extractor.net, len(self.table.classes)
        if not separator.tags or [label.mid for label in separator.classes] != list(table.classes):
            raise DataError(f"{table.folder}: its classes are not those that {separator.info['path']} tags")
        step = net.token_frames * separator.hop
        found: list[list[tuple[float, np.ndarray]]] = [[] for _ in range(k)]
        tried, number = [0] * k, min(len(table), RECORDINGS * most * k)
        order = np.unique(np.linspace(0, len(table) - 1, number).round().astype(int))
        for i in tqdm(order, desc="recordings", unit="recording", disable=None):
            mixture = table.row(int(i))
            clip = clip_activity(mixture, k)
            wanted = [c for c in np.flatnonzero(clip) if tried[c] < RECORDINGS * most]
            if not wanted:
                continue
            mix = render(mixture, self.bank, k)["mix"]
            with torch.inference_mode():
                wave = torch.from_numpy(mix)[None].to(separator.device)
                logits = separator.model.embed(wave).framewise.transpose(1, 2)
                size = max(1, round(SECONDS * separator.fs / step))
                sure, at = (x[0].cpu() for x in surest(logits, torch.from_numpy(clip)[None].to(logits), None, size))
            for c in wanted:
                tried[c] += 1
                part = mix[int(at[c]) * step :][: size * step]
                if part.any():
                    found[c].append((float(sure[c]), part))
        return [
            (label.name, *separator.heard(part))
            for label, parts in zip(separator.classes, found)
            for _, part in sorted(parts, key=lambda one: -one[0])[:most]
        ]

    def scale(self, separator: Separator, readout: np.ndarray, mixtures: int) -> Scale:
        """The presence score, fitted to recordings of at most `SEEN` seconds, each asked for every class by its mean
        query, with which the separator comes.

        Raises:
            DataError: fewer than `FEWEST` recordings are that short, or no class is both there and not.
        """
        table, known, k = self.table, separator.known, len(self.table.classes)
        queries = np.stack([known.query(label.name) for label in separator.classes])
        features, rows, there, of = Features(separator, queries, readout), [], [], []
        short = [i for i in range(len(table)) if table.row(i).samples <= SEEN * table.fs][:mixtures]
        for n, i in enumerate(tqdm(short, desc="presence", unit="recording", disable=None)):
            mix = render(table.row(i), self.bank, k)["mix"]
            rms = float(np.sqrt(np.mean(np.square(mix, dtype=np.float64))))
            est = separator.network(queries)(mix[:, None], rms)[..., 0]
            rows.append(features(mix, est, rms))
            there.append(clip_activity(table.row(i), k) > 0)
            of.append(np.full(k, n % 2))
        halves = [np.concatenate(there[i::2]) for i in (0, 1)] if len(rows) > 1 else []
        if len(rows) < FEWEST or not all(half.any() and not half.all() for half in halves):
            raise DataError(f"{table.folder}: too few recordings of at most {SEEN:g} s with and without a class")
        x, y = np.concatenate(rows), np.concatenate(there)
        return fitted(x, y, np.concatenate(of), np.ones(len(x), bool), readout, len(rows))
