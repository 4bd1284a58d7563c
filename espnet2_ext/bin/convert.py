"""Turn a published checkpoint into weights for a training's `--init_param`.

    python -m espnet2_ext.bin.convert --network hts_at PUBLIC.ckpt -o hts_at.pth

A tagger's names begin with `net.`: `--init_param hts_at.pth` starts its training there,
`--init_param hts_at.pth:net:query_net` makes it the query network of a separator. ST-SED-SEP's
begin with `extractor.net.`, those of the tagger in the same checkpoint with `query_net.`. A tagger
of another rate, such as CNN14 at 16 kHz: `--sample_rate 16000 --high 8000`.
"""

import argparse
from pathlib import Path

import torch

from espnet2_ext.bin._cli import run
from espnet2_ext.core.public import cnn14, hts_at, st_sed_sep
from espnet2_ext.core.public.checkpoint import read_checkpoint
from espnet2_ext.errors import DataError
from espnet2_ext.files import atomic_path

PARTS = {
    "hts_at": {"net": hts_at.convert},
    "cnn14": {"net": cnn14.convert},
    "st_sed_sep": {"extractor.net": st_sed_sep.convert, "query_net": st_sed_sep.convert_tagger},
}
TAGGERS = ("hts_at", "cnn14")
FRONT = ("sample_rate", "low", "high")


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--network", required=True, choices=PARTS, help="what the checkpoint holds")
    p.add_argument("checkpoint", type=Path, metavar="PUBLIC.ckpt")
    for name in FRONT:
        p.add_argument(f"--{name}", type=float, metavar="HZ",
                       help="with which a tagger's mel bands were made, if not at 32 kHz")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="OURS.pth")
    return p


def main(cmd: list[str] | None = None) -> None:
    """Convert one checkpoint."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    front = {k: v for k in FRONT if (v := getattr(args, k)) is not None}
    if front and args.network not in TAGGERS:
        parser.error(f"--{next(iter(front))} is for {' and '.join(TAGGERS)}")
    public = read_checkpoint(args.checkpoint)
    weights, counts = {}, []
    for prefix, convert in PARTS[args.network].items():
        try:
            part = convert(public, **front)
        except DataError as e:
            raise DataError(f"{args.checkpoint}: {e}") from e
        weights |= {f"{prefix}.{name}": value for name, value in part.items()}
        counts.append(f"{len(part)} tensors under {prefix}")
    with atomic_path(args.output) as tmp:
        torch.save(weights, tmp)
    print(f"{args.output}: {', '.join(counts)}")


if __name__ == "__main__":
    run(main)
