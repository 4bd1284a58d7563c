"""This code against another commit of it: a process each, that take turns, so that what else the machine does falls on
both alike.

The file is also what these processes run, with the commit's package: it uses little of it.
"""

import contextlib
import json
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from espnet2_ext.errors import DataError

ROOT = Path(__file__).parents[2]
ANCHOR, BATCH = 2.0, 2  # seconds and mixtures of a training step
SIDES = ("now", "then")
NAMES = ("model", "call", *SIDES, "ratio", "loss_now", "loss_then")
COLUMNS = {name: operator.methodcaller("get", name) for name in NAMES}


def compare(paths: list[Path], rev: str, options) -> list[dict]:
    """Rows of each model and call: `now` and `then` in seconds (CPU time, on another device wall time), their `ratio`,
    and of the training step `loss_now` and `loss_then`, of the first step from the same weights.

    Args:
        paths: YAMLs; the other commit reads its own, if it has one of this place.
        rev: what `git` calls the commit, or the folder of a checkout.
        options: see `configs.Options`.

    Raises:
        DataError: no such commit; a process that fails.
    """
    rows = []
    with checkout(rev) as other:
        for path in paths:
            with process(ROOT, path, options) as now, process(other, path, options) as then:
                both = dict(zip(SIDES, (now, then)))
                losses = {f"loss_{side}": ask(child, "loss")["loss"] for side, child in both.items()}
                for call in ("embed", "mask", "step")[: None if options.train else -1]:
                    took: dict[str, list[float]] = {side: [] for side in SIDES}
                    for turn in range(-1, options.repeats):
                        for side, child in both.items():
                            seconds = ask(child, call)["s"]
                            took[side] += [seconds] if turn >= 0 else []
                    row = {side: statistics.median(values) for side, values in took.items()}
                    row |= {"model": path.stem.removeprefix("train_"), "call": call, "ratio": row["then"] / row["now"]}
                    rows.append(row | (losses if call == "step" else {}))
    return rows


@contextlib.contextmanager
def checkout(rev: str) -> Iterator[Path]:
    """The folder of a commit's files, or `rev` where that is one."""
    if (Path(rev) / "espnet2_ext").is_dir():
        yield Path(rev).absolute()
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*git, "add", "--detach", f"{folder}/then", rev], capture_output=True, text=True)
        if done.returncode:
            line = (done.stderr.strip() or "git failed").splitlines()[-1]
            raise DataError(f"--against {rev}: neither plain, nor a commit of {ROOT}, nor a checkout: {line}")
        try:
            yield Path(folder) / "then"
        finally:
            subprocess.run([*git, "remove", "--force", f"{folder}/then"], capture_output=True)


@contextlib.contextmanager
def process(root: Path, path: Path, options) -> Iterator[subprocess.Popen]:
    """A process with the package of `root`, and the YAML's model made."""
    with contextlib.suppress(ValueError):
        own = root / path.absolute().relative_to(ROOT)
        path = own if own.is_file() else path
    given = [str(path.absolute()), str(options.seconds), str(options.start()), str(options.threads)]
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__, *given], env=env, **pipes) as child:
        try:
            yield child
        finally:
            child.stdin.close()


def ask(child: subprocess.Popen, call: str) -> dict:
    """Let a process make a call; what it says of it. Raises a DataError where it ends."""
    from espnet2_ext.util.documents import parse_json  # which another commit may not have

    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(f"{call}\n")
        child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        raise DataError(f"the process of {child.args[2]} ended")
    return parse_json(answer, child.args[2])


def serve(path: str, seconds: float, device: str, threads: int) -> None:
    """Make calls as standard input names them; answers are lines of JSON."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    import torch

    from espnet2_ext.bench.configs import build, noise

    torch.set_num_threads(threads)
    place = torch.device(device)
    model, _ = build(path, place)
    fs, spks = model.encoder.sample_rate, range(1, model.num_spk + 1)
    mix, anchor = noise(1, seconds, fs, place), noise(1, ANCHOR, fs, place)
    refs = [noise(BATCH, ANCHOR, fs, place, seed=s) for s in spks]
    batch = {"speech_mix": sum(refs)} | {f"speech_ref{s}": r for s, r in zip(spks, refs)}
    batch |= {f"enroll_ref{s}": r for s, r in zip(spks, refs)}
    if classes := getattr(model.extractor.net, "num_classes", 0):
        batch |= {f"label{s}": torch.zeros(BATCH, classes, device=place) for s in (*spks, "_mix")}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    with torch.no_grad():
        query = model.embed(anchor)[0][:, None]

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = model.train()(**batch)[0]
        loss.backward()
        optimiser.step()

    def inference(call):
        model.eval()
        with torch.inference_mode():
            return call()

    calls = {
        "embed": lambda: inference(lambda: model.embed(anchor)),
        "mask": lambda: inference(lambda: model.separate(mix, query=query)),
        "step": step,
    }
    clock = time.process_time if place.type == "cpu" else time.perf_counter
    for line in sys.stdin:
        torch.manual_seed(0)
        if line.strip() == "loss":
            answer = {"loss": float(model.train()(**batch)[0])}
        else:
            begin = clock()
            calls[line.strip()]()
            getattr(torch, place.type).synchronize()
            answer = {"s": clock() - begin}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
