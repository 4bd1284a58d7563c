"""A few hundred steps of training by query without ESPnet, to compare options on the embedded corpus.

    python tools/trial.py conf/train_qsep_care_sep_mini.yaml --bank egs2/audioset_qsep/dump/embedded \
        --steps 300 --set extractor_conf.query_norm=false

The same mixtures, losses, optimiser and one-cycle schedule as the recipe, in one process and `--threads`; with one, 300
steps of the embedded default take five minutes. At the end it prints what a step took and, on mixtures of the
validation bank drawn with a fixed seed, the SDR of the estimate by level of the input (query: the target itself,
another clip of its class), and how much quieter the output is for what is not there.
"""

import argparse
import functools
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espnet2_ext.build import build_model, construct
from espnet2_ext.core.layers.bands import keeping_statistics
from espnet2_ext.core.losses.separation import neg_sdr, wave_l1
from espnet2_ext.core.losses.tagging import mixture_tagging, tagging_bce
from espnet2_ext.core.mixing.pair_drawer import PairDrawer, render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.errors import DataError
from espnet2_ext.train.clip_data import QSepPreprocessor
from espnet2_ext.train.muon import MuonAdamW
from espnet2_ext.util.config import read_config, set_value
from espnet2_ext.util.documents import parse_yaml

OPTIMIZERS = {"adamw": functools.partial(torch.optim.AdamW, fused=True), "muon": MuonAdamW}
CONDITIONS = {
    "-10 dB": {"snr_db": -10.0},
    "0 dB": {},
    "10 dB": {"snr_db": 10.0},
    "alone": {"single_prob": 1.0},
    "absent": {"absent_prob": 1.0},
}


def options() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", type=Path, help="YAML of a separator by query that embeds its queries itself")
    p.add_argument("--bank", type=Path, required=True, help="folder with the clip banks train and valid")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--pairs", type=int, default=48, help="validation mixtures of each condition")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value of the YAML; repeatable")
    return p


def batch(drawer: PairDrawer, prepare: QSepPreprocessor, seed: int, step: int, size: int) -> dict[str, Tensor]:
    """`speech_mix`, `speech_ref1`, ... `[B, T]` and `label1`, `label2`, `label_mix` `[B, K]` of a step."""
    rows = [drawer.draw(np.random.default_rng([seed, step, i]), id=f"e{step}-{i}") for i in range(size)]
    items = [prepare(row.id, {"pair": row}) for row in rows]
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


def answer(model, mix: Tensor, queries: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Estimates `[Q B, T]` of Q queries `[B, T']` on mixtures `[B, T]`, and the queries' tags `[Q B, K]`."""
    out = model.embed(torch.cat(queries))
    query = out.embedding.unflatten(0, (len(queries), -1)).transpose(0, 1)
    return model.separate(mix, query=query).transpose(0, 1).flatten(0, 1), out.clipwise


def level(x: Tensor, over: Tensor) -> Tensor:
    """Level of `x` over that of another sound, `[B]` in dB."""
    return 10 * torch.log10(x.square().mean(-1).clamp(min=1e-12) / over.square().mean(-1))


def sdr(est: Tensor, ref: Tensor) -> Tensor:
    """`[B]` in dB."""
    return -level(est - ref, ref)


@torch.no_grad()
def validate(model, bank: ClipBank, pairs: int) -> str:
    """Markdown: a line a condition."""
    model.eval()
    lines = ["| input | query: target | query: other clip |", "|---|--:|--:|"]
    for name, conf in CONDITIONS.items():
        drawer = PairDrawer(bank, segment=2.0, query_from="other", **conf)
        found: dict[str, list[float]] = {"self": [], "other": []}
        for i in range(pairs):
            out = render(drawer.draw(np.random.default_rng([77, i])), bank)
            mix, ref, query = (torch.from_numpy(out[k])[None] for k in ("mix", "ref1", "query1"))
            for protocol, q in (("self", ref), ("other", query)):
                if ref.any():
                    found[protocol].append(sdr(answer(model, mix, [q])[0], ref).item())
                elif protocol == "other":
                    found[protocol].append(-level(answer(model, mix, [q])[0], mix).item())
        lines.append(f"| {name} | " + " | ".join(f"{np.mean(v):.2f}" if v else "" for v in found.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    a = options().parse_args()
    config = read_config(a.config)
    for text in a.set:
        key, _, value = text.partition("=")
        set_value(config, key, parse_yaml(value, key))
    if config["optim"] not in OPTIMIZERS:
        raise DataError(f"optim: {config['optim']!r} is none of {', '.join(OPTIMIZERS)}")
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    bank, valid = ClipBank(a.bank / "train"), ClipBank(a.bank / "valid")
    config["extractor_conf"]["num_classes"] = bank.num_classes
    model = build_model(config, "qsep", trusted=True).train()
    weights = {c["name"]: c.get("wrapper_conf", {}).get("weight", 1.0) for c in config["criterions"]}
    conf = {c["name"]: c.get("conf", {}) for c in config["criterions"]}
    drawer = construct(PairDrawer, config["pair_conf"], "pair_conf", bank=bank)
    prepare = construct(QSepPreprocessor, config.get("preprocessor_conf"), "preprocessor_conf", train=True, bank=bank)
    optimizer = OPTIMIZERS[config["optim"]](model.parameters(), **config["optim_conf"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **config["scheduler_conf"], total_steps=a.steps + 1)
    begin, began = time.process_time(), time.perf_counter()
    for step in range(1, a.steps + 1):
        data = batch(drawer, prepare, a.seed, step, config["batch_size"])
        mix = data["speech_mix"]
        est, tags = answer(model, mix, [data["enroll_ref1"], data["enroll_ref2"]])
        ref = torch.cat([data["speech_ref1"], data["speech_ref2"]])
        losses = {
            "wave_l1": wave_l1(est=est, ref=ref, **conf.get("wave_l1", {})),
            "neg_sdr": neg_sdr(est=est, ref=ref, mix=mix.repeat(2, 1), **conf.get("neg_sdr", {})),
            "tagging": tagging_bce(logits=tags, labels=torch.cat([data["label1"], data["label2"]])),
        }
        if "mixture_tagging" in weights:
            with keeping_statistics(model):
                heard = model.embed(mix).clipwise
            losses["mixture_tagging"] = mixture_tagging(mix_logits=heard, mix_labels=data["label_mix"])
        loss = sum(weights[name] * losses[name].mean() for name in weights)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config["grad_clip"])
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            terms = ", ".join(f"{name} {value.mean().item():.3f}" for name, value in losses.items())
            print(f"step {step}: {terms}; {time.process_time() - begin:.0f} CPU s", file=sys.stderr, flush=True)
    cpu, wall = (now / a.steps for now in (time.process_time() - begin, time.perf_counter() - began))
    print(f"a step: {wall:.2f} s, {cpu:.2f} CPU s", file=sys.stderr)
    print(validate(model, valid, a.pairs))


if __name__ == "__main__":
    try:
        main()
    except DataError as e:
        sys.exit(f"error: {e}")
