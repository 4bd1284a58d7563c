"""Class queries of a model that was trained on recordings of which one only knows what can be heard in them."""

from dataclasses import replace
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
from espnet2_ext.infer.vectors.calibrate import FEWEST, fitted, tag_readout
from espnet2_ext.infer.vectors.class_queries import ClassQueries, measured
from espnet2_ext.infer.vectors.presence import SEEN, Features, Scale
from espnet2_ext.util.binary import npz_bytes
from espnet2_ext.util.files import atomic_path, digest, write_record

Recordings = tuple[Path, Path]  # a table and the clip bank of its sounds
RECORDINGS, SECONDS = 4, 1.0  # looked at for each stretch that counts; of a stretch


def class_queries_of(
    separator: Separator, table: MixtureTable, bank: ClipBank, most: int = 40
) -> tuple[ClassQueries, np.ndarray]:
    """The mean query of each class, of the stretches of recordings in which the tags are surest of it alone; and what
    gives tags from a query, see `tag_readout`.

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
    heard = [
        (label.name, *separator.heard(part))
        for label, parts in zip(separator.classes, found)
        for _, part in sorted(parts, key=lambda one: -one[0])[:most]
    ]
    readout = tag_readout([query for _, query, _ in heard], [tags for *_, tags in heard])
    return measured((name, query) for name, query, _ in heard), readout


def presence_of(
    separator: Separator, table: MixtureTable, bank: ClipBank, readout: np.ndarray, most: int = 100
) -> Scale | None:
    """The presence score, fitted to recordings of at most `SEEN` seconds, each asked for every class by its mean query;
    None where fewer than `FEWEST` recordings are that short, or no class is both there and not.

    Args:
        separator: with its class queries, `known`. table: of recordings that the model was not trained on.
    """
    known, k = separator.known, len(table.classes)
    queries = np.stack([known.query(label.name) for label in separator.classes])
    features, rows, there, of = Features(separator, queries, readout), [], [], []
    short = [i for i in range(len(table)) if table.row(i).samples <= SEEN * table.fs][:most]
    for n, i in enumerate(tqdm(short, desc="presence", unit="recording", disable=None)):
        mix = render(table.row(i), bank, k)["mix"]
        rms = float(np.sqrt(np.mean(np.square(mix, dtype=np.float64))))
        est = separator.network(queries)(mix[:, None], rms)[..., 0]
        rows.append(features(mix, est, rms))
        there.append(clip_activity(table.row(i), k) > 0)
        of.append(np.full(k, n % 2))
    halves = [np.concatenate(there[i::2]) for i in (0, 1)] if len(rows) > 1 else []
    if len(rows) < FEWEST or not all(half.any() and not half.all() for half in halves):
        return None
    x, y = np.concatenate(rows), np.concatenate(there)
    return fitted(x, y, np.concatenate(of), np.ones(len(x), bool), readout, len(rows))


def write_class_queries(model: ModelFiles, recordings: Recordings, held_out: Recordings | None, most: int) -> Path:
    """Write `class_queries.npz` beside an experiment's weights, where inference and `pack` find it; once.

    Args:
        recordings: table and clip bank of the training. held_out: others, for the presence score.
    """
    assert model.model_file is not None
    out = Path(model.model_file).parent / CLASS_QUERIES
    tables = [MixtureTable(one[0]) for one in (recordings, held_out) if one]
    key = {"digest": digest(model.digest(), *(table.info["table_hash"] for table in tables), most)}
    record = out.with_suffix(".json")
    if up_to_date(record, key, out):
        return out
    out.unlink(missing_ok=True)
    separator: Separator = model.load()
    found, readout = class_queries_of(separator, tables[0], ClipBank(recordings[1]), most)
    if held_out:
        separator.known = found
        found = replace(found, presence=presence_of(separator, tables[1], ClipBank(held_out[1]), readout))
    with atomic_path(out) as tmp:
        Path(tmp).write_bytes(npz_bytes(found.arrays()))
    write_record(record, key, files=[out])
    return out
