"""`espnet2-ext`: separate sounds with a trained model."""

import argparse
import signal
import sys

from espnet2_ext.bin import validate_data
from espnet2_ext.bin._cli import run

SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="espnet2-ext", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    _separate_options(
        commands.add_parser(
            "separate", help="separate what sounds like the queries; weak-label models: one file per class"
        )
    )

    p = commands.add_parser("embed", help="save the query vector of some sounds")
    p.add_argument("files", nargs="+", help="sound files or folders of them")
    p.add_argument("-o", "--output", required=True, help="a .npy file")
    _model_options(p)

    p = commands.add_parser("info", help="describe a bundle")
    p.add_argument("bundle", nargs="?", help="default: $ESPNET2_EXT_BUNDLE")

    p = commands.add_parser("validate-data", help="check label tables")
    validate_data.add_options(p)

    _pack_options(commands.add_parser("pack", help="pack a training into a bundle"))
    return parser


def _separate_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("mix", nargs="+", help="sound files or folders of them")
    p.add_argument(
        "--query",
        action="append",
        default=[],
        help="a sound of the wanted kind, a folder of them, or a saved .npy; repeatable",
    )
    p.add_argument(
        "-o",
        "--output",
        required=True,
        help="a .wav, .w64 or .flac file; a folder for several outputs, which get "
        "the name of their query or class: mix.dog_bark.wav",
    )
    p.add_argument("--residual", help="file or folder for what is left: mixture minus output")
    p.add_argument(
        "--mode",
        choices=("mean", "each"),
        default="mean",
        help="mean: one output for the average of all queries; each: one for every "
        "--query (a folder is one); the residual is then what is left after all of "
        "them",
    )
    p.add_argument(
        "--chunk",
        type=float,
        help="seconds the model sees at once, context not counted; 0: everything (default: 20; weak-label models: 60)",
    )
    p.add_argument(
        "--context",
        type=float,
        help="seconds on both sides of a chunk, computed and discarded (default: 2.5; weak-label models: 5)",
    )
    p.add_argument(
        "--subtype", choices=SUBTYPES, help="sample type of the outputs; default: the input's own, else PCM_16"
    )
    p.add_argument("--skip_existing", action="store_true", help="skip outputs that exist")
    p.add_argument("--train_config", help="instead of a bundle: config.yaml of a weak-label experiment")
    p.add_argument("--model_file", help="with its weights")
    _model_options(p)


def _pack_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--train_config", required=True, help="config.yaml of the experiment")
    p.add_argument("--model_file", required=True, help="weights, such as valid.loss.ave.pth")
    p.add_argument(
        "--labels", help="labels.tsv of the training data; not for weak labels, whose config.yaml names the classes"
    )
    p.add_argument("--info", help="YAML with trained_on, results and other facts")
    p.add_argument("--name", help="default: the name of the experiment's folder")
    p.add_argument("-o", "--output", required=True, help="a .zip file")


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", help="model bundle (.zip); default: $ESPNET2_EXT_BUNDLE")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...")


def main(cmd=None) -> None:
    """Console script; ends the process with a plain message when something is wrong."""
    args = get_parser().parse_args(cmd)

    def work() -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that part-files are removed
        if args.command == "validate-data":  # needs no model
            return validate_data.check(args)
        from espnet2_ext.infer import commands  # torch is loaded after the options are known good

        getattr(commands, args.command)(args)

    run(work)


if __name__ == "__main__":
    main()
