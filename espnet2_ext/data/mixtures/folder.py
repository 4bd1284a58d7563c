"""A list of pairs made into a folder of sounds and tables, as ESPnet's scoring and ours read them.

The folder's keys are `<pair id>-1` and `<pair id>-2`, one for each target of a mixture.
"""

import functools
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.core.mixing.anchors import peak_start
from espnet2_ext.core.mixing.pair_drawer import Pair, render
from espnet2_ext.data.bank.bank import ClipBank, bank_key
from espnet2_ext.data.mixtures.pair_list import format_list, text_hash
from espnet2_ext.data.mixtures.render import clear, merge, part_name, part_size_of, read_json
from espnet2_ext.data.tables import write_labels
from espnet2_ext.util.files import write_text
from espnet2_ext.util.parallel import map_parts

VERSION = 1
PEAK = 32766 / 32768  # highest sample that 16 bits hold on both sides, with room for rounding
# table -> sound of target 1 or 2 in the archive
_TABLES = {"wav": "mix", "spk1": "ref{}", "enroll_self": "ref{}", "enroll_other": "other{}", "absent": "absent{}"}


def render_folder(
    pairs: Sequence[Pair],
    bank: ClipBank,
    out_dir: str | os.PathLike,
    *,
    seed: int | None = None,
    part_size: int | None = None,
    num_workers: int | None = None,
    scheduler: str | None = None,
) -> dict:
    """Render a list of pairs (with clip ids) into `out_dir`; `list.json`, written last, ends it.

    `wav.scp` is the mixture, `spk1.scp` and `enroll_self.scp` the target, `enroll_other.scp` the
    row's query, `absent.scp` the most energetic stretch of a clip without the class, as long as
    the mixture. A key whose class has no other clip is left out of `enroll_other.scp` and counted.
    Sounds are 16-bit FLAC; where a mixture or a target exceeds full scale, mixture and both
    targets are lowered by one factor, and the pair is counted.

    A call that was stopped goes on where it was; a folder of the same list is left as it is.

    Args:
        seed: the list's, for the record.
        part_size: pairs of an archive; None: a 32nd of all, but 8 to 256.
        num_workers, scheduler: as for `map_parts`.

    Returns:
        What `list.json` holds.
    """
    out_dir = Path(out_dir)
    text = format_list(pairs)
    key = {"version": VERSION, "list_hash": text_hash(text), **bank_key(bank)}
    n = len(pairs)
    about = {"pairs": n, "keys": 2 * n, "seed": seed, "bank": str(bank.path), **key}
    done = out_dir / "list.json"
    there = read_json(done)
    if all(there.get(k) == v for k, v in key.items()):
        logging.info("%s: is there, of %d pairs", out_dir, there["pairs"])
        return there
    done.unlink(missing_ok=True)
    parts = _render_all(pairs, bank, out_dir, part_size, key, num_workers, scheduler)
    places, about["scaled"] = merge(parts, out_dir)
    about["without_other"] = _write_tables(out_dir, pairs, bank, places)
    write_text(out_dir / "pairs.tsv", text)
    write_labels(out_dir / "labels.tsv", bank.classes)
    write_text(done, json.dumps(about, indent=1) + "\n")
    clear(out_dir, len(parts))
    return about


def _render_all(pairs, bank, out_dir, part_size, key, num_workers, scheduler) -> list[Path]:
    size = part_size or part_size_of(len(pairs))
    fn = functools.partial(render_part, bank=str(bank.path), out_dir=str(out_dir), part_size=size, about=key)
    return map_parts(
        fn,
        list(enumerate(pairs)),
        out_dir / "parts",
        part_size=size,
        num_workers=num_workers,
        scheduler=scheduler,
        desc=out_dir.name,
    )


def render_part(items: Sequence[tuple[int, Pair]], path: Path, **settings) -> None:
    """Write the sounds of some numbered pairs into one archive, then what is to be known of it.

    Args:
        path: file of the part; JSON with the archive's bytes and the number of pairs lowered.
        settings: `bank`, `out_dir`, `part_size`; `about` only counts in the plan's digest.
    """
    bank, scaled = ClipBank(settings["bank"]), 0
    name = part_name(items[0][0] // settings["part_size"])
    with FlacArkWriter(settings["out_dir"], name, bank.fs) as archive:
        for _, pair in items:
            sounds, factor = sounds_of(pair, bank)
            scaled += factor != 1.0
            for sound, x in sounds.items():
                archive.write(f"{pair.id}-{sound}", x)
    path.write_text(json.dumps({"bytes": archive.ark.stat().st_size, "scaled": scaled}))


def sounds_of(pair: Pair, bank: ClipBank) -> tuple[dict[str, np.ndarray], float]:
    """The sounds of a pair by their names in the archive, and the factor that keeps them in range.

    The factor is 1 unless mixture or a target exceeds full scale.
    """
    out = render(pair, bank)
    peak = max(float(np.abs(out[name]).max()) for name in ("mix", "ref1", "ref2"))
    factor = min(1.0, PEAK / peak) if peak else 1.0
    sounds = {name: np.float32(factor) * out[name] for name in ("mix", "ref1", "ref2")}
    for i, query, clip in (("1", pair.query1, pair.clip1), ("2", pair.query2, pair.clip2)):
        if query != clip:
            sounds[f"other{i}"] = out[f"query{i}"]
    for i, absent in (("1", pair.absent1), ("2", pair.absent2)):
        row = bank.index_of(absent)
        sounds[f"absent{i}"] = bank.read(row, peak_start(bank, row, pair.num), pair.num)
    return sounds, factor


def _write_tables(out_dir: Path, pairs, bank, places: dict[str, str]) -> int:
    """Write the folder's tables; the number of keys without another clip of their class."""
    lines = {f"{name}.scp": [] for name in _TABLES} | {"utt2class": [], "utt2labels": []}
    for pair in pairs:
        for i, clip, k in ((1, pair.clip1, pair.class1), (2, pair.clip2, pair.class2)):
            key = f"{pair.id}-{i}"
            for name, sound in _TABLES.items():
                place = places.get(f"{pair.id}-{sound.format(i)}")
                if place:
                    lines[f"{name}.scp"].append(f"{key} {place}")
            mids = [bank.classes[j].mid for j in bank.labels(bank.index_of(clip))]
            lines["utt2class"].append(f"{key} {bank.classes[k].mid}")
            lines["utt2labels"].append(f"{key} {','.join(mids)}")
    for name, rows in lines.items():
        write_text(out_dir / name, "".join(f"{row}\n" for row in sorted(rows)))
    return len(lines["spk1.scp"]) - len(lines["enroll_other.scp"])
