"""`espnet2-ext separate`, `embed`, `info` and `pack`: the use of one model."""

import argparse
import signal
import sys

SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


def separate(argv: list[str] | None = None) -> None:
    """Separate what sounds like the queries; weak-label models: one file per class."""
    p = argparse.ArgumentParser(description=separate.__doc__)
    _separate_options(p)
    _work("separate", p.parse_args(argv))


def embed(argv: list[str] | None = None) -> None:
    """Save the query vector of some sounds."""
    p = argparse.ArgumentParser(description=embed.__doc__)
    p.add_argument("files", nargs="+", help="sound files or folders of them")
    p.add_argument("-o", "--output", required=True, help="a .npy file")
    _model_options(p)
    _work("embed", p.parse_args(argv))


def info(argv: list[str] | None = None) -> None:
    """Describe a bundle."""
    p = argparse.ArgumentParser(description=info.__doc__)
    p.add_argument("bundle", nargs="?", help="default: $ESPNET2_EXT_BUNDLE")
    _work("info", p.parse_args(argv))


def pack(argv: list[str] | None = None) -> None:
    """Pack a training into a bundle."""
    p = argparse.ArgumentParser(description=pack.__doc__)
    _pack_options(p)
    _work("pack", p.parse_args(argv))


def _work(command: str, args: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that part-files are removed
    from espnet2_ext.infer import commands  # torch is loaded after the options are known good

    getattr(commands, command)(args)


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
