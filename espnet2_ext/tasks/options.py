"""Options of a training as a YAML gives them: every value is checked, and an error names the file and the key."""

import argparse
from collections.abc import Iterator
from typing import Any

from espnet2.utils import config_argparse
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str2bool, str2pair_str, str2triple_str, str_or_none

from espnet2_ext.errors import DataError, refusing
from espnet2_ext.util.config import read_config
from espnet2_ext.util.documents import check, mapping, short
from espnet2_ext.util.options import Parser

CRITERION = {"name": str, "conf?": (dict, None), "wrapper?": str, "wrapper_conf?": (dict, None)}
TYPES = {int: "a whole number", int_or_none: "a whole number or null", float: "a number", str2bool: "true or false"}
TYPES |= {str: "text", str_or_none: "text or null", str2triple_str: "three words", str2pair_str: "two words"}
ENDS = {"best_model_criterion": 3, "early_stopping_criterion": 3, "val_scheduler_criterion": 2}  # number of words
MANY = 1_000_000
LIMITS = {name: (1, MANY) for name in ("batch_size", "valid_batch_size", "max_epoch", "accum_grad", "log_interval")}
LIMITS |= {"num_iters_per_epoch": (1, 100 * MANY), "num_workers": (0, 1000), "ngpu": (0, 1000)}
LIMITS |= {"seed": (0, 2**32 - 1), "patience": (0, MANY), "keep_nbest_models": (0, MANY), "sample_rate": (1, MANY)}
LIMITS |= {name: (1, 2**40) for name in ("batch_bins", "valid_batch_bins")} | {"nbest_averaging_interval": (0, MANY)}


class ConfigParser(Parser, config_argparse.ArgumentParser):
    """ESPnet's parser with a `--config` that may `include` others, see `read_config`; its values are checked."""

    @classmethod
    def of(cls, parser: config_argparse.ArgumentParser) -> "ConfigParser":
        """ESPnet's parser, made one of these."""
        parser.__class__, parser.allow_abbrev = cls, False
        return parser

    def parse_known_args(self, args=None, namespace=None):
        """As ESPnet's.

        Raises:
            DataError: naming the YAML and its key, or the option: an unknown one, a value of another type or size.
        """
        with refusing("options"):  # a YAML text in an option that is none
            path = argparse.ArgumentParser.parse_known_args(self, args, namespace)[0].config
        if path is not None:
            config, actions = read_config(path), {action.dest: action for action in self._actions}
            if unknown := sorted(config.keys() - actions.keys()):
                raise DataError(f"{path}: unknown key {', '.join(unknown)}")
            self.set_defaults(**{key: self._checked(path, actions[key], value) for key, value in config.items()})
        found, rest = argparse.ArgumentParser.parse_known_args(self, args, namespace)
        for name, (least, most) in LIMITS.items():
            for value in flat([getattr(found, name, None)]):
                if value is not None and not least <= value <= most:
                    raise DataError(f"{found.config or '--'}: key {name}: must be {least} to {most}, not {value}")
        return found, rest

    def _checked(self, path: str, action: argparse.Action, value: Any) -> Any:
        """The value of a YAML's key, if it is what the option takes."""
        where, many = f"{path}: key {action.dest}", action.nargs in ("+", "*") or isinstance(action.nargs, int)
        if action.dest in ENDS:
            for row in value if isinstance(value, list) and value and isinstance(value[0], list) else [value]:
                good = isinstance(row, list) and len(row) == ENDS[action.dest] and all(isinstance(v, str) for v in row)
                if not good or row[0] not in ("train", "valid") or row[2:] not in ([], ["min"], ["max"]):
                    raise DataError(f"{where}: expected such as [valid, loss, min], not {short(row)}")
            return value
        if action.dest == "criterions":
            return check(value, [CRITERION], where)
        if isinstance(action, NestedDictAction):
            return {} if value is None else mapping(value, where)
        if not (many or isinstance(action, argparse._AppendAction)) or not isinstance(value, list):
            return self._one(where, action, value)
        if isinstance(action.nargs, int) and len(value) != action.nargs or (not value and action.nargs == "+"):
            raise DataError(f"{where}: expected {action.nargs if action.nargs != '+' else 'some'} values, got {value}")
        return [self._one(where, action, v) for v in value]

    def _one(self, where: str, action: argparse.Action, value: Any) -> Any:
        if value is None and (action.default is None or action.type is str_or_none):
            return None
        if isinstance(value, list) and action.type in (str2triple_str, str2pair_str):
            size = 3 if action.type is str2triple_str else 2
            return check(value, [str], where) if len(value) == size else self._one(where, action, str(value))
        text = value if isinstance(value, str) else str(value)
        try:
            if isinstance(value, list | dict | None):
                raise ValueError
            found = action.type(text) if action.type else value
            if found != found or (action.choices is not None and found not in action.choices):
                raise ValueError
        except (ValueError, TypeError, ArithmeticError, LookupError):
            among = (
                f"one of {', '.join(map(str, action.choices))}" if action.choices else TYPES.get(action.type, "a value")
            )
            raise DataError(f"{where}: expected {among}, not {short(value)}") from None
        return value if found == value else found


def flat(values: Any) -> Iterator[Any]:
    """What is in nested lists."""
    for value in values:
        yield from flat(value) if isinstance(value, list | tuple) else [value]
