"""What a model heard, measured on the clips of its training and put into its bundle."""

import logging
from pathlib import Path

import numpy as np
from tqdm import tqdm

from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.errors import DataError
from espnet2_ext.infer.bundle import CLASS_QUERIES
from espnet2_ext.infer.pack import rewrite
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.class_queries import ClassQueries, measured
from espnet2_ext.util.arrays import npz_bytes


def calibrate(
    bundle: str | Path,
    bank: str | Path,
    held_out: str | Path | None = None,
    out: str | Path | None = None,
    most: int = 100,
    device: str = "auto",
) -> ClassQueries:
    """Put into a bundle what its query model heard.

    Args:
        bank: clip bank of the training. held_out: one of further sounds of these classes; see `measured`.
        out: the bundle to write; None: `bundle` itself.
        most: clips of a class that are embedded, evenly chosen.

    Raises:
        DataError: no bundle of a query model, no clip bank, a bank without clips of any class.
    """
    separator = Separator.from_bundle(bundle, device)
    queries = list(_queries(separator, ClipBank(bank), most))
    others = [] if held_out is None else [query for _, query in _queries(separator, ClipBank(held_out), most)]
    found = measured(queries, others)
    rewrite(bundle, out or bundle, more={CLASS_QUERIES: npz_bytes(found.arrays())})
    return found


def _queries(separator: Separator, bank: ClipBank, most: int):
    """(class, query `[E]`) of up to `most` clips of each class; silent ones are left out."""
    chosen: dict[int, list[int]] = {}
    for k in range(bank.num_classes):
        clips = bank.clips_of(k)
        for i in np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int)):
            chosen.setdefault(int(clips[i]), []).append(k)
    for clip, classes in tqdm(sorted(chosen.items()), desc=bank.path.name, unit="clip", disable=None):
        try:
            query = separator.embed_one(bank.read(clip), bank.fs)
        except DataError as e:
            logging.warning("%s: clip %s is left out: %s", bank.path, bank.id(clip), e)
            continue
        for k in classes:
            yield bank.classes[k].name, query
