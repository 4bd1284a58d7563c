"""A table of mixtures made into a folder of sounds, as ESPnet's inference and scoring read it.

wav.scp                  the mixtures; keys are the mixtures' ids
spk1.scp .. spkK.scp     the sources, classes in their order; silence where a class is absent
rest.scp                 sound of no labelled class, where the table has any
utt2labels               names of the classes in each mixture, comma-separated
classes.tsv, mixtures/   the classes; a copy of the table
list.json                what it was made from, written last
"""

import functools
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.core.mixing.events import Mixture, clip_activity, render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable, bank_digest
from espnet2_ext.data.mixtures.render import clear, merge, part_name, part_size_of, read_json
from espnet2_ext.data.tables import Label, write_labels
from espnet2_ext.util.files import atomic_path, write_text
from espnet2_ext.util.parallel import map_parts

VERSION = 1
PEAK = 1 - 2**-20  # highest sample that 24 bits hold, with room for rounding
BITS = 24


def render_mixtures(
    table: MixtureTable,
    bank: ClipBank,
    out_dir: str | os.PathLike,
    *,
    part_size: int | None = None,
    num_workers: int | None = None,
    scheduler: str | None = None,
) -> dict:
    """Render a table into `out_dir`; `list.json`, written last, ends it.

    Sounds are 24-bit FLAC. Where a mixture or a source exceeds full scale, all of that mixture is
    lowered by one factor, and the mixture is counted. A table with a label without isolated sound
    has no sources to write: then there are `wav.scp` and the labels only.

    A call that was stopped goes on where it was; a folder of the same table is left as it is.

    Args:
        part_size: mixtures of an archive; None: a 32nd of all, but 8 to 256.
        num_workers, scheduler: as for `map_parts`.

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
    there = read_json(out_dir / "list.json")
    if all(there.get(k) == v for k, v in key.items()):
        logging.info("%s: is there, of %d mixtures", out_dir, there["mixtures"])
        return there
    (out_dir / "list.json").unlink(missing_ok=True)
    n = len(table)
    size = part_size or part_size_of(n)
    fn = functools.partial(
        render_part,
        table=os.path.abspath(table.folder),
        bank=os.path.abspath(bank.path),
        out_dir=str(out_dir),
        part_size=size,
        about=key,
    )
    parts = map_parts(
        fn,
        list(range(n)),
        out_dir / "parts",
        part_size=size,
        num_workers=num_workers,
        scheduler=scheduler,
        desc=out_dir.name,
    )
    places, scaled = merge(parts, out_dir)
    _write_tables(out_dir, table, tracks, places)
    about = {"mixtures": n, "scaled": scaled, "bank": str(bank.path), **key}
    write_text(out_dir / "list.json", json.dumps(about, indent=1) + "\n")
    clear(out_dir, len(parts))
    return about


def _tracks(table: MixtureTable) -> list[str]:
    """Names of what is written of each mixture, as the tables are named."""
    events = [e for i in range(len(table)) for e in table.row(i).events]
    if any(e.clip is None for e in events):
        return ["wav"]
    names = ["wav", *(f"spk{k + 1}" for k in range(len(table.classes)))]
    return [*names, "rest"] if any(e.cls < 0 for e in events) else names


def render_part(
    rows: Sequence[int], path: Path, *, table: str, bank: str, out_dir: str, part_size: int, about: dict
) -> None:
    """Write the sounds of some mixtures into one archive, then to `path` what is known of it."""
    mixtures, clips, scaled = MixtureTable(table), ClipBank(bank), 0
    name = part_name(rows[0] // part_size)
    with FlacArkWriter(out_dir, name, clips.fs, BITS) as archive:
        for mixture in map(mixtures.row, rows):
            sounds, factor = sounds_of(mixture, clips, about["tracks"])
            scaled += factor != 1.0
            for track, x in sounds.items():
                archive.write(f"{mixture.id}-{track}", x)
    path.write_text(json.dumps({"bytes": archive.ark.stat().st_size, "scaled": scaled}))


def sounds_of(mixture: Mixture, bank: ClipBank, tracks: Sequence[str]) -> tuple[dict[str, np.ndarray], float]:
    """Sounds of a mixture by track, and the factor that keeps them in range (1: they are)."""
    num_classes = max(sum(name.startswith("spk") for name in tracks), _classes(mixture))
    out = render(mixture, bank, num_classes)
    found = {"wav": out["mix"], "rest": out["rest"]}
    found |= {f"spk{k + 1}": x for k, x in enumerate(out["sources"])}
    sounds = {name: found[name] for name in tracks}
    peak = max(float(np.abs(x).max(initial=0)) for x in sounds.values())
    factor = min(1.0, PEAK / peak) if peak else 1.0
    return {name: np.float32(factor) * x for name, x in sounds.items()}, factor


def _classes(mixture: Mixture) -> int:
    return max((e.cls + 1 for e in mixture.events), default=0)


def _write_tables(out_dir: Path, table: MixtureTable, tracks: list[str], places: dict) -> None:
    ids = sorted(table.id(i) for i in range(len(table)))
    for track in tracks:
        lines = (f"{id} {places[f'{id}-{track}']}\n" for id in ids)
        write_text(out_dir / f"{track}.scp", "".join(lines))
    lines = []
    for mixture in (table.row(table.index_of(id)) for id in ids):
        active = clip_activity(mixture, len(table.classes))
        names = [name for name, a in zip(table.classes, active, strict=True) if a]
        lines.append(f"{mixture.id} {','.join(names)}".rstrip() + "\n")
    write_text(out_dir / "utt2labels", "".join(lines))
    labels = (Label(k, name, name.replace("_", " ")) for k, name in enumerate(table.classes))
    write_labels(out_dir / "classes.tsv", labels)
    for name in ("mixtures.tsv", "events.tsv", "ids", "table.json"):
        with atomic_path(out_dir / "mixtures" / name) as tmp:
            shutil.copyfile(table.folder / name, tmp)
