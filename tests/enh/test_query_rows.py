"""Rows A to G of the CaRE-SEP paper's table 2: where gradients go, and that both routes agree."""

import pytest
import torch
from small_confs import CLASSES, separation_batch, small_separator, without_gradient
from torch import nn

from espnet2_ext.core.nets.contracts import Tagger
from espnet2_ext.enh.espnet_model_qsep import ESPnetQSepModel
from espnet2_ext.enh.losses import KeyedOrderSolver
from espnet2_ext.registry import espnet_class

CARE, UNET, PANN = "mini/care_sep.yaml", "mini/st_sed_sep.yaml", "mini/pann_sep.yaml"
ROWS = {
    "A": (UNET,),
    "B": (UNET, "--query_grad", "true"),
    "C": (CARE,),  # and E, without initial weights
    "D": (CARE, "--query_grad", "false"),  # and F
    "G": (CARE, "--query_net", "hts_at", "--query_grad", "false"),
}


@pytest.fixture(scope="module")
def rows():
    """Each row's model after a training step."""
    models = {}
    for row, args in ROWS.items():
        models[row] = model = small_separator(*args).train()
        before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
        model(**separation_batch())[0].backward()
        model.moved = [k for k, v in before.items() if not torch.equal(v, model.state_dict()[k])]
    return models


def has_gradient(part: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


@pytest.mark.parametrize("row", ROWS)
def test_gradients_go_where_the_table_says(rows, row):
    model = rows[row]
    assert without_gradient(model) == []
    net = model.extractor.net
    if row in "AB":
        assert has_gradient(model.query_net) == (row == "B") and has_gradient(net)
    else:  # this norm lies on the way to the embedding alone
        assert has_gradient(net.connector_norm) == (row == "C")
        assert has_gradient(net.encoder) and has_gradient(net.decoder)
    if row == "G":
        assert not has_gradient(model.query_net)


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("row", ROWS)
def test_several_processes_need_not_look_for_unused_parameters(process_group, row):
    model = nn.parallel.DistributedDataParallel(small_separator(*ROWS[row]))
    for _ in range(2):  # the second step would find the first one unfinished
        model(**separation_batch())[0].backward()


@pytest.mark.parametrize("row", ROWS)
def test_gradients_into_the_embedding(rows, row):
    batch = separation_batch()
    _, _, _, others = rows[row].forward_enhance(
        batch["speech_mix"], torch.tensor([9600] * 2), [batch["enroll_ref1"]], [torch.tensor([9600] * 2)]
    )
    assert others["query_spk1"].requires_grad == (row in "BC")


@pytest.mark.parametrize("row, still", [("A", True), ("B", False), ("G", True)])
def test_frozen_network_is_as_in_evaluation(rows, row, still):
    model = rows[row]
    assert model.training and model.query_net.training != still
    assert any(k.startswith("query_net") for k in model.moved) != still
    model.eval().train()
    assert model.query_net.training != still


@pytest.mark.parametrize("row", ROWS)
def test_training_is_embedding_and_separating(rows, row):
    model, batch = rows[row].eval(), separation_batch()
    lengths = torch.tensor([9600, 8000])
    enroll = [batch["enroll_ref1"], batch["enroll_ref2"][:, :6000]]
    enroll_lengths = [torch.tensor([9600, 7000]), torch.tensor([6000, 5000])]
    with torch.no_grad():
        pre, *_ = model.forward_enhance(batch["speech_mix"], lengths, enroll, enroll_lengths)
        query = torch.stack([model.embed(e, n).embedding for e, n in zip(enroll, enroll_lengths)], 1)
        est = model.separate(batch["speech_mix"], lengths, query=query)
        alone = model.separate(batch["speech_mix"][1:, :8000], query=query[1:])
    model.train()
    assert torch.allclose(torch.stack(pre, 1), est, atol=1e-5)
    assert torch.allclose(est[1, :, :7000], alone[0, :, :7000], atol=1e-4)  # padding is not heard


@pytest.mark.parametrize("row", "AG")
def test_one_mask_for_all_channels(rows, row):
    model = rows[row].eval()
    mono, query = torch.randn(1, 9600), torch.randn(1, 2, model.query_dim)
    stereo = torch.stack([mono * 1.5, mono * 0.5], dim=-1)  # mean: mono
    with torch.no_grad():
        alone, out = model.separate(mono, query=query), model.separate(stereo, query=query)
    model.train()
    assert out.shape == (1, 2, 9600, 2)
    assert torch.allclose(out[..., 0], 1.5 * alone, atol=1e-4)
    assert torch.allclose(out[..., 1], 0.5 * alone, atol=1e-4)


def test_grid_of_the_unet_is_that_of_its_halvings(rows):
    assert rows["A"].hop == 512 and rows["A"].grid == 512 * 2**2 and rows["A"].fs == 32000


def with_tags(row: str) -> ESPnetQSepModel:
    model = small_separator(*ROWS[row])
    wrappers = [*model.loss_wrappers, KeyedOrderSolver(espnet_class("criterion", "tagging")(), 1.0)]
    model.requires_grad_(True)
    return ESPnetQSepModel(
        model.encoder, model.extractor, model.decoder, wrappers, query_net=model.query_net, query_grad=model.query_grad
    )


def test_tags_of_a_trained_query_network_are_trained():
    model = with_tags("B").train()
    loss, stats, _ = model(**separation_batch())
    loss.backward()
    assert stats["tagging"] > 0 and has_gradient(model.query_net.head)
    assert without_gradient(model) == []


def test_tags_of_a_frozen_query_network_cannot_be_trained():
    with pytest.raises(KeyError, match="'tagging' needs 'tags_spk1'"):
        with_tags("A")(**separation_batch())


@pytest.mark.parametrize("embedding, width", [("latent", 4), ("probabilities", CLASSES)])
def test_head_is_trained_where_it_makes_the_query(embedding, width):
    model = small_separator(PANN, "--query_grad", "true", "--query_net_conf", f"embedding={embedding}").train()
    assert isinstance(model.query_net, Tagger) and model.extractor.net.query_dim == width
    model(**separation_batch())[0].backward()
    assert has_gradient(model.query_net.head) == (embedding == "probabilities")
    assert without_gradient(model) == []


@pytest.mark.parametrize("row", "BCD")
def test_bf16_autocast_keeps_the_gradients(row):
    """The embedding pass fills autocast's cache of weights, which the separation pass takes."""
    model = small_separator(*ROWS[row]).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = model(**separation_batch())
    loss.backward()
    assert loss.isfinite() and without_gradient(model) == []


def test_a_unet_cannot_take_a_spectrum_for_a_query(rows):
    spec = torch.zeros(1, 8, 513, dtype=torch.cfloat)
    with pytest.raises(ValueError, match="ready embedding"):
        rows["A"].extractor(spec, torch.tensor([8]), spec, torch.tensor([8]))
