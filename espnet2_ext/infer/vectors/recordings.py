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
from espnet2_ext.infer.bundle import CLASS_QUERIES
from espnet2_ext.infer.folder import ModelFiles, up_to_date
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.class_queries import ClassQueries, measured
from espnet2_ext.util.arrays import npz_bytes
from espnet2_ext.util.files import atomic_path, digest, write_record

RECORDINGS, SECONDS = 4, 1.0  # looked at for each stretch that counts; of a stretch


def class_queries_of(separator: Separator, table: MixtureTable, bank: ClipBank, most: int = 40) -> ClassQueries:
    """The mean query of each class, of the stretches of recordings in which the tags are surest of it alone.

    Args:
        separator: tags framewise, the classes of the table in order. most: stretches of a class.

    Raises:
        DataError: other classes than the model's; no class with two stretches.
    """
    net, k = separator.model.extractor.net, len(table.classes)
    if not separator.tags or [label.mid for label in separator.classes] != list(table.classes):
        raise DataError(f"{table.folder}: its classes are not those that {separator.info['path']} tags")
    step = net.token_frames * separator.hop
    found: list[list[tuple[float, np.ndarray]]] = [[] for _ in range(k)]
    tried, order = [0] * k, np.linspace(0, len(table) - 1, min(len(table), RECORDINGS * most * k)).round().astype(int)
    for i in tqdm(np.unique(order), desc="recordings", unit="recording", disable=None):
        mixture = table.row(int(i))
        clip = clip_activity(mixture, k)
        wanted = [c for c in np.flatnonzero(clip) if tried[c] < RECORDINGS * most]
        if not wanted:
            continue
        mix = render(mixture, bank, k)["mix"]
        with torch.inference_mode():
            logits = separator.model.embed(torch.from_numpy(mix)[None].to(separator.device)).framewise.transpose(1, 2)
            size = max(1, round(SECONDS * separator.fs / step))
            sure, at = (x[0].cpu() for x in surest(logits, torch.from_numpy(clip)[None].to(logits), None, size))
        for c in wanted:
            tried[c] += 1
            part = mix[int(at[c]) * step :][: size * step]
            if part.any():
                found[c].append((float(sure[c]), part))
    pairs = [
        (label.name, separator.embed_wave(part))
        for label, parts in zip(separator.classes, found)
        for _, part in sorted(parts, key=lambda one: -one[0])[:most]
    ]
    return measured(pairs)


def write_class_queries(model: ModelFiles, table: Path, bank: Path, most: int) -> Path:
    """Write `class_queries.npz` beside an experiment's weights, where inference and `pack` find it; once."""
    assert model.model_file is not None
    out, mixtures = Path(model.model_file).parent / CLASS_QUERIES, MixtureTable(table)
    key = {"digest": digest(model.digest(), mixtures.info["table_hash"], most)}
    record = out.with_suffix(".json")
    if up_to_date(record, key, out):
        return out
    out.unlink(missing_ok=True)
    found = class_queries_of(model.load(), mixtures, ClipBank(bank), most)
    with atomic_path(out) as tmp:
        Path(tmp).write_bytes(npz_bytes(found.arrays()))
    write_record(record, key, files=[out])
    return out
