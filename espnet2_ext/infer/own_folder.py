"""Inference over a user's own folder: recordings of any rate, length and number of channels."""

import functools
import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.infer.work import VERSION, ModelFiles, digest_of, is_done, read_table
from espnet2_ext.util.files import write_text
from espnet2_ext.util.parallel import map_parts


def infer_own_folder(data_dir: Path, output_dir: Path, model: ModelFiles, model_digest: str, run: dict) -> None:
    """`wav.scp` and `enroll_spk1.scp` to `spk1.scp` and `wavs/KEY.wav`, as the inputs are.

    Raises:
        DataError: a missing table, a key without a query, two keys that need one file name, a
            sound that cannot be read.
    """
    for name in ("wav.scp", "enroll_spk1.scp"):
        if not (data_dir / name).is_file():
            raise DataError(
                f"{data_dir / name}: no such file; a data folder needs wav.scp and "
                "enroll_spk1.scp (or the enroll_self.scp, enroll_other.scp of a "
                "rendered test set)"
            )
    mixes = read_table(data_dir / "wav.scp")
    queries = read_table(data_dir / "enroll_spk1.scp")
    if lacking := [key for key in mixes if key not in queries]:
        raise DataError(
            f"{data_dir / 'enroll_spk1.scp'}: has no query for {len(lacking)} keys of "
            f"wav.scp, the first is {lacking[0]}"
        )
    items = [(key, mix, queries[key], f"{_file_name(key)}.wav") for key, mix in mixes.items()]
    if len({item[3] for item in items}) < len(items):
        raise DataError(f"{data_dir / 'wav.scp'}: two keys differ in signs only that a file name cannot hold")
    digest = digest_of(VERSION, model_digest, items)
    about, scp = output_dir / "about.json", output_dir / "spk1.scp"
    if is_done(about, digest, scp):
        logging.info("%s: is there", scp)
        return
    for old in (about, scp):
        old.unlink(missing_ok=True)
    fn = functools.partial(separate_part, model=asdict(model), out_dir=str(output_dir / "wavs"), stamp=digest)
    parts = map_parts(fn, items, output_dir / "parts", part_size=8, desc=data_dir.name, **run)
    told = [json.loads(p.read_text()) for p in parts]
    write_text(scp, "".join(f"{key} {output_dir / 'wavs' / name}\n" for key, _, _, name in items))
    write_text(
        about, json.dumps({"digest": digest, "keys": len(items), "clipped": sum(t["clipped"] for t in told)}) + "\n"
    )
    shutil.rmtree(output_dir / "parts")


def separate_part(
    items: Sequence[tuple[str, str, str, str]], path: Path, *, model: dict, out_dir: str, stamp: str
) -> None:
    """Separate (key, mixture, query, file name); JSON with the samples clipped in `path`."""
    separator = ModelFiles(**model).load()
    vectors: dict = {}
    clipped = 0
    for key, mix, query, name in items:
        try:
            if query not in vectors:
                vectors[query] = separator.embed_one(query)
            done = separator.separate_to(mix, [Path(out_dir) / name], vectors[query][None])
        except DataError as e:
            raise DataError(f"key {key}: {e}") from e
        clipped += done.clipped
    path.write_text(json.dumps({"clipped": clipped}))


def _file_name(key: str) -> str:
    return re.sub(r"[^\w.+-]", "_", key)
