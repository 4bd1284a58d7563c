"""Turn a published checkpoint into weights for a training's `--init_param`, or into a model.

    python -m espnet2_ext.bin.convert --network hts_at PUBLIC.ckpt -o hts_at.pth
    python -m espnet2_ext.bin.convert --network st_sed_sep PUBLIC.ckpt [--tagger HTSAT.ckpt] \\
        --config conf/train_qsep_st_sed_sep_2048.yaml -o BUNDLE.zip

A tagger's names begin with `net.`: `--init_param hts_at.pth` starts its training there,
`--init_param hts_at.pth:net:query_net` makes it the query network of a separator. ST-SED-SEP's
begin with `extractor.net.`, those of its tagger with `query_net.`; the tagger is that of the same
checkpoint, or with `--tagger` that of another one. A tagger of another rate, such as CNN14 at 16
kHz: `--sample_rate 16000 --high 8000`.

The second command writes a bundle, which `espnet2-ext separate --bundle BUNDLE.zip` and
`--zero_shot` take as it is.
"""

import argparse
from pathlib import Path

import torch

from espnet2_ext.cli.run import run
from espnet2_ext.core.public import cnn14, hts_at, st_sed_sep
from espnet2_ext.core.public.checkpoint import read_checkpoint
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path

PARTS = {
    "hts_at": {"net": hts_at.convert},
    "cnn14": {"net": cnn14.convert},
    "st_sed_sep": {"extractor.net": st_sed_sep.convert, "query_net": st_sed_sep.convert_tagger},
}
TAGGERS = ("hts_at", "cnn14")
FRONT = {
    "sample_rate": "tagger's sample rate, if not 32 kHz",
    "low": "tagger's lowest mel frequency, if not that of 32 kHz",
    "high": "tagger's highest mel frequency, if not that of 32 kHz",
}


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--network", required=True, choices=PARTS, help="what the checkpoint holds")
    p.add_argument("checkpoint", type=Path, metavar="PUBLIC.ckpt")
    for name, text in FRONT.items():
        p.add_argument(f"--{name}", type=float, metavar="HZ", help=text)
    p.add_argument(
        "--tagger",
        type=Path,
        metavar="HTSAT.ckpt",
        help="the checkpoint of ST-SED-SEP's HTS-AT, if it is in another file",
    )
    p.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="the separator's YAML (sizes and signal of its networks), needed for a bundle",
    )
    p.add_argument(
        "--labels",
        type=Path,
        metavar="labels.tsv",
        help="for a bundle: the classes that its tagger knows (default: none are told)",
    )
    p.add_argument("-o", "--output", type=Path, required=True, metavar="OURS.pth|BUNDLE.zip")
    return p


def main(cmd: list[str] | None = None) -> None:
    """Convert one checkpoint."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    front = {k: v for k in FRONT if (v := getattr(args, k)) is not None}
    if front and args.network not in TAGGERS:
        parser.error(f"--{next(iter(front))} is for {' and '.join(TAGGERS)}")
    whole = args.output.suffix == ".zip"
    for option in ("config", "labels"):
        if getattr(args, option) and not whole:
            parser.error(f"--{option} is for a bundle, -o NAME.zip; got -o {args.output}")
    if whole and args.network in TAGGERS:
        parser.error(
            f"a bundle, -o {args.output}, is made of --network st_sed_sep; a tagger's weights go into -o NAME.pth"
        )
    if whole and not args.config:
        parser.error("a bundle takes --config, the separator's YAML")
    if args.tagger and args.network in TAGGERS:
        parser.error("--tagger is for --network st_sed_sep")
    for path in (args.checkpoint, args.tagger, args.config, args.labels):
        if path and not path.is_file():
            raise DataError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    parts = [(args.checkpoint, prefix, fn) for prefix, fn in PARTS[args.network].items()]
    if args.tagger:
        parts[1:] = [(args.tagger, "query_net", hts_at.convert)]
    public = {path: read_checkpoint(path) for path in {path for path, *_ in parts}}
    weights, counts = {}, []
    for path, prefix, convert in parts:
        try:
            part = convert(public[path], **front)
        except DataError as e:
            raise DataError(f"{path}: {e}") from e
        weights |= {f"{prefix}.{name}": value for name, value in part.items()}
        counts.append(f"{len(part)} tensors under {prefix}")
        if whole and not part:
            raise DataError(f"{path}: holds no tagger, which a bundle needs: --tagger HTSAT.ckpt")
    if whole:
        from espnet2_ext.infer.public_bundle import bundle_weights

        origin = " and ".join(path.name for path in (args.checkpoint, args.tagger) if path)
        bundle_weights(args.config, weights, args.labels, args.output, origin)
    else:
        with atomic_path(args.output) as tmp:
            torch.save(weights, tmp)
    print(f"{args.output}: {', '.join(counts)}")


if __name__ == "__main__":
    run(main)
