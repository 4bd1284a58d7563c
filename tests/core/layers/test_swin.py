"""Swin blocks against definitions written out, and their indifference to padding."""

import math

import pytest
import torch

from espnet2_ext.core.layers import swin


def test_windows_join_to_the_map():
    x = torch.randn(2, 16, 8, 3)
    parts = swin.split_windows(x, (8, 4))
    assert parts.shape == (2 * 2 * 2, 32, 3)
    assert torch.equal(swin.join_windows(parts, (8, 4), (16, 8)), x)
    assert torch.equal(parts[1].view(8, 4, 3), x[0, :8, 4:])  # time outside, frequency inside


def test_relative_index_depends_on_the_offset_alone():
    index = swin._relative_index((2, 3))
    at = [(t, f) for t in range(2) for f in range(3)]
    seen = {}
    for i, (t, f) in enumerate(at):
        for j, (u, g) in enumerate(at):
            seen.setdefault((t - u, f - g), set()).add(int(index[i, j]))
    assert all(len(v) == 1 for v in seen.values())
    assert len({v for s in seen.values() for v in s}) == len(seen) == 3 * 5


def attention_by_definition(att, x, allowed):
    """Softmax attention of one window [M, D], loops over heads and pairs; allowed [M, M]."""
    m, d = x.shape
    q, k, v = att.qkv(x).split(d, dim=-1)
    out = torch.zeros(m, d)
    wl, wn = att.window
    n = d // att.heads
    for h in range(att.heads):
        cols = slice(h * n, (h + 1) * n)
        for i in range(m):
            score = torch.full((m,), -math.inf)
            for j in range(m):
                if allowed[i, j]:
                    dt, df = i // wn - j // wn, i % wn - j % wn
                    b = att.relative_bias[(dt + wl - 1) * (2 * wn - 1) + df + wn - 1, h]
                    score[j] = q[i, cols] @ k[j, cols] / math.sqrt(n) + b
            out[i, cols] = score.softmax(0) @ v[:, cols]
    return att.proj(out)


def test_attention_is_what_the_definition_says():
    torch.manual_seed(0)
    att = swin.WindowAttention(8, 2, (2, 3))
    att.relative_bias.data.normal_()
    x = torch.randn(1, 6, 8)
    full = torch.ones(6, 6, dtype=torch.bool)
    assert torch.allclose(att(x, None)[0], attention_by_definition(att, x[0], full), atol=1e-5)
    allowed = torch.eye(6, dtype=torch.bool)
    allowed[:3, :3] = True
    groups = torch.zeros(6, 6).masked_fill(~allowed, -math.inf)[None, None]
    assert torch.allclose(att(x, groups)[0], attention_by_definition(att, x[0], allowed), atol=1e-5)


def test_shifted_windows_do_not_join_opposite_edges():
    mask = swin._window_groups(4, 4, 4, (2, 4), (1, 0))  # time 0..3 shifted by 1: windows 12, 30
    assert mask.shape == (2, 8, 8)
    assert (mask[0] == 0).all()
    assert (mask[1][:4, 4:] == -math.inf).all() and (mask[1][:4, :4] == 0).all()


def test_padding_is_its_own_group():
    mask = swin._window_groups(8, 3, 2, (8, 2), (0, 0))[0]
    valid = torch.arange(16) < 6
    assert torch.equal(mask == 0, valid[:, None] == valid[None, :])


def test_masks_and_indices_are_computed_once_a_size():
    swin._window_groups.cache_clear()
    stage = swin.SwinStage(8, 4, 2, 4, 4, query_dim=5)
    for _ in range(3):
        stage(torch.randn(2, 8, 4, 8), [8, 6])
    info = swin._window_groups.cache_info()
    assert info.misses == 4 and info.hits == 8  # two lengths, shifted and not, in the first call


def test_stage_ignores_padding():
    torch.manual_seed(0)
    stage = swin.SwinStage(8, 3, 2, 4, 8, query_dim=5).eval()
    x, query = torch.randn(1, 7, 8, 8), torch.randn(1, 5)
    alone = stage(x, [7], query)
    padded = torch.cat([x, 100 * torch.randn(1, 9, 8, 8)], dim=1)
    together = stage(padded, [7], query)
    assert torch.allclose(together[:, :7], alone, atol=1e-5)
    assert (together[:, 7:] == 0).all()


def test_query_is_added_before_the_block():
    block = swin.SwinBlock(8, 2, (4, 4), (0, 0), query_dim=5)
    x, query = torch.randn(2, 4, 4, 8), torch.randn(2, 5)
    moved = x + block.query(query)[:, None, None]
    assert torch.allclose(block(x, None, query), block(moved, None, None), atol=1e-6)


def test_stage_without_a_query_has_no_weights_for_one():
    assert not any(".query." in n for n, _ in swin.SwinStage(8, 2, 2, 4, 4).named_parameters())


def test_maps_of_a_known_length_that_one_window_covers_are_not_shifted():
    shifts = {
        length: [b.shift for b in swin.SwinStage(8, 2, 2, 4, 4, length=length).blocks] for length in (None, 8, 4, 2)
    }
    assert shifts == {None: [(0, 0), (2, 0)], 8: [(0, 0), (2, 0)], 4: [(0, 0), (0, 0)], 2: [(0, 0), (0, 0)]}
    assert swin.SwinStage(8, 1, 2, 4, 4, length=2).window == (2, 4)


def test_windows_must_fill_the_frequency_axis():
    with pytest.raises(ValueError, match="windows of 8 tokens do not fill 12"):
        swin.SwinStage(8, 2, 2, 8, 12)


def test_merge_groups_neighbours_and_expand_makes_them():
    merge = swin.PatchMerge(1)
    merge.norm, merge.reduce = torch.nn.Identity(), torch.nn.Identity()
    x = torch.arange(16.0).view(1, 4, 4, 1)
    assert merge(x)[0, 0, 0].tolist() == [0.0, 4.0, 1.0, 5.0]  # (t, f): 00, 10, 01, 11
    expand = swin.PatchExpand(4, 1)
    expand.norm, expand.expand = torch.nn.Identity(), torch.nn.Identity()
    y = expand(torch.arange(8.0).view(1, 1, 2, 4))
    assert y[0, :, :, 0].tolist() == [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]


def test_drop_path_drops_items_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = swin.DropPath(0.25)
    y = drop(torch.ones(4000, 2, 2))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert y.mean() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(torch.ones(3)), torch.ones(3))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10, heads 4"):
        swin.WindowAttention(10, 4, (2, 2))


@pytest.mark.parametrize("sizes", [(2, 2), (6, 2), (6, 6)])
def test_a_join_is_a_linear_map_of_both(sizes):
    join, query = swin.Join(8, 3), torch.zeros(6, 1)
    x, skip = (torch.randn(n, 5, 4, 4) for n in sizes)
    both = torch.cat([y.repeat_interleave(6 // len(y), 0) for y in (x, skip)], -1)
    torch.testing.assert_close(join(x, skip, query), torch.nn.functional.linear(both, join.weight, join.bias))
