"""ESPnet's option parser, with configurations that build on others."""

import argparse

from espnet2.utils import config_argparse

from espnet2_ext.errors import DataError
from espnet2_ext.util.config import read_config


class ConfigParser(config_argparse.ArgumentParser):
    """ESPnet's parser with a `--config` that may `include` others, see `read_config`."""

    @classmethod
    def of(cls, parser: config_argparse.ArgumentParser) -> "ConfigParser":
        """ESPnet's parser, made one of these."""
        parser.__class__ = cls
        return parser

    def parse_known_args(self, args=None, namespace=None):
        parse = argparse.ArgumentParser.parse_known_args
        path = parse(self, args, namespace)[0].config
        if path is not None:
            try:
                config = read_config(path)
            except DataError as e:
                self.error(str(e))
            if unknown := sorted(config.keys() - {action.dest for action in self._actions}):
                self.error(f"{path}: unknown key {', '.join(unknown)}")
            self.set_defaults(**config)
        return parse(self, args, namespace)
