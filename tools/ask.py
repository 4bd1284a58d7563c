"""How well a bundle answers each way to ask, on the mixtures of a recipe's test set; and how well it finds.

    python tools/ask.py ways BUNDLE --list data/test/pairs.tsv --bank dump/test      # tables for docs/use.md
    python tools/ask.py find BUNDLE --bank dump/test --minutes 30

`ways`: the first target of each mixture, SDR as the recipes compute it. Absent sounds are classes that the mixture does
not hold, asked for in the same way; examples are other clips of the bank.
"""

import argparse
import sys
import time
from collections import defaultdict

import numpy as np
import torch

from espnet2_ext.audio.streams import ArraySource
from espnet2_ext.core.mixing.pair_drawer import render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.pair_list import read_list
from espnet2_ext.infer.queries import Ask
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.calibrate import area_under_curve
from espnet2_ext.infer.vectors.find import query_scores, stretches
from espnet2_ext.infer.vectors.presence import scorer

COMMANDS = {
    "self": "--query target.wav",
    "other": "--query example.wav",
    "span of the mixture": "--query mix.wav@1-2",
    "class": "--query class:NAME",
    "mean of 3": "--query 3_examples/",
    "mean of 5": "--query 5_examples/",
    "mean of 10": "--query 10_examples/",
    "nearest of 5": "--query 5_examples/ --mode nearest",
    "three sounds, other": "--query example.wav",
    "three sounds, one kept out": "--query example.wav --not second.wav",
    "three sounds, both kept out": "--query example.wav --not second.wav --not third.wav",
}


def level(x: np.ndarray) -> float:
    """RMS."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def sdr(ref: np.ndarray, est: np.ndarray) -> float:
    """In dB."""
    return float(10 * np.log10(max(np.square(ref).sum(), 1e-12) / max(np.square(ref - est).sum(), 1e-12)))


class Sounds:
    """Embeddings of a bank's clips, made once."""

    def __init__(self, separator: Separator, bank: ClipBank):
        self.separator, self.bank, self.made = separator, bank, {}

    def clip(self, i: int) -> np.ndarray:
        if i not in self.made:
            self.made[i] = self.separator.embed_one(self.bank.read(i), self.bank.fs)
        return self.made[i]

    def examples(self, rng: np.random.Generator, k: int, without: set[int]) -> np.ndarray:
        """Up to ten clips of class `k`, none of them in `without`: `[N, E]`."""
        clips = [int(i) for i in self.bank.clips_of(k) if int(i) not in without]
        return np.stack([self.clip(i) for i in rng.permutation(clips)[:10]])

    def ways(self, k: int, other: np.ndarray, examples: np.ndarray) -> dict[str, np.ndarray]:
        """Queries by name; means only of as many examples as there are."""
        found = {"other": other, "class": self.separator.embed_one(f"class:{self.bank.classes[k].name}")}
        return found | {f"mean of {n}": examples[:n].mean(0) for n in (3, 5, 10) if n <= len(examples)}


def ways(a: argparse.Namespace) -> None:
    separator, bank = Separator.from_bundle(a.bundle, a.device), ClipBank(a.bank)
    sounds, rng = Sounds(separator, bank), np.random.default_rng(0)
    gains, there, absent = defaultdict(list), defaultdict(list), defaultdict(list)
    pairs = read_list(a.list)[: a.mixtures]
    fs, enough = bank.fs, 10 if max(map(len, map(bank.clips_of, range(bank.num_classes)))) > 10 else 5
    for n, pair in enumerate(pairs):
        audio = render(pair, bank)
        mix, ref = audio["mix"], audio["ref1"]
        clips = {bank.index_of(clip) for clip in (pair.clip1, pair.clip2)}
        held = bank.related[np.concatenate([bank.labels(i) for i in clips])].any(0)
        free = [k for k in np.flatnonzero(~held).tolist() if len(bank.clips_of(k)) > enough]
        k = int(rng.choice(free))
        examples, others = sounds.examples(rng, pair.class1, clips), sounds.examples(rng, k, clips)
        other = separator.embed_one(audio["query1"], fs)
        own, wrong = sounds.ways(pair.class1, other, examples), sounds.ways(k, others[0], others)
        best = max(range(0, len(mix) - fs + 1, fs // 4), key=lambda s: sdr(ref[s : s + fs], mix[s : s + fs]))
        span = separator.embed_one(mix[best : best + fs], fs)
        queries = {"self": separator.embed_one(ref, fs), "span of the mixture": span, **own}
        ask = Ask(np.stack([*queries.values(), *wrong.values()]))
        est = separator.separate(mix, fs, ask)
        scores = scorer(separator, ask)(mix, est, level(mix))
        for name, e, p in zip(queries, est, scores):
            gains[name].append(sdr(ref, e) - sdr(ref, mix))
            there[name].append(p)
        for name, p in zip(wrong, scores[len(queries) :]):
            absent[name].append(p)
        for examples_of, found in ((examples, there), (others, absent)):
            ask = Ask(examples_of[:5], nearest=True)
            est = separator.separate(mix, fs, ask)
            found["nearest of 5"].extend(scorer(separator, ask)(mix, est, level(mix)))
            if found is there:
                gains["nearest of 5"].append(sdr(ref, est[0]) - sdr(ref, mix))
        third = bank.read(int(rng.choice(bank.clips_of(k))), 0, len(mix))
        third *= np.sqrt(np.square(ref).sum() / max(np.square(third).sum(), 1e-12))
        more, against = mix + third, np.stack([separator.embed_one(audio["query2"], fs), others[0]])
        for name, keep_out in (("other", None), ("one kept out", against[:1]), ("both kept out", against)):
            est = separator.separate(more, fs, Ask(other[None], keep_out))[0]
            gains[f"three sounds, {name}"].append(sdr(ref, est) - sdr(ref, more))
        if n % 10 == 9 or n == len(pairs) - 1:
            print(f"{n + 1} of {len(pairs)}", file=sys.stderr, flush=True)
    print(f"{len(pairs)} targets of {a.list}, {separator.info.get('name')}; SDR gain in dB, mean (median)\n")
    print("|asked by|options of `separate`|SDR gain|presence: AUC|missed|found though absent|")
    print("|---|---|---:|---:|---:|---:|")
    limit = separator.threshold
    for name, options in COMMANDS.items():
        values, rates = gains[name], "–|–|–"
        if absent[name] and limit is not None:
            yes, no = np.array(there[name]), np.array(absent[name])
            rates = f"{area_under_curve(yes, no):.3f}|{(yes < limit).mean():.0%}|{(no >= limit).mean():.0%}"
        gain = f"{np.mean(values):.2f} ({np.median(values):.2f})" if values else "–"
        print(f"|{name}|`{options}`|{gain}|{rates}|")


def find(a: argparse.Namespace) -> None:
    """A recording of clips at random places, half of them under another one, in noise 40 dB below them."""
    separator, bank = Separator.from_bundle(a.bundle, a.device), ClipBank(a.bank)
    rng, fs, slot = np.random.default_rng(0), bank.fs, 15
    x = 1e-3 * rng.standard_normal(round(a.minutes * 60) * fs).astype(np.float32)
    classes = [k for k in range(bank.num_classes) if len(bank.clips_of(k)) > 5]
    events = defaultdict(list)
    for begin in range(0, round(a.minutes * 60), slot):
        start = begin * fs + int(rng.integers(5 * fs))
        for k in rng.choice(classes, 1 + int(rng.integers(2)), replace=False):
            clip = bank.read(int(rng.choice(bank.clips_of(k)[5:])))[: 10 * fs]
            clip = clip * 0.1 / max(np.sqrt(np.mean(clip**2)), 1e-6)
            end = min(start + len(clip), len(x))
            x[start:end] += clip[: end - start]
            events[k].append((start / fs, end / fs))
    asked = sorted(events, key=lambda k: -len(events[k]))[: a.queries]
    queries = [np.mean([separator.embed_one(bank.read(int(i)), fs) for i in bank.clips_of(k)[:5]], 0) for k in asked]
    begin, cpu = time.monotonic(), time.process_time()
    scores = np.array(list(query_scores(separator, ArraySource(x[:, None], fs), Ask(np.stack(queries)))))
    wall, used = (t / (a.minutes * 60) for t in (time.monotonic() - begin, time.process_time() - cpu))
    print(f"{a.minutes:g} min, {sum(map(len, events.values()))} sounds; asked for, by the mean of 5 examples:")
    print(", ".join(f"{bank.classes[k].name} ({len(events[k])} times)" for k in asked))
    print("\n|threshold|recall|lines|precision|\n|---|---:|---:|---:|")
    for limit in sorted({0.5, 0.6, 0.7, 0.8, 0.9, round(separator.threshold, 2)}):
        lines = {k: list(stretches(x.tolist(), a.minutes * 60, limit)) for k, x in zip(asked, scores.T)}
        hits = [any(f.start < e and s < f.end for f in lines[k]) for k in asked for s, e in events[k]]
        right = [any(f.start < e and s < f.end for s, e in events[k]) for k in asked for f in lines[k]]
        shares = [f"{np.mean(x):.0%}" if x else "–" for x in (hits, right)]
        print(f"|{limit:.2f}|{shares[0]}|{len(right)}|{shares[1]}|")
    print(f"\n{wall / len(asked):.3f} of real time for each query, {used / len(asked):.3f} in CPU seconds")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("ways", "find"))
    p.add_argument("bundle")
    p.add_argument("--bank", required=True, help="clip bank of the test set")
    p.add_argument("--list", help="ways: its list of mixtures, pairs.tsv")
    p.add_argument("--mixtures", type=int, help="ways: the first of the list (default: all)")
    p.add_argument("--minutes", type=float, default=30.0, help="find: length of the recording (%(default)s)")
    p.add_argument("--queries", type=int, default=4, help="find: classes that are looked for (%(default)s)")
    p.add_argument("--device", default="auto")
    a = p.parse_args()
    torch.set_num_threads(1)
    (ways if a.what == "ways" else find)(a)


if __name__ == "__main__":
    main()
