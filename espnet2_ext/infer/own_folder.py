"""Query separation of a user's own folder: recordings of any rate, length and number of channels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet2_ext.data.outputs import remove_old, write_scp
from espnet2_ext.errors import DataError
from espnet2_ext.infer.folder import VERSION, ModelFiles, Workers, end_job, read_table, run_job, up_to_date
from espnet2_ext.util.once import digest, write_record


def infer_own_folder(data_dir: Path, output_dir: Path, model: ModelFiles, workers: Workers) -> None:
    """`wav.scp` and `enroll_spk1.scp` to `spk1.scp` and `wavs/KEY.wav`, in the format of the inputs."""
    model_digest = model.digest()
    items = _own_items(data_dir)
    key = {"digest": digest(VERSION, model_digest, items)}
    about, scp, parts_dir = output_dir / "about.json", output_dir / "spk1.scp", output_dir / "parts"
    if up_to_date(about, key, scp):
        return
    remove_old(output_dir, r"about\.json|spk1\.scp")
    job = SeparateOwn(str(output_dir / "wavs"))
    parts = run_job(job, model, items, parts_dir, part_size=8, stamp=key, workers=workers, desc=data_dir.name)
    write_scp(scp, {key: output_dir / "wavs" / name for key, _, _, name in items})
    write_record(about, key, {"keys": len(items), "clipped": sum(p.facts["clipped"] for p in parts)})
    end_job(parts_dir)


def _own_items(data_dir: Path) -> list[tuple[str, str, str, str]]:
    """(key, mixture, query, file name) of a user's folder.

    Raises:
        DataError: a missing table, a key without a query, two keys that need one file name.
    """
    for name in ("wav.scp", "enroll_spk1.scp"):
        if not (data_dir / name).is_file():
            raise DataError(
                f"{data_dir / name}: no such file; a data folder needs wav.scp and enroll_spk1.scp (or the "
                "enroll_self.scp, enroll_other.scp of a rendered test set)"
            )
    mixes = read_table(data_dir / "wav.scp")
    queries = read_table(data_dir / "enroll_spk1.scp")
    if lacking := [key for key in mixes if key not in queries]:
        raise DataError(
            f"{data_dir / 'enroll_spk1.scp'}: has no query for {len(lacking)} keys of "
            f"wav.scp, the first is {lacking[0]}"
        )
    items = [(key, mix, queries[key], re.sub(r"[^\w.+-]", "_", key) + ".wav") for key, mix in mixes.items()]
    if len({item[3] for item in items}) < len(items):
        raise DataError(f"{data_dir / 'wav.scp'}: two keys differ only in characters that a file name cannot hold")
    return items


@dataclass(frozen=True)
class SeparateOwn:
    """Separate (key, mixture, query, file name) into files; any rate, length and number of channels."""

    out_dir: str

    def answer(self, separator, items: Sequence[tuple[str, str, str, str]]) -> tuple[dict, dict]:
        """See `folder.Job`."""
        vectors: dict = {}
        clipped = 0
        for key, mix, query, name in items:
            try:
                if query not in vectors:
                    vectors[query] = separator.embed_one(query)
                done = separator.separate_to(mix, [Path(self.out_dir) / name], vectors[query][None])
            except DataError as e:
                raise DataError(f"key {key}: {e}") from e
            clipped += done.clipped
        return {"clipped": clipped}, {}
