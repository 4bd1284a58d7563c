"""Models by name, and the folder for a hub; no network."""

import logging
import shutil
import sys

import numpy as np
import pytest
import soundfile
import yaml

from espnet2_ext.cli import main as cli
from espnet2_ext.errors import BundleError
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.infer.exchange.hub import located, page
from espnet2_ext.infer.query_separator import Separator

FACTS = {"task": "qsep", "name": "toy", "fs": 16000, "license": "mit", "trained_on": "bells", "results": {"sdr": 8.1}}
CARD = "---\nlicense: cc0-1.0\ndatasets: [own]\n---\n# Toy\n\nBells.\n\n## Limits\n\nMany.\n"


@pytest.fixture
def ext(tmp_path, monkeypatch, toy_bundle, caplog, capsys):
    """Run the command in `tmp_path`; returns its status, and its log and messages."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)

    def run(*args):
        caplog.clear()
        try:
            cli.main([str(a) for a in args])
            status = 0
        except SystemExit as e:
            status = e.code or 0
        return status, caplog.text + capsys.readouterr().err

    return run


def test_a_file_or_a_folder_with_one_bundle(toy_bundle, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    with pytest.raises(BundleError, match="models: holds 0 bundles"):
        Separator.from_pretrained(folder)
    shutil.copy(toy_bundle, folder / "a.zip")
    hashes = {Separator.from_pretrained(name, device="cpu").model_hash for name in (toy_bundle, folder)}
    assert len(hashes) == 1
    shutil.copy(toy_bundle, folder / "b.zip")
    with pytest.raises(BundleError, match="models: holds 2 bundles"):
        located(folder)
    shutil.copy(toy_bundle, folder / "model.zip")
    assert located(folder) == str(folder / "model.zip")


def test_a_name_of_the_hub(toy_bundle, monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        BundleError, match=r"^a/toy: no such file or folder; as a name of huggingface.co, it gave no"
    ) as e:
        Separator.from_pretrained("a/toy")
    assert "\n" not in str(e.value)
    asked = []
    monkeypatch.setattr(hub, "hf_hub_download", lambda *args, **more: asked.append((args, more)) or str(toy_bundle))
    assert Separator.from_pretrained("a/toy", "cpu", revision="v1").info["name"] == "toy"
    assert asked == [(("a/toy", "model.zip"), {"revision": "v1"})]
    (tmp_path / "b").mkdir()
    for name in ("a/toy.zip", "a/b/c", "toy", "b/toy"):  # these are paths
        with pytest.raises(BundleError, match="no such bundle file"):
            Separator.from_pretrained(name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match="needs a package: pip install huggingface_hub"):
        Separator.from_pretrained("a/toy")


def test_commands_take_such_names(ext, toy_bundle, tmp_path, monkeypatch, capsys):
    """Folders and names of the hub stand for a bundle wherever one is read, and in the environment."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    soundfile.write("a.wav", np.sin(np.arange(16000)) / 2, 16000)
    commands = (
        ["info", "a/toy"],
        ["classes", "a/toy"],
        ["embed", "a.wav", "--bundle", "a/toy", "-o", "a.npy"],
        ["find", "a.wav", "--query", "a.wav", "--bundle", "a/toy"],
        ["separate", "a.wav", "--query", "a.wav", "--bundle", "a/toy", "-o", "b.wav"],
        ["app", "--no_browser", "--bundle", "a/toy", "--port", "-1"],
    )
    for command in commands:
        status, words = ext(*command)
        assert status == 1 and "error: a/toy: no such file or folder; as a name of huggingface.co, it gave" in words
        assert words.count("\n") == 2  # with the one that says where it is looked for
    monkeypatch.setattr(hub, "hf_hub_download", lambda *args, **more: str(toy_bundle))
    for command in commands[:-1]:
        assert ext(*command)[0] == 0
    assert "--port -1: is from 0 to 65535" in ext(*commands[-1])[1]
    monkeypatch.setenv("ESPNET2_EXT_BUNDLE", "a/toy")
    assert ext("info")[0] == 0
    (tmp_path / "models").mkdir()
    shutil.move(toy_bundle, "models/any.zip")
    assert ext("info", "models")[0] == 0


def test_the_folder_for_the_hub(ext, toy_bundle, tmp_path):
    status, words = ext("pack", "--bundle", toy_bundle, "--hub", "out")
    assert status == 1 and "under what licence" in words
    (tmp_path / "facts.yaml").write_text("license: cc-by-4.0\n")
    status, words = ext("pack", "--bundle", toy_bundle, "--info", "facts.yaml", "--hub", "out")
    assert status == 0 and "hf upload OWNER/toy out" in words
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "model.zip"]
    text = (tmp_path / "out/README.md").read_text()
    _, head, body = text.split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["license"] == "cc-by-4.0" and "sound-separation" in head["tags"]
    for words in ('from_pretrained("OWNER/toy")', "manifest_hash: abc123", "self: 8.1", "## Limits", "8000 Hz"):
        assert words in body
    (tmp_path / "out/README.md").write_text("mine")
    assert ext("pack", "--bundle", toy_bundle, "--info", "facts.yaml", "--half", "--hub", "out")[0] == 0
    assert (tmp_path / "out/README.md").read_text() == "mine"
    with open_bundle(tmp_path / "out/model.zip") as bundle:
        assert bundle.info["precision"] == "half"
    assert ext("pack", "--bundle", toy_bundle)[0] == 2
    assert ext("pack", "--bundle", toy_bundle, "--hub", "out", "-o", "a.zip")[0] == 2


def test_what_a_card_says_comes_first():
    _, head, body = page(FACTS, CARD, [], "a.zip").split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["license"] == "cc0-1.0" and head["datasets"] == ["own"]
    assert body.startswith("# Toy\n\nBells.\n\n## Limits\n\nMany.\n\n## Use\n") and body.count("## Limits") == 1
    assert body.index("## Training data\n\nbells") < body.index("## Scores")
    weak = page({**FACTS, "task": "weak"}, "", ["bell", "dog"], "a.zip")
    assert "WeakSeparator" in weak and "separated: bell, dog." in weak
