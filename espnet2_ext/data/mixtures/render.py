"""Lists of pairs and tables of mixtures made into folders of sounds and tables, as ESPnet and our scoring read them.

A list of pairs (`render_pairs`): keys are `<pair id>-1` and `<pair id>-2`, one for each target of a mixture
    wav.scp, spk1.scp                 mixture and target, which is silence where the query is absent from the mixture
    enroll_self.scp                   the target as its own query, where it is in the mixture
    enroll_other.scp                  the row's query, another clip of the class; where the bank has none, one of a
                                      further bank; a key whose class has none there either is left out
    absent.scp                        the most energetic stretch of a clip without the class, as long as the mixture
    utt2class, utt2labels             the target's class, and all classes of its clip
    pairs.tsv, labels.tsv             the list; the bank's classes
A table of mixtures (`render_mixtures`): keys are the mixtures' ids
    wav.scp, spk1.scp .. spkK.scp     mixture and sources, classes in their order; silence where a class is absent
    rest.scp                          sound of no labelled class, where the table has any
    utt2labels, classes.tsv           names of the classes in each mixture, comma-separated; the classes
    mixtures/                         a copy of the table
Both: audio.NNNNN.ark, and list.json, what it was made from, written last. A table with a label without isolated sound
has no sources to write: then there are `wav.scp` and the labels only.
"""

import functools
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.core.mixing import events, pair_drawer
from espnet2_ext.core.mixing.events import Mixture
from espnet2_ext.core.mixing.pair_drawer import Pair
from espnet2_ext.core.mixing.pairs import holds, peak_start
from espnet2_ext.data.bank.bank import ClipBank, bank_digest, bank_key
from espnet2_ext.data.mixtures.event_table import FILES, MixtureTable
from espnet2_ext.data.mixtures.pair_list import format_list, text_hash
from espnet2_ext.data.tables import Label, write_labels
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_fields, write_json
from espnet2_ext.util.files import atomic_path, made, write_record, write_text
from espnet2_ext.util.locks import holding
from espnet2_ext.util.parallel import map_parts, part_of
from espnet2_ext.util.tables import read_scp

VERSION = 1
# highest sample that 16 and 24 bits hold on both sides, with room for rounding
PEAKS = {16: 32766 / 32768, 24: 1 - 2**-20}
# table -> sound of target 1 or 2 in the archive
_PAIR_TABLES = {"wav": "mix", "spk1": "ref{}", "enroll_self": "ref{}", "enroll_other": "other{}", "absent": "absent{}"}

log = logging.getLogger(__name__)


def render_pairs(
    pairs: Sequence[Pair],
    bank: ClipBank,
    out_dir: str | os.PathLike,
    *,
    seed: int | None = None,
    query_bank: ClipBank | None = None,
    **work,
) -> dict:
    """Render a list of pairs (with clip ids) into `out_dir`, as 16-bit FLAC.

    Where a mixture or a target exceeds full scale, mixture and both targets are lowered by one factor, and the pair is
    counted as `scaled`. Keys without another clip of their class are counted as `without_other`. A call that was
    stopped resumes; a folder of the same list is up to date and stays.

    Args:
        seed: the list's, for the record.
        query_bank: further clips, such as those of the training, for the queries of classes with a single clip.
        work: `part_size`, pairs of an archive (None: a 32nd of all, but 8 to 256), and `num_workers` and `scheduler`
            of `map_parts`.

    Returns:
        What `list.json` holds.
    """
    out_dir, text = Path(out_dir), format_list(pairs)
    key = {"version": VERSION, "list_hash": text_hash(text), **bank_key(bank)}
    if query_bank is not None:
        key["query_bank"] = bank_digest(query_bank)
    keys = sum(2 - pair.alone for pair in pairs)
    about = {"pairs": len(pairs), "keys": keys, "seed": seed, "bank": str(bank.path), **key}

    def finish(places: dict[str, str]) -> tuple[dict, list[str]]:
        tables = _write_pair_tables(out_dir, pairs, bank, places)
        write_text(out_dir / "pairs.tsv", text)
        write_labels(out_dir / "labels.tsv", bank.classes)
        without = keys - len(tables["enroll_other.scp"])
        return {"without_other": without}, [*tables, "pairs.tsv", "labels.tsv"]

    banks = [str(each.path) for each in (bank, query_bank) if each is not None]
    part = functools.partial(pairs_part, banks=banks)
    return _render(out_dir, key, about, part, list(enumerate(pairs)), finish, **work)


def render_mixtures(table: MixtureTable, bank: ClipBank, out_dir: str | os.PathLike, **work) -> dict:
    """Render a table into `out_dir`, as 24-bit FLAC.

    Where a mixture or a source exceeds full scale, all of that mixture is lowered by one factor, and the mixture is
    counted as `scaled`. A call that was stopped resumes; a folder of the same table is up to date and stays.

    Args:
        work: as for `render_pairs`.

    Returns:
        What `list.json` holds.

    Raises:
        DataError: a bank without the table's clips or rate; a sound that cannot be decoded.
    """
    out_dir = Path(out_dir)
    table.check(bank)
    tracks = _tracks(table)
    key = {
        "version": VERSION,
        "table_hash": table.info["table_hash"],
        "tracks": tracks,
        "fs": table.fs,
        "classes": table.classes,
        "bank_hash": bank_digest(bank),
    }
    about = {"mixtures": len(table), "scaled": 0, "bank": str(bank.path), **key}

    def finish(places: dict[str, str]) -> tuple[dict, list[str]]:
        return {}, _write_mixture_tables(out_dir, table, tracks, places)

    part = functools.partial(mixtures_part, table=os.path.abspath(table.folder), bank=os.path.abspath(bank.path))
    return _render(out_dir, key, about, part, list(range(len(table))), finish, **work)


@holding("out_dir")
def _render(
    out_dir: Path,
    key: dict,
    about: dict,
    part: Callable,
    items: Sequence,
    finish: Callable[[dict[str, str]], tuple[dict, list[str]]],
    part_size: int | None = None,
    **work,
) -> dict:
    """Render `items` in parts, an archive each, unless `list.json` is of `key`; then write the tables with `finish`.

    finish: makes facts for `list.json`, and the tables' names, from the places of the sounds.
    """
    record = out_dir / "list.json"
    found = made(record, key)
    if found is None:
        record.unlink(missing_ok=True)
        size = part_size or part_of(len(items), 32, 8, 256)
        fn = functools.partial(part, out_dir=str(out_dir), part_size=size, about=key)
        parts = map_parts(fn, items, out_dir / "parts", part_size=size, desc=out_dir.name, **work)
        places, about["scaled"] = _merge(parts, out_dir)
        ours = {f"{_part_name(n)}.ark" for n in range(len(parts))}
        facts, names = finish(places)
        for path in out_dir.glob("audio.[0-9]*.ark"):  # of an earlier list
            if path.name not in ours:
                path.unlink()
        found = write_record(record, about, facts, [out_dir / name for name in (*names, *ours)])
    else:
        log.info("%s: up to date, skipped", out_dir)
    for path in out_dir.glob("audio.[0-9]*.scp"):  # tables of the parts
        path.unlink()
    shutil.rmtree(out_dir / "parts", ignore_errors=True)
    return found


def _merge(parts: Sequence[Path], out_dir: Path) -> tuple[dict[str, str], int]:
    """Places of all sounds, and how many items were lowered."""
    places, scaled = {}, 0
    for n, part in enumerate(parts):
        about, ark = read_fields(part, {"bytes": int, "scaled": int}), out_dir / f"{_part_name(n)}.ark"
        if not ark.is_file() or ark.stat().st_size != about["bytes"]:
            part.unlink()
            raise DataError(f"{ark}: was removed or changed; run again to make it anew")
        places.update(read_scp(out_dir / f"{_part_name(n)}.scp"))
        scaled += about["scaled"]
    return places, scaled


def _part_name(n: int) -> str:
    return f"audio.{n:05d}"


def pairs_part(
    items: Sequence[tuple[int, Pair]], path: Path, *, banks: Sequence[str], out_dir: str, part_size: int, about: dict
) -> None:
    """Write the sounds of some numbered pairs; `about` only counts in the plan's digest."""
    clips = [ClipBank(bank) for bank in banks]
    rows = ((pair.id, *pair_sounds(pair, *clips)) for _, pair in items)
    _write_part(path, out_dir, items[0][0] // part_size, clips[0].fs, 16, rows)


def mixtures_part(
    items: Sequence[int], path: Path, *, table: str, bank: str, out_dir: str, part_size: int, about: dict
) -> None:
    """Write the sounds of some mixtures of a table."""
    clips = ClipBank(bank)
    mixtures = map(MixtureTable(table).row, items)
    rows = ((mixture.id, *mixture_sounds(mixture, clips, about["tracks"])) for mixture in mixtures)
    _write_part(path, out_dir, items[0] // part_size, clips.fs, 24, rows)


def _write_part(path: Path, out_dir: str, n: int, fs: int, bits: int, rows: Iterable[tuple]) -> None:
    """Write (id, sounds by name, factor) into archive `n`, then to `path` its bytes and the number of rows lowered."""
    scaled = 0
    with FlacArkWriter(out_dir, _part_name(n), fs, bits) as archive:
        for id_, sounds, factor in rows:
            scaled += factor != 1.0
            for name, x in sounds.items():
                archive.write(f"{id_}-{name}", x)
    write_json(path, {"bytes": archive.ark.stat().st_size, "scaled": scaled})


def pair_sounds(pair: Pair, bank: ClipBank, query_bank: ClipBank | None = None) -> tuple[dict[str, np.ndarray], float]:
    """The sounds of a pair by their names in the archive, float32 [T] each, and the factor that keeps them in range."""
    out = pair_drawer.render(pair, bank)
    sounds, factor = _in_range({name: out[name] for name in ("mix", "ref1", "ref2")}, 16)
    for i, clip, k, query, absent in _targets(pair):
        if query != clip:
            sounds[f"other{i}"] = out[f"query{i}"]
        elif (found := _clip_of(query_bank, bank.classes[k].mid, f"{pair.id}-{i}")) is not None:
            sounds[f"other{i}"] = query_bank.read(found, peak_start(query_bank, found, pair.qnum), pair.qnum)
        row = bank.index_of(absent)
        sounds[f"absent{i}"] = bank.read(row, peak_start(bank, row, pair.num), pair.num)
    return sounds, factor


def _clip_of(bank: ClipBank | None, mid: str, key: str) -> int | None:
    """A clip of the class `mid`, chosen by a hash of `key`; None where there is none."""
    clips = [clip for c in (bank.classes if bank else ()) if c.mid == mid for clip in bank.clips_of(c.index)]
    return int(clips[zlib.crc32(key.encode()) % len(clips)]) if clips else None


def _targets(pair: Pair) -> list[tuple]:
    """Number, clip, class asked for, query and absent clip of each target; one where it is alone."""
    names = ("clip", "class", "query", "absent")
    return [(i, *(getattr(pair, f"{name}{i}") for name in names)) for i in ((1,) if pair.alone else (1, 2))]


def mixture_sounds(mixture: Mixture, bank: ClipBank, tracks: Sequence[str]) -> tuple[dict[str, np.ndarray], float]:
    """The sounds of a mixture by track, float32 [T] each, and the factor that keeps them in range."""
    last = max((e.cls + 1 for e in mixture.events), default=0)
    out = events.render(mixture, bank, max(sum(name.startswith("spk") for name in tracks), last))
    found = {"wav": out["mix"], "rest": out["rest"]} | {f"spk{k}": x for k, x in enumerate(out["sources"], 1)}
    return _in_range({name: found[name] for name in tracks}, 24)


def _in_range(sounds: dict[str, np.ndarray], bits: int) -> tuple[dict[str, np.ndarray], float]:
    """Lower all sounds by one factor where one of them exceeds full scale; the factor, 1 where none does."""
    factor = min(1.0, PEAKS[bits] / max(PEAKS[bits], *(float(np.abs(x).max(initial=0)) for x in sounds.values())))
    return {name: np.float32(factor) * x for name, x in sounds.items()}, factor


def _write_pair_tables(
    out_dir: Path, pairs: Sequence[Pair], bank: ClipBank, places: dict[str, str]
) -> dict[str, list[str]]:
    """Write the folder's tables; their lines by name."""
    lines = {f"{name}.scp": [] for name in _PAIR_TABLES} | {"utt2class": [], "utt2labels": []}
    for pair in pairs:
        for i, clip, k, *_ in _targets(pair):
            key, row = f"{pair.id}-{i}", bank.index_of(clip)
            for name, sound in _PAIR_TABLES.items():
                place = places.get(f"{pair.id}-{sound.format(i)}")
                if place and (name != "enroll_self" or holds(bank, row, k)):
                    lines[f"{name}.scp"].append(f"{key} {place}")
            lines["utt2class"].append(f"{key} {bank.classes[k].mid}")
            lines["utt2labels"].append(f"{key} {','.join(bank.classes[j].mid for j in bank.labels(row))}")
    for name, rows in lines.items():
        write_text(out_dir / name, "".join(f"{row}\n" for row in sorted(rows)))
    return lines


def _tracks(table: MixtureTable) -> list[str]:
    """Names of what is written of each mixture, as the tables are named."""
    found = [e for i in range(len(table)) for e in table.row(i).events]
    if any(e.clip is None for e in found):
        return ["wav"]
    names = ["wav", *(f"spk{k + 1}" for k in range(len(table.classes)))]
    return [*names, "rest"] if any(e.cls < 0 for e in found) else names


def _write_mixture_tables(out_dir: Path, table: MixtureTable, tracks: list[str], places: dict) -> list[str]:
    """Write the folder's tables; their names."""
    ids = sorted(table.id(i) for i in range(len(table)))
    for track in tracks:
        write_text(out_dir / f"{track}.scp", "".join(f"{id} {places[f'{id}-{track}']}\n" for id in ids))
    lines = []
    for mixture in (table.row(table.index_of(id)) for id in ids):
        active = events.clip_activity(mixture, len(table.classes))
        names = [name for name, a in zip(table.classes, active, strict=True) if a]
        lines.append(f"{mixture.id} {','.join(names)}".rstrip() + "\n")
    write_text(out_dir / "utt2labels", "".join(lines))
    write_labels(out_dir / "classes.tsv", (Label(k, c, c.replace("_", " ")) for k, c in enumerate(table.classes)))
    for name in (*FILES, "table.json"):
        with atomic_path(out_dir / "mixtures" / name) as tmp:
            shutil.copyfile(table.folder / name, tmp)
    return [*(f"{track}.scp" for track in tracks), "utt2labels", "classes.tsv"]
