"""Tables rendered into folders: sums, labels, resuming, levels, recordings without sources."""

import json
import shutil

import numpy as np
import pytest
from mixture_tables import CLASSES, RULES, make_bank, table
from sounds import snapshot

from espnet2_ext.audio.read import read_mono
from espnet2_ext.cli.data import render_mixtures as render_command
from espnet2_ext.core.mixing.events import Event, Mixture, clip_activity, render
from espnet2_ext.data.mixtures import render as module
from espnet2_ext.data.mixtures.draw import draw_table
from espnet2_ext.data.mixtures.event_table import MixtureTable, table_hash
from espnet2_ext.data.mixtures.render import mixture_sounds, render_mixtures
from espnet2_ext.data.tables import read_labels
from espnet2_ext.errors import DataError
from espnet2_ext.util.tables import read_scp


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, bank):
    folder = tmp_path_factory.mktemp("drawn") / "mixtures"
    return draw_table(bank, folder, 12, 0, CLASSES, background=["park"], background_share=0.5, **RULES)


def test_rendered_folder(tmp_path, bank, drawn, capsys):
    out = tmp_path / "mix"
    render_command(["--table", str(drawn.folder), "--bank", str(bank.path), "--out", str(out), "--num_workers", "1"])
    assert "12 mixtures" in capsys.readouterr().out
    tracks = {name: read_scp(out / f"{name}.scp") for name in ("wav", "spk1", "spk2", "rest")}
    labels = {k: v for k, *v in map(str.split, (out / "utt2labels").read_text().splitlines())}
    for i in range(12):
        m = drawn.row(i)
        want = render(m, bank, 2)
        have = {name: read_mono(places[m.id]) for name, places in tracks.items()}
        assert np.abs(have["wav"] - want["mix"]).max() < 2**-23
        assert np.abs(have["spk2"] - want["sources"][1]).max() < 2**-23
        assert np.abs(have["wav"] - have["spk1"] - have["spk2"] - have["rest"]).max() < 2**-21
        active = [n for n, a in zip(CLASSES, clip_activity(m, 2), strict=True) if a]
        assert labels[m.id] == [",".join(active)]
    assert [v.mid for v in read_labels(out / "classes.tsv")] == CLASSES
    assert MixtureTable(out / "mixtures").info == drawn.info
    about = json.loads((out / "list.json").read_text())
    assert about["mixtures"] == 12 and about["scaled"] == 0 and not (out / "parts").exists()


def test_rendering_goes_on_where_it_was(tmp_path, bank, drawn, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "mix"
    render_mixtures(drawn, bank, whole, part_size=4, num_workers=1)
    calls = []

    def stop(mixture, *args):
        calls.append(mixture.id)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return mixture_sounds(mixture, *args)

    monkeypatch.setattr(module, "mixture_sounds", stop)
    with pytest.raises(KeyboardInterrupt):
        render_mixtures(drawn, bank, out, part_size=4, num_workers=1)
    assert not (out / "list.json").exists()
    render_mixtures(drawn, bank, out, part_size=4, num_workers=1)
    assert len(calls) == 7 + 8  # the first part stays
    files = {p.name: p.read_bytes() for p in whole.glob("*.ark")}
    assert files == {p.name: p.read_bytes() for p in out.glob("*.ark")} and len(files) == 3
    before = snapshot(out)
    render_mixtures(drawn, bank, out, part_size=4, num_workers=1)
    assert snapshot(out) == before


def test_loud_mixtures_are_lowered_together(tmp_path, bank):
    events = Event(0, "c0", 0, 0, 600, 20.0), Event(1, "c1", 0, 0, 600, 1.0)
    t = table(tmp_path / "t", [Mixture("m", 600, "strong", events)])
    about = render_mixtures(t, bank, tmp_path / "mix", num_workers=1)
    assert about["scaled"] == 1
    scps = [read_scp(tmp_path / "mix" / f"{n}.scp") for n in ("wav", "spk1", "spk2")]
    parts = [read_mono(scp["m"]) for scp in scps]
    assert max(np.abs(x).max() for x in parts) < 1
    assert np.abs(parts[0] - parts[1] - parts[2]).max() < 2**-21
    assert not (tmp_path / "mix" / "rest.scp").exists()


def test_recordings_with_labels_alone_have_no_sources(tmp_path, bank):
    events = Event(-1, "c2", 0, 0, 700, 1.0), Event(1, None, 0, 10, 50, 1.0)
    t = table(tmp_path / "t", [Mixture("m", 700, "frame", events)])
    render_mixtures(t, bank, tmp_path / "mix", num_workers=1)
    x = read_mono(read_scp(tmp_path / "mix" / "wav.scp")["m"])
    assert np.array_equal(x, bank.read(2, 0, 700))
    assert (tmp_path / "mix" / "utt2labels").read_text() == "m bark\n"
    assert not list((tmp_path / "mix").glob("spk*"))


def test_rendering_checks_the_bank_first(tmp_path, bank, drawn):
    folder = shutil.copytree(drawn.folder, tmp_path / "t")
    text = (folder / "events.tsv").read_text().replace("\tc1", "\tx1")
    (folder / "events.tsv").write_text(text)
    info = {**drawn.info, "table_hash": table_hash(folder)}
    (folder / "table.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"events.tsv:\d+: .*no clip 'x1'"):
        render_mixtures(MixtureTable(folder), bank, tmp_path / "mix")
    assert not (tmp_path / "mix").exists()
