"""Shared options: which model was named, and what does not belong together."""

import argparse

import pytest

from espnet2_ext.cli import options


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
