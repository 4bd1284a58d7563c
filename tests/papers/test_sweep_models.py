"""The separators and taggers of the query-based sweeps are models that can be built."""

import functools

import pytest
import torch
from fake_recipe import ROOT

from espnet2_ext.papers.sweep import Run, Sweep
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.tagging import TaggingTask

SWEEPS = {name: Sweep(ROOT / f"conf/sweeps/{name}.yaml") for name in ("side_by_side", "care_sep")}
CELLS = [(name, cell) for name, sweep in SWEEPS.items() for cell in sweep.cells]
# row of table 2 -> gradient, initialisation, shared encoder
TABLE_2 = {
    "A": (False, True, False),
    "B": (True, True, False),
    "C": (True, True, True),
    "D": (False, True, True),
    "E": (True, False, True),
    "F": (False, False, True),
    "G": (False, True, False),
}


@functools.cache
def build(name: str, cell: str):
    """Options and model (shapes only) of a cell."""
    sweep = SWEEPS[name]
    run = Run(sweep.cells[cell], 0)
    options, config = sweep.options(run), sweep.recipe / run.cell.config
    tagging = run.cell.task == "tagging"
    task = TaggingTask if tagging else QSepTask
    more = options["tag_args" if tagging else "qsep_args"].split()
    args = task.get_parser().parse_args(["--config", str(config), "--output_dir", "x", *more])
    with torch.device("meta"):
        return args, task.build_model(args)


@pytest.mark.parametrize("name, cell", CELLS)
def test_cells_build(name, cell):
    args, model = build(name, cell)
    if cell in TABLE_2:
        found = (args.query_grad, bool(args.init_param), model.query_net is None)
        assert found == TABLE_2[cell]
    assert sum(p.numel() for p in model.parameters()) > 0
    assert args.seed == 0


@pytest.mark.parametrize("name", SWEEPS)
def test_a_query_network_is_what_its_tagger_was(name):
    for cell in SWEEPS[name].cells.values():
        for need in cell.needs:
            if f"{{exp:{need}}}/valid.loss.best.pth:net:query_net" not in cell.args:
                continue  # it begins with something else of it, or trains on its anchors
            _, tagger = build(name, need)
            _, model = build(name, cell.name)
            mine, its = (
                {k: v.shape for k, v in net.state_dict().items() if "head" not in k}
                for net in (model.query_net, tagger.net)
            )
            assert mine == its, cell.name


def test_budgets_of_the_side_by_side_are_equal():
    sweep, budgets = SWEEPS["side_by_side"], {}
    for cell in sweep.cells.values():
        args, _ = build("side_by_side", cell.name)
        budget = (
            args.max_epoch,
            args.num_iters_per_epoch,
            args.batch_size,
            args.optim,
            repr(args.optim_conf),
            repr(args.scheduler_conf),
            repr(args.tag_conf) if cell.task == "tagging" else repr((args.pair_conf, args.preprocessor_conf)),
        )
        budgets.setdefault(cell.task, set()).add(budget)
    assert {task: len(found) for task, found in budgets.items()} == {"tagging": 1, "separation": 1}
