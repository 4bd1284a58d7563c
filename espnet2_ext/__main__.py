"""`python -m espnet2_ext COMMAND` is `espnet2-ext COMMAND`."""

from espnet2_ext.cli.main import main

if __name__ == "__main__":
    main()
