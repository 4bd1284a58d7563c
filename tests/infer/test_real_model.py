"""The real networks in their debug size, through a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from standin import noise

from espnet2_ext.cli.main import main
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.infer.query_separator import Separator

DEBUG = Path(__file__).parents[2] / "conf" / "debug"


@pytest.fixture(scope="module", params=["care_sep", "query_unet"])
def debug_bundle(request, tmp_path_factory):
    """A bundle of the debug model; its weights are enlarged, or an untrained mask hardly moves."""
    from espnet2_ext.tasks.qsep import QSepTask

    path = tmp_path_factory.mktemp(request.param)
    config = str(DEBUG / f"train_qsep_{request.param}.yaml")
    args = QSepTask.get_parser().parse_args(["--config", config, "--output_dir", str(path)])
    torch.manual_seed(0)
    model = QSepTask.build_model(args)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    torch.save(model.state_dict(), path / "model.pth")
    (path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    classes = model.num_classes
    (path / "labels.tsv").write_text(
        "index\tmid\tname\trelated\n" + "".join(f"{i}\t/m/{i}\tclass {i}\t\n" for i in range(classes))
    )
    write_bundle(path / "config.yaml", path / "model.pth", path / "labels.tsv", path / "b.zip")
    return path / "b.zip"


def test_chunked_equals_whole(debug_bundle):
    """At the default context the seams between chunks of one grid are below a 16-bit step."""
    separator = Separator.from_bundle(debug_bundle, "cpu")
    plan = separator.plan(chunk=1)
    x = noise(4.5 * plan.core / separator.fs, separator.fs, 2)
    query = separator.embed_one(noise(2, separator.fs, 1, 5), separator.fs)[None]
    whole = separator.separate(x, separator.fs, query, separator.plan(chunk=0))
    parts = separator.separate(x, separator.fs, query, plan)
    estimate = whole[0] - x * (whole[0].ravel() @ x.ravel()) / (x.ravel() @ x.ravel())
    assert np.abs(estimate).max() > 0.005  # the mask is not one factor for all
    difference = np.abs(whole - parts)[0].max(1)
    print(f"max |difference| {difference.max():.2e}, estimate {np.abs(whole).max():.2f}")
    assert difference.max() < 2**-16
    seams = range(plan.core, len(x) - plan.after, plan.core)
    assert len(seams) >= 2
    for seam in seams:
        assert difference[seam - plan.fade : seam + plan.fade].max() < 2**-16


@pytest.mark.parametrize(
    "fs, length, channels", [(8000, 1, 1), (44100, 1, 2), (32000, 319, 1), (32000, 513, 2), (48000, 20001, 6)]
)
def test_any_input(debug_bundle, fs, length, channels):
    separator = Separator.from_bundle(debug_bundle, "cpu")
    query = separator.embed_one(noise(1, separator.fs, 1, 5), separator.fs)
    out = separator.separate(noise(1, fs, channels)[:length], fs, np.stack([query, query]))
    assert out.shape == (2, length, channels) and np.isfinite(out).all()
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)


def test_whole_clips_are_the_chunked_ones(debug_bundle):
    """Batches of clips, as scoring uses them, and a file's way give one answer."""
    separator = Separator.from_bundle(debug_bundle, "cpu")
    clips = np.stack([noise(2, separator.fs, 1, i)[:, 0] for i in range(2)])
    queries, tags = separator.embed_batch(clips)
    assert tags.shape == (2, len(separator.classes))
    out = separator.separate_batch(clips, queries)
    for clip, query, est in zip(clips, queries, out):
        np.testing.assert_allclose(est, separator.separate(clip, separator.fs, query[None])[0], atol=1e-4)


def test_what_a_bundle_is_made_of_is_told(debug_bundle, capsys):
    main(["info", str(debug_bundle)])
    told = capsys.readouterr().out
    if "query_unet" in str(debug_bundle):
        assert "query_net: hts_at" in told and "query_grad: false" in told
    else:
        assert "query_net: shared" in told
