"""Two classes in a plane: divergence by hand, the clips that are drawn, picture and caption."""

import math

import numpy as np
import pytest
import soundfile
from sounds import bank_of

from espnet2_ext.cli.score import embedding_figure
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError
from espnet2_ext.report.embedding import (
    Panel,
    System,
    caption,
    draw_clips,
    draw_embeddings,
    make_panel,
    project,
    record,
    save_embeddings,
    symmetric_kl,
)

FS = 8000


# ---- the divergence ------------------------------------------------------------------------------


def test_divergence_by_hand():
    """Means 1 and 5, variances 1 and 4 on the first axis; means 0 and 0, variances 4 and 1.

    First axis: 1/4 + 4 - 2 + 16 (1 + 1/4) = 22.25; second: 4 + 1/4 - 2 = 2.25; a quarter of both.
    """
    first = np.array([[0, -2], [2, 2], [0, 2], [2, -2]], dtype=float)
    second = np.array([[3, 1], [7, -1], [3, -1], [7, 1]], dtype=float)
    assert symmetric_kl(first, second) == pytest.approx((22.25 + 2.25) / 4)
    assert symmetric_kl(second, first) == pytest.approx(symmetric_kl(first, second))


def test_divergence_is_the_mean_of_both_directions():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, (50, 3)), rng.normal(1, (1, 2, 3), (40, 3))

    def kl(p, q):
        (m1, v1), (m2, v2) = ((x.mean(0), x.var(0)) for x in (p, q))
        return 0.5 * np.sum(v1 / v2 + (m2 - m1) ** 2 / v2 - 1 + np.log(v2 / v1))

    expected = (kl(first, second) + kl(second, first)) / 2
    assert symmetric_kl(first, second) == pytest.approx(expected)
    assert symmetric_kl(first, first) == 0
    assert symmetric_kl(5 * first, 5 * second) == pytest.approx(expected)  # no unit


@pytest.mark.parametrize(
    "first, second, words", [(np.zeros((4, 2)), np.eye(2), "does not vary"), (np.eye(2), np.eye(3), "expected")]
)
def test_divergence_refuses(first, second, words):
    with pytest.raises(ValueError, match=words):
        symmetric_kl(first, second)


def two_groups(n=12, dim=5, apart=8.0):
    rng = np.random.default_rng(1)
    classes = np.repeat([0, 1], n)
    return rng.normal(size=(2 * n, dim)) + apart * classes[:, None], classes


def test_plane_is_drawn_the_same_for_the_same_seed_and_keeps_groups_apart():
    vectors, classes = two_groups()
    points = project(vectors, seed=3)
    assert points.shape == (24, 2) and (points == project(vectors, seed=3)).all()
    middles = np.stack([points[classes == k].mean(0) for k in (0, 1)])
    nearest = np.linalg.norm(points[:, None] - middles, axis=-1).argmin(1)
    assert (nearest == classes).all()
    panel = make_panel("query embedding", vectors, classes, seed=3)
    assert panel.kl == symmetric_kl(points[:12], points[12:]) > 1
    with pytest.raises(DataError, match="one and the same vector"):
        project(np.ones((6, 4)))


# ---- the clips -----------------------------------------------------------------------------------


def write_sounds(folder, names, count=4, seconds=0.4):
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            x = 0.1 * rng.standard_normal(round(seconds * FS))
            soundfile.write(folder / name / f"{i}.wav", x, FS)
    return folder


def test_clips_of_a_folder(tmp_path):
    folder = write_sounds(tmp_path / "sounds", ["dog", "rain", "wind"])
    clips = draw_clips(folder, ["Rain", "dog"], 3, 2 * FS, seconds=0.25)
    assert clips.names == ("rain", "dog") and clips.classes.tolist() == [0, 0, 0, 1, 1, 1]
    assert [id.split("/")[0] for id in clips.ids] == ["rain"] * 3 + ["dog"] * 3
    assert len(set(clips.ids)) == 6 and {len(x) for x in clips.waves} == {FS // 2}
    again = draw_clips(folder, ["rain", "dog"], 3, 2 * FS, seconds=0.25)
    assert again.ids == clips.ids
    drawn = {tuple(draw_clips(folder, ["rain", "dog"], 3, FS, seed=s).ids) for s in range(5)}
    assert len(drawn) > 1


def test_clips_of_a_bank_that_carry_one_of_both_classes(tmp_path):
    labels = [Label(0, "/m/d", "Dog"), Label(1, "/m/r", "Rain")]
    rng, mids = np.random.default_rng(0), [("/m/d",)] * 3 + [("/m/r",)] * 3 + [("/m/d", "/m/r")]
    bank_of(tmp_path, {f"c{i}": (0.1 * rng.standard_normal(FS), m) for i, m in enumerate(mids)}, labels, FS)
    found = draw_clips(tmp_path / "dump", ["/m/r", "dog"], 3, FS)
    assert found.names == ("Rain", "Dog") and len(found.source["manifest_hash"]) == 32
    assert found.ids == ["c3", "c4", "c5", "c0", "c1", "c2"]
    with pytest.raises(DataError, match="3 clips of 'Rain' without 'Dog', 4 are asked for"):
        draw_clips(tmp_path / "dump", ["Rain", "Dog"], 4, FS)


def test_clips_that_are_not_there(tmp_path):
    folder = write_sounds(tmp_path / "sounds", ["dog", "rain"])
    for classes, number, words in [
        (["dog", "bagpipe"], 3, "no class 'bagpipe'; there is: dog, rain"),
        (["dog", "rain"], 5, "4 clips of 'dog' without 'rain', 5 are asked for"),
        (["dog", "Dog"], 3, "are one class"),
        (["dog", "rain"], 2, "3 are the least"),
        (["dog"], 3, "two classes are compared"),
    ]:
        with pytest.raises(DataError, match=words):
            draw_clips(folder, classes, number, FS)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        draw_clips(tmp_path / "nowhere", ["dog", "rain"], 3, FS)
    soundfile.write(folder / "dog/0.wav", np.zeros(FS), FS)
    with pytest.raises(DataError, match="dog/0.wav: is silent"):
        draw_clips(folder, ["dog", "rain"], 4, FS)


# ---- the picture ---------------------------------------------------------------------------------


def system(name, where, kls):
    vectors, _ = two_groups()
    panels = (Panel("separation feature", vectors[:, :2], kls[0]), Panel("query embedding", vectors[:, 2:4], kls[1]))
    return System(name, panels, {"separation_feature": where})


def test_picture_and_caption(tmp_path):
    _, classes = two_groups()
    systems = [
        system("baseline", "output of the centre", (4.34, 10.37)),
        system("ours", "output of the connector", (5.08, 5.77)),
    ]
    figure = draw_embeddings(systems, ("dog", "rain"), classes)
    titles = [a.get_title("left") + " " + a.get_title("right") for a in figure.axes]
    assert titles == [
        "(a) separation feature $D$ = 4.34",
        "(b) query embedding $D$ = 10.37",
        "(c) separation feature $D$ = 5.08",
        "(d) query embedding $D$ = 5.77",
    ]
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["baseline", "ours"]
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["dog (12 clips)", "rain (12 clips)"]
    text = caption(systems)
    assert "output of the centre; output of the connector" in text
    assert "symmetric KL divergence" in text and r"\frac{1}{4}" in text and "diagonal" in text
    assert save_embeddings(figure, tmp_path / "f.png").stat().st_size > 10_000
    shown = figure.get_tightbbox()  # nothing hangs over the edge
    assert shown.x0 > -0.05 and shown.y0 > -0.05
    assert shown.x1 < figure.get_figwidth() + 0.05 and shown.y1 < figure.get_figheight() + 0.05


def test_record_holds_what_is_shown(tmp_path):
    folder = write_sounds(tmp_path / "sounds", ["dog", "rain"], 12, 0.05)
    clips = draw_clips(folder, ["dog", "rain"], 12, FS)
    made = record([system("ours", "where", (1.5, 2.5))], clips, 7)
    assert made["classes"] == ["dog", "rain"] and made["seed"] == 7
    assert len(made["clips"]) == len(made["class_of_clip"]) == 24
    [shown] = made["systems"]
    assert shown["kl"] == {"separation feature": 1.5, "query embedding": 2.5}
    assert len(shown["points"]["query embedding"]) == 24 and "1/4 sum" in made["kl_formula"]
    assert math.isfinite(sum(map(sum, shown["points"]["separation feature"])))


@pytest.mark.parametrize(
    "more, words",
    [
        (["-o", "f.bmp"], "f.bmp: the name of the picture must end in"),
        (["-o", "f.png", "--seconds", "0"], "--seconds must be more than 0"),
        (["-o", "f.png"], "nothing.zip: no such bundle file"),
    ],
)
def test_wrong_options(more, words):
    with pytest.raises(DataError, match=words):
        embedding_figure(["--bundle", "nothing.zip", "--data", ".", "--classes", "a", "b", *more])
