"""How soft masks should be: gains of a model at several temperatures, on mixtures of sounds that it never heard.

    python tools/temperature.py MODEL.zip --bank dump/valid                       # a model by query
    python tools/temperature.py MODEL.zip --bank dump/SET --table data/SET/mixtures    # one of classes

By query: two sounds of 5 s at 0 dB; asked with the target itself, and with another clip of its class. Of classes: the
mixtures of a table with isolated sounds. It prints means in dB of the gain in SDR and SI-SDR, the median of the
latter, and how many outputs have a lower SI-SDR than their mixture. The value goes into the YAML, or an experiment's
`config.yaml`, as `temperature` of `extractor_conf` or `separator_conf`: the weights do not depend on it.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from espnet2_ext.core.metrics import sdr_gain, si_sdr_gain
from espnet2_ext.core.mixing import events
from espnet2_ext.core.mixing.pair_drawer import PairDrawer, render
from espnet2_ext.core.nets.masking import set_temperature
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.errors import DataError
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.infer.weights import model_of_bundle


def options() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path, metavar="MODEL.zip")
    p.add_argument("--bank", type=Path, required=True, help="clips that the model never heard (dump/SET)")
    p.add_argument("--table", type=Path, help="mixtures of these clips, for a model of classes")
    p.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 1.25, 1.5, 2.0, 3.0, 4.0])
    p.add_argument("--mixtures", type=int, default=90, help="of a table the first (%(default)s)")
    p.add_argument("--seed", type=int, default=5, help="of the mixtures drawn for a model by query")
    return p


def answers(model, bank: ClipBank, a: argparse.Namespace) -> Iterator[tuple]:
    """(what is asked with, a function that separates, its target `[T]`, the mixture `[T]`)."""
    if a.table:
        table = MixtureTable(a.table)
        for i in range(min(a.mixtures, len(table))):
            out = events.render(table.row(i), bank, len(table.classes))
            mix = torch.from_numpy(out["mix"])
            for k, ref in enumerate(map(torch.from_numpy, out["sources"])):
                if ref.any() and (mix - ref).any():
                    yield "class", lambda mix=mix, k=k: model.separate(mix[None])[0, k], ref, mix
        return
    drawer = PairDrawer(bank, segment=5.0, query_from="other")
    for i in range(a.mixtures):
        out = render(drawer.draw(np.random.default_rng([a.seed, i])), bank)
        mix, ref, query = (torch.from_numpy(out[name]) for name in ("mix", "ref1", "query1"))
        for name, sound in (("self", ref), ("other", query)):
            if ref.any():
                asked = model.embed(sound[None]).embedding[:, None]
                yield name, lambda mix=mix, asked=asked: model.separate(mix[None], query=asked)[0, 0], ref, mix


@torch.no_grad()
def main() -> None:
    a = options().parse_args()
    with open_bundle(a.model) as bundle:
        model = model_of_bundle(bundle, "weak" if a.table else "qsep").eval()
    gains = defaultdict(list)
    for name, separate, ref, mix in answers(model, ClipBank(a.bank), a):
        for temperature in a.temperatures:
            set_temperature(model, temperature)
            sounds = {"est": separate()[None], "ref": ref[None], "mix": mix[None]}
            gains[name, temperature].append([gain(**sounds).item() for gain in (sdr_gain, si_sdr_gain)])
    print("|asked with|temperature|outputs|SDR gain|SI-SDR gain|median|worse|\n|---|--:|--:|--:|--:|--:|--:|")
    for (name, temperature), found in sorted(gains.items()):
        both = np.array(found)
        cells = f"{both[:, 0].mean():.2f}|{both[:, 1].mean():.2f}|{np.median(both[:, 1]):.2f}"
        print(f"|{name}|{temperature:g}|{len(both)}|{cells}|{(both[:, 1] < 0).mean():.0%}|")


if __name__ == "__main__":
    try:
        main()
    except DataError as e:
        sys.exit(f"error: {e}")
