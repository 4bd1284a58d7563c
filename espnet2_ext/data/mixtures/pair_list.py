"""Lists of pairs on disk: drawn once with a seed, written as a table, read with checks.

Beside a list `NAME.tsv` lies `NAME.json`: the seed, the options, and the bank's key, so that
a list is never used with other clips or classes than those it was drawn from.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.core.mixing.pair_drawer import GAIN_RANGE, Pair, PairDrawer, holds
from espnet2_ext.core.mixing.pairs import Source, measure
from espnet2_ext.data.bank.bank import bank_key
from espnet2_ext.data.bank.per_clip import AnchorTable
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import mapping, parse_json, read_json
from espnet2_ext.util.files import file_digest, made, verified, write_record, write_text
from espnet2_ext.util.locks import holding
from espnet2_ext.util.tables import at, check_id, number, read_header, read_tsv, tsv_line

COLUMNS = tuple(f.name for f in dataclasses.fields(Pair) if f.name not in ("snr_db", "others"))
LEVELS = (*COLUMNS, "snr_db", "others")  # where a pair has more than two sounds of one level
CLIPS = ("clip1", "clip2", "query1", "query2", "absent1", "absent2")
_AT_LEAST = {"num": 1, "qnum": 1, "start1": 0, "start2": 0, "qstart1": 0, "qstart2": 0}
_AT_LEAST |= {"class1": 0, "class2": 0, "gain2": 0}


# What `draw_list` makes of a protocol: shares of the number asked for, and options.
PROTOCOLS: dict[str, list[tuple[float, dict]]] = {
    # the targets of most parts are both asked for, at opposite levels
    "conditions": [
        (0.5, {}),
        (1.0, {"snr_db": 10.0}),
        (1.0, {"snr_db": 20.0}),
        (1.0, {"single_prob": 1.0}),
        (0.5, {"num_sources": 3}),
        (0.5, {"num_sources": 4}),
        (0.5, {"same_class": True}),
        (0.5, {"absent_prob": 1.0}),
    ],
    # task 9 of DCASE 2024 (language-queried separation): 10 s, disjoint labels
    "dcase2024": [(1.0, {"segment": 10.0, "anchor": "peak", "snr_db": [-15.0, 15.0]})],
}


def draw_list(
    bank,
    n: int | None = None,
    seed: int = 0,
    *,
    segment: float | None = None,
    anchor: str = "whole",
    query_from: str = "other",
    balance: str = "class",
    query_segment: float | None = None,
    anchors=None,
    gain_range=GAIN_RANGE,
    stream: tuple[int, ...] = (),
    **mixing,
) -> list[Pair]:
    """Draw `n` pairs; rows hold clip ids and measured gains.

    With `n` None or the number of clips, each clip is the first target once, in the bank's order, and its partner is
    drawn; otherwise both are drawn, balanced as asked. Pair i depends on the bank, the options, `seed` and i only.

    Args:
        segment, anchor, query_from, balance, query_segment, anchors: as for `PairDrawer`; by
            default whole clips. A query from the same clip means that the class has no other.
        gain_range: lowest and highest factor on the second anchor.
        stream: tells lists of one seed apart.
        mixing: `snr_db`, `single_prob`, `num_sources`, `same_class`, `absent_prob` of `PairDrawer`.

    Raises:
        DataError: as `PairDrawer`.
    """
    from tqdm import tqdm

    drawer = PairDrawer(
        bank,
        segment=segment,
        anchor=anchor,
        query_from=query_from,
        balance=balance,
        query_segment=query_segment,
        anchors=anchors,
        draw_absent=True,
        **mixing,
    )
    every = n is None or n == len(bank)
    n = len(bank) if n is None else n
    width = max(6, len(str(n - 1)))
    pairs = []
    for i in tqdm(range(n), desc="pairs", mininterval=1.0, disable=n < 1000):
        rng = np.random.default_rng([seed, i, *stream])
        pair = drawer.draw(rng, clip1=i if every else None, id=f"p{i:0{width}d}")
        pairs.append(_on_disk(pair, bank, gain_range))
    return pairs


def draw_protocol(bank, protocol: str, n: int | None = None, seed: int = 0, **options) -> list[Pair]:
    """Draw a list of `PROTOCOLS`; `n` is the number of targets of each condition. Otherwise as `draw_list`.

    Raises:
        DataError: an unknown protocol; as `draw_list`.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"protocol must be one of {', '.join(PROTOCOLS)}; got {protocol!r}")
    pairs: list[Pair] = []
    for part, (share, own) in enumerate(PROTOCOLS[protocol]):
        number = n and math.ceil(n * share)
        pairs += draw_list(bank, number, seed, **{**options, **own}, stream=(part,))
    return [dataclasses.replace(pair, id=f"p{i:06d}") for i, pair in enumerate(pairs)]


def condition_of(pair: Pair, target: int, absent: bool) -> str:
    """What target 1 or 2 of a pair is up against: `alone`, `absent`, `same class`, `3 sources`, its level as `-10 dB`.

    The level is that over the other sound of two, to the nearest 10 dB. absent: nothing of the mixture is asked for.
    """
    if absent:
        return "absent"
    if pair.alone:
        return "alone"
    if pair.others:
        return f"{2 + len(pair.others)} sources"
    if pair.class1 == pair.class2:
        return "same class"
    return f"{10 * round((pair.snr_db if target == 1 else -pair.snr_db) / 10)} dB"


def _on_disk(pair: Pair, bank, gain_range) -> Pair:
    """The row with clip ids, and with its gains measured."""
    pair = measure(pair, bank, gain_range)
    ids = {name: bank.id(getattr(pair, name)) for name in CLIPS}
    return dataclasses.replace(pair, others=tuple(o._replace(clip=bank.id(o.clip)) for o in pair.others), **ids)


def format_list(pairs: Sequence[Pair]) -> str:
    """Text of `pairs.tsv`; numbers are written so that they are read back exactly."""
    plain = all(pair.snr_db == 0 and not pair.others for pair in pairs)
    columns = COLUMNS if plain else LEVELS
    rows = ([getattr(pair, name) for name in COLUMNS] for pair in pairs)
    if not plain:
        rows = ([*row, pair.snr_db, json.dumps(pair.others)] for row, pair in zip(rows, pairs))
    return "\t".join(columns) + "\n" + "".join(tsv_line(row) for row in rows)


def text_hash(text: str) -> str:
    """blake2b-128 of a text, as `file_digest` gives it for its file."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_list(path: str | os.PathLike, pairs: Sequence[Pair], about: dict | None = None) -> None:
    """Write a list, whole, and what is known `about` it as JSON beside it, last."""
    text, beside = format_list(pairs), Path(path).with_suffix(".json")
    beside.unlink(missing_ok=True)
    write_text(path, text)
    if about is not None:
        write_record(beside, about, {"pairs": len(pairs), "list_hash": text_hash(text)}, [path])


def about_list(path: str | os.PathLike) -> dict:
    """What was written beside a list; empty where nothing is.

    Raises:
        DataError: naming the file, when it is broken.
    """
    beside = Path(path).with_suffix(".json")
    return mapping(read_json(beside), beside) if beside.exists() else {}


def read_list(path: str | os.PathLike, bank=None) -> list[Pair]:
    """Read a list; with a bank each row is checked against it.

    Raises:
        DataError: with file and line: a broken line, a duplicated id, a clip that the bank
            lacks, a class that the target's clip does not carry; or, naming the file, no
            such file, an empty list, a list drawn from another bank.
    """
    about, key = about_list(path), bank_key(bank) if bank is not None else {}
    for name in key.keys() & about.keys():
        if about[name] != key[name]:
            raise DataError(f"{path}: drawn from another bank than {bank.path} is now ({name}); draw it again")
    pairs, seen = [], set()
    path = verified(path, Path(path).with_suffix(".json"))
    columns = LEVELS if tuple(read_header(path)) == LEVELS else COLUMNS
    for line, fields in read_tsv(path, columns):
        with at(path, line):
            pair = _parse(fields)
            check_id(pair.id, seen)
            if bank is not None:
                _check(pair, bank)
        seen.add(pair.id)
        pairs.append(pair)
    if not pairs:
        raise DataError(f"{path}: the list holds no pair")
    return pairs


def _parse(fields: list[str]) -> Pair:
    row = dict(zip(LEVELS, fields))
    for name, least in _AT_LEAST.items():
        row[name] = number(name, row[name], least, whole=name != "gain2")
    if "others" in row:
        row["snr_db"] = number("snr_db", row["snr_db"])
        row["others"] = tuple(map(_parse_other, parse_json(row["others"], "others")))
    return Pair(**row)


def _parse_other(values) -> Source:
    if not (isinstance(values, list) and len(values) == 4 and isinstance(values[0], str)):
        raise DataError(f"others: expected [clip, start, snr_db, gain], got {values!r}")
    clip, start, snr_db, gain = values
    start = number("start of others", str(start), 0, whole=True)
    return Source(clip, start, number("snr_db of others", str(snr_db)), number("gain of others", str(gain), 0))


def _check(pair: Pair, bank) -> None:
    for clip in (*(getattr(pair, name) for name in CLIPS), *(o.clip for o in pair.others)):
        bank.index_of(clip)
    for clip, query, k in ((pair.clip1, pair.query1, pair.class1), (pair.clip2, pair.query2, pair.class2)):
        if not holds(bank, bank.index_of(clip), k) and not holds(bank, bank.index_of(query), k):
            raise DataError(f"clip {clip} does not carry class {k} of {bank.path}")


@holding("path", file=True)
def draw_list_file(
    bank,
    path: str | os.PathLike,
    n: int | None = None,
    seed: int = 0,
    *,
    anchor_file: str | os.PathLike | None = None,
    protocol: str | None = None,
    **options,
) -> bool:
    """Draw a list into `path`, unless the same list of the same bank is up to date; True when drawn.

    anchor_file: an `AnchorTable` of the bank, for the places of the segments.  protocol: see `draw_protocol`.

    Raises:
        DataError: anchors for whole clips; see `draw_list` and `AnchorTable`.
    """
    key = {"seed": seed, "n": n, "options": options, "anchors": None, **bank_key(bank)}
    anchors = None
    if anchor_file is not None:
        anchors = AnchorTable(anchor_file)
        if not options.get("segment"):
            raise DataError(f"{anchor_file}: anchors place segments, but {path} is to be of whole clips (0 s)")
        anchors.check(bank, round(options["segment"] * bank.fs))
        key["anchors"] = file_digest(anchor_file)
    if protocol:
        key["protocol"] = protocol
    if made(Path(path).with_suffix(".json"), key, [path]):
        logging.info("%s: up to date, skipped", path)
        return False
    draw = functools.partial(draw_protocol, bank, protocol) if protocol else functools.partial(draw_list, bank)
    pairs = draw(n, seed, anchors=anchors, **options)
    write_list(path, pairs, {"bank": str(bank.path), **key})
    logging.info("%s: %d pairs drawn with seed %d", path, len(pairs), seed)
    return True
