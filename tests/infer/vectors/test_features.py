"""What a separation network makes inside, and the picture of a whole bundle."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from standin import StandIn, noise

from espnet2_ext.cli.score import embedding_figure
from espnet2_ext.core.nets.query_unet import QueryUNet
from espnet2_ext.errors import BundleError
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.features import features_of, place_of, pooled_outputs
from espnet2_ext.report.embedding import symmetric_kl

CONFIG = Path(__file__).parents[3] / "conf" / "debug" / "train_qsep_care_sep.yaml"


@pytest.fixture(scope="module")
def care_sep_bundle(tmp_path_factory):
    from espnet2_ext.tasks.qsep import QSepTask

    path = tmp_path_factory.mktemp("debug")
    args = QSepTask.get_parser().parse_args(["--config", str(CONFIG), "--output_dir", str(path)])
    torch.manual_seed(0)
    model = QSepTask.build_model(args)
    torch.save(model.state_dict(), path / "model.pth")
    (path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    (path / "labels.tsv").write_text(
        "index\tmid\tname\trelated\n"
        + "".join(f"{i}\t/m/{i}\tclass {i}\t\n" for i in range(model.extractor.net.num_classes))
    )
    write_bundle(path / "config.yaml", path / "model.pth", path / "labels.tsv", path / "b.zip", {"name": "tiny"})
    return path / "b.zip"


def test_features_are_the_connectors_output_in_the_separation_pass(care_sep_bundle):
    separator = Separator.from_bundle(care_sep_bundle, "cpu")
    waves = [noise(seconds, separator.fs, 1, n)[:, 0] for n, seconds in enumerate((0.5, 0.7, 0.5))]
    found = features_of(separator, waves, batch_size=2)
    assert found.where == "output of the connector's last block"
    model, net = separator.model, separator.model.extractor.net
    for wave, query, feature in zip(waves, found.queries, found.separation, strict=True):
        expected = separator.embed_batch(wave[None])[0]
        np.testing.assert_allclose(query, expected[0], atol=1e-5)
        with torch.inference_mode():
            spec, frames = model.encoder(torch.from_numpy(wave[None]), torch.tensor([len(wave)]))
            tokens = net.tokens(net.image(spec, frames))
            _, out, valid = net.encode(tokens, frames.tolist(), torch.from_numpy(expected))
        assert list(valid) == [out.shape[1]]  # so its mean is over no padding
        np.testing.assert_allclose(feature, out[0].mean((0, 1)), atol=1e-5)
    assert not net.connector._forward_hooks


def test_features_of_the_unet_are_the_centres_output():
    """The centre's last layer is set to relu(norm(0)) = 0.5 plus its map of the query."""
    torch.manual_seed(0)
    net = QueryUNet(query_dim=3, num_bins=5, widths=(2, 3)).eval()
    part, place = place_of(SimpleNamespace(extractor=SimpleNamespace(net=net)))
    assert part is net.centre and "centre block" in place.words
    last, query = net.centre.layers[-1], torch.randn(2, 1, 3)
    with torch.no_grad():
        last.conv.weight.zero_()
        last.norm.bias.fill_(0.5)
        with pooled_outputs(part, place.channels) as found:
            net.mask(torch.randn(2, 7, 5, dtype=torch.complex64), torch.tensor([7, 7]), query)
        torch.testing.assert_close(found[0], 0.5 + last.query(query[:, 0]))
    assert found[0].shape == (2, 6) and not part._forward_hooks


def test_a_network_without_a_known_place_is_named():
    with pytest.raises(BundleError, match="NoneType has none of the parts.*connector, centre"):
        features_of(Separator(StandIn(), device="cpu"), [noise(0.5, 16000)[:, 0]])


def test_the_picture_of_a_bundle(care_sep_bundle, tmp_path, capsys):
    for k, name in enumerate(("low", "high")):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for n in range(5):
            t = np.arange(8000) / 16000
            tone = 0.1 * np.sin(2 * np.pi * (200 + 20 * n if k == 0 else 3000 + 300 * n) * t)
            soundfile.write(tmp_path / "sounds" / name / f"{n}.wav", tone + 0.1 * noise(0.5, 16000, 1, n)[:, 0], 16000)
    out = tmp_path / "made" / "fig3.png"
    embedding_figure(
        [
            "--bundle",
            str(care_sep_bundle),
            "--data",
            str(tmp_path / "sounds"),
            *"--classes low high --clips 5 --device cpu -o".split(),
            str(out),
        ]
    )
    assert out.read_bytes()[:4] == b"\x89PNG" and str(out) in capsys.readouterr().out
    made = json.loads(out.with_suffix(".json").read_text())
    [shown] = made["systems"]
    assert shown["name"] == "tiny" and shown["bundle"] == str(care_sep_bundle)
    assert made["clips"] == [f"{c}/{n}.wav" for c in ("low", "high") for n in range(5)]
    for what, points in shown["points"].items():
        points = np.array(points)
        assert shown["kl"][what] == pytest.approx(symmetric_kl(points[:5], points[5:]), rel=1e-2)
