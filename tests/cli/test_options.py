"""Shared options: which model was named, and what does not belong together."""

import argparse
import re
from pathlib import Path

import pytest

from espnet2_ext.cli import options
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.util.names import Parser


def models(*argv: str, repeatable: bool = True):
    p = argparse.ArgumentParser()
    options.add_model(p, repeatable=repeatable)
    return options.model_files(p, p.parse_args(argv))


def test_models_by_bundle_or_by_configuration_and_weights():
    assert models() == []
    assert models("--bundle", "a.zip", "--bundle", "b.zip") == [("a.zip", None, None), ("b.zip", None, None)]
    assert models("--train_config", "c.yaml", "--model_file", "w.pth") == [(None, "c.yaml", "w.pth")]
    assert models("--bundle", "a.zip", repeatable=False) == [("a.zip", None, None)]


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--train_config", "c.yaml"], "belong together"),
        (["--bundle", "a.zip", "--model_file", "w.pth"], "either --bundle"),
    ],
)
def test_incomplete_or_ambiguous_models_are_refused(argv, words, capsys):
    with pytest.raises(SystemExit):
        models(*argv)
    assert words in capsys.readouterr().err


def test_every_group_shows_its_help(capsys):
    p = argparse.ArgumentParser()
    for add in (options.add_workers, options.add_device, options.add_split, options.add_frames):
        add(p)
    options.add_batch_size(p, 8)
    args = p.parse_args([])
    assert (args.num_workers, args.scheduler, args.device, args.batch_size) == (None, None, "auto", 8)
    assert "one per core" in p.format_help()
    p = argparse.ArgumentParser()
    options.add_model_workers(p)
    assert p.parse_args([]).num_workers == 1


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--train", "c.yaml"], "unrecognized arguments: --train c.yaml; did you mean --train_config?"),
        (["--bundel=B.zip"], "did you mean --bundle?"),
        (["--xyz", "1"], "unrecognized arguments: --xyz 1\n"),
    ],
)
def test_an_abbreviation_is_no_option_and_the_nearest_is_named(argv, words, capsys):
    p = Parser()
    options.add_model(p)
    with pytest.raises(SystemExit) as stopped:
        p.parse_args(argv)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


def test_options_of_a_commands_command_are_named_too(capsys):
    p = Parser()
    p.add_subparsers().add_parser("lists").add_argument("--valid_share")
    with pytest.raises(SystemExit):
        p.parse_args(["lists", "--valid", "0.1"])
    assert "did you mean --valid_share?" in capsys.readouterr().err


def test_every_command_takes_its_options_in_full():
    ours = [p for p in Path(options.__file__).parents[1].rglob("*.py") if p.stem != "options"]
    assert not [p for p in ours if re.search(r"\bargparse\.ArgumentParser\(", p.read_text(encoding="utf-8"))]
    assert not QSepTask.get_parser().allow_abbrev
