"""Muon for matrices, AdamW for the rest."""

import copy

import pytest
import torch

from espnet2_ext.train.muon import MuonAdamW, orthogonalised


def parameters() -> list[torch.nn.Parameter]:
    """A matrix, a tall one, a narrow table, a vector and a stack of matrices, with gradients."""
    torch.manual_seed(0)
    found = []
    for shape in [(24, 40), (40, 24), (45, 16), (40,), (4, 24, 24)]:
        p = torch.nn.Parameter(torch.randn(shape))
        p.grad = torch.randn(shape)
        found.append(p)
    return found


def test_singular_values_come_near_one():
    x = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(1))
    for given in (x, x.transpose(1, 2)):
        values = torch.linalg.svdvals(orthogonalised(given))
        assert values.min() > 0.6 and values.max() < 1.25
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(orthogonalised(x).flatten(1), (left @ right).flatten(1))
    assert cosine.min() > 0.97
    assert not orthogonalised(torch.zeros(1, 24, 24)).any()


def test_matrices_step_as_pytorchs_muon_and_the_rest_as_adamw():
    ours, theirs = parameters(), parameters()
    conf = {"lr": 1e-2, "weight_decay": 0.1}
    muon = MuonAdamW(ours, **conf, muon_rate=3.0)
    others = [
        torch.optim.Muon(theirs[:2], lr=3e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(theirs[2:], **conf),
    ]
    for _ in range(3):
        for optimizer in (muon, *others):
            optimizer.step()
    for a, b in zip(ours[:2], theirs[:2]):  # PyTorch's rounds are in bfloat16
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
    for a, b in zip(ours[2:], theirs[2:]):
        assert torch.equal(a, b)
    assert all(p.grad is not None for p in ours)


def test_a_step_of_a_matrix_by_hand():
    p = torch.nn.Parameter(torch.zeros(24, 24))
    p.grad = torch.eye(24) * 7  # its own orthogonal factor is the identity, whatever its size
    MuonAdamW([p], lr=0.1, muon_rate=2.0, weight_decay=0.5).step()
    diagonal = orthogonalised(torch.eye(24)[None])[0]
    torch.testing.assert_close(p.data, -0.2 * 0.2 * 24**0.5 * diagonal)


def test_goes_on_from_its_state():
    a, b = parameters(), parameters()
    first, second = MuonAdamW(a, lr=1e-2), MuonAdamW(b, lr=1e-2)
    first.step()
    second.step()
    third, state = MuonAdamW(b, lr=1e-2), second.state_dict()
    del state["param_groups"][0]["convolutions"]  # which earlier code did not save
    third.load_state_dict(state)
    first.step()
    third.step()
    for x, y in zip(a, b):
        assert torch.equal(x, y)


def test_a_copy_is_whole():
    ours, theirs = parameters(), parameters()
    first, second = (MuonAdamW(p, lr=1e-2, muon_rate=2.0, momentum=0.5, min_side=16) for p in (ours, theirs))
    copied = copy.deepcopy(first)
    for p, q in zip(copied.param_groups[0]["params"], ours):
        p.grad = q.grad
    copied.step()
    second.step()
    for p, q in zip(copied.param_groups[0]["params"], theirs):
        assert torch.equal(p, q)


def test_groups_have_their_own_values():
    p, q = parameters()[0], parameters()[0]
    before = p.detach().clone()
    MuonAdamW([{"params": [p], "muon_rate": 1.0}, {"params": [q]}], lr=1e-2, muon_rate=2.0).step()
    torch.testing.assert_close(2 * (p - before), q - before)


def test_filters_step_as_their_matrices():
    """`[m, n, k, l]` as `[m, n k l]`; those with fewer rows, and filters unless they are asked for, as AdamW's."""
    torch.manual_seed(0)
    filters, few = torch.randn(32, 6, 3, 2), torch.randn(16, 24, 3, 3)
    grads = torch.randn_like(filters), torch.randn_like(few)

    def after(shaped: torch.Tensor, **conf) -> list[torch.Tensor]:
        p = [torch.nn.Parameter(shaped.clone()), torch.nn.Parameter(few.clone())]
        p[0].grad, p[1].grad = grads[0].reshape(shaped.shape), grads[1]
        optimizer = MuonAdamW(p, lr=1e-2, weight_decay=0.1, **conf)
        for _ in range(2):
            optimizer.step()
        return [x.detach() for x in p]

    of_filters, of_few = after(filters, convolutions=True)
    of_matrix, _ = after(filters.flatten(1))
    torch.testing.assert_close(of_filters.flatten(1), of_matrix)
    by_adamw, few_by_adamw = after(filters)
    assert torch.equal(of_few, few_by_adamw) and (of_filters - by_adamw).abs().max() > 1e-3


@pytest.mark.parametrize("conf", [{"momentum": 1.0}, {"muon_rate": 0.0}, {"lr": -1.0}])
def test_values_outside_their_range(conf):
    with pytest.raises(ValueError):
        MuonAdamW(parameters(), **conf)
