"""`python -m espnet2_ext COMMAND` is `espnet2-ext COMMAND`."""

import signal


def main() -> None:
    """Console script; see `cli.main`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of an import; `cli.main.run` says more
    from espnet2_ext.cli.main import main

    main()


if __name__ == "__main__":
    main()
