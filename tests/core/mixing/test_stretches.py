"""Stretches in which a class is heard alone, and which classes are asked for."""

import math

import torch

from espnet2_ext.core.mixing.stretches import UNLIKE, asked_classes, surest


def logit(p):
    return torch.logit(torch.tensor(p))


def test_the_surest_stretch_by_hand():
    p = logit([[[0.9, 0.9, 0.5, 0.8], [0.9, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9]]])
    sure, at = surest(p, torch.tensor([[1.0, 1.0, 0.0]]), None, 2)  # the third class is not there, whatever is heard
    assert at[0, 0] == 1  # 0.9 (1 - 0.1) and 0.5 (1 - 0.1)
    wanted = (math.log(0.9 * 0.9) + math.log(0.5 * 0.9)) / 2
    torch.testing.assert_close(sure[0, 0], torch.tensor(wanted))
    assert sure[0, 2] == -math.inf


def test_frame_labels_take_the_place_of_tags():
    p = logit([[[0.01, 0.01, 0.99], [0.99, 0.01, 0.01]]])
    frame = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    sure, at = surest(p, frame.amax(2), frame, 1)
    assert at.tolist() == [[1, 0]]
    torch.testing.assert_close(sure, torch.tensor([[0.0, UNLIKE]]))  # the second is never alone


def test_a_stretch_must_be_sure_by_itself_too():
    """Two classes in five frames: in the whole both are sure at once, by themselves where each is heard."""
    whole = logit([[[0.5] * 5, [0.2] * 5]])
    alone = logit([[[0.9, 0.3], [0.8, 0.4], [0.2, 0.7], [0.5, 0.5]]])  # stretches at 0, 1, 2 and 3
    asked = []
    sure, at = surest(whole, torch.ones(1, 2), None, 2, lambda starts: asked.append(list(starts)) or alone)
    assert asked == [[0, 1, 2, 3]] and at.tolist() == [[0, 2]]
    wanted = [math.log(0.5 * 0.8) + math.log(0.9 * 0.7), math.log(0.2 * 0.5) + math.log(0.7 * 0.8)]
    torch.testing.assert_close(sure, torch.tensor([wanted]))
    halves = surest(logit([[[0.5] * 9]]), torch.ones(1, 1), None, 4, lambda starts: logit([[[0.1], [0.9], [0.2]]]))
    assert halves[1].tolist() == [[2]]


def test_a_recording_shorter_than_a_stretch_is_one():
    sure, at = surest(logit([[[0.5, 0.5]]]), torch.ones(1, 1), None, 9)
    assert at.tolist() == [[0]] and math.isclose(sure.item(), math.log(0.5), rel_tol=1e-5)


def test_own_classes_are_asked_for_first_and_no_more_of_them_than_said():
    clip = torch.tensor([[1.0, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    assert asked_classes(clip, 2, 3, shuffle=False).tolist() == [[0, 1, 3], [4, 0, 1], [0, 1, 2]]
    torch.manual_seed(0)
    seen = torch.zeros(3, 5)
    for _ in range(200):
        asked = asked_classes(clip, 2, 3)
        assert all(len(set(row)) == 3 for row in asked.tolist())
        assert clip.gather(1, asked).sum(1).tolist() == [2, 1, 0]
        seen.scatter_add_(1, asked, torch.ones(3, 3))
    assert (seen[0] > 50).all()  # each of its three classes, and each absent one
    assert asked_classes(clip, 2, 9).shape == (3, 5)  # no more than there are
    assert clip.gather(1, asked_classes(clip, 2, 9)).sum(1).tolist() == [3, 1, 0]
