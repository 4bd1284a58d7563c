"""CaRE-SEP against the two-network route, in turns in one process."""

import torch

from espnet2_ext.bench.configs import Options, build, name_of, noise
from espnet2_ext.bench.measure import QUIET, gflop, interleaved, parameters
from espnet2_ext.bench.plain_query import FS, HTSAT, QueryUNet
from espnet2_ext.bench.query import ANCHOR, passes

ROUTE_TARGET, TAGGER_TARGET = 0.1, 2.5  # of the two-network route, and of HTS-AT 96-d on 10 s
TARGET_WIDTH = 768  # the query's width for which the targets are set


def compare(paths: list, options: Options) -> dict:
    """Time each model's passes and the plain networks', one call of each in every turn.

    Returns:
        `plain`: a row for each plain network and clip length (`parameters_m`, `gflop`, times as in
        `interleaved`); `models`: for each YAML, its query's width and the times of its passes.
    """
    device = options.start()
    models = {name_of(path): build(path, device)[0] for path in paths}
    with torch.no_grad():
        nets, calls = plain_calls(options.seconds, device)
        plain = {
            name: {"parameters_m": parameters(nets[name[0]]), "gflop": gflop(call)} for name, call in calls.items()
        }
        for name, model in models.items():
            calls |= {(name, key): call for key, call in passes(model, options.seconds, device).items()}
        took = interleaved(calls, options.repeats, device)
    rows = {
        name: {"width": model.query_dim, **{key: took[name, key] for key in ("mask", "embed", "embed_anchor")}}
        for name, model in models.items()
    }
    return {
        "seconds": options.seconds,
        "models": rows,
        "plain": {" ".join(name): row | took[name] for name, row in plain.items()},
    }


def plain_calls(seconds: float, device: torch.device) -> tuple[dict, dict]:
    """The plain networks by name, and their calls by (name, `clip` or `anchor`)."""
    torch.manual_seed(0)
    nets = {"HTS-AT 96-d": HTSAT(96), "HTS-AT 256-d": HTSAT(256), "U-Net": QueryUNet()}
    nets = {name: net.to(device).eval() for name, net in nets.items()}
    clip, anchor = noise(1, seconds, FS, device), noise(1, ANCHOR, FS, device)
    query = torch.zeros(1, 2048, device=device)
    calls = {
        (name, length): lambda net=nets[name], x=x: net(x)
        for name in ("HTS-AT 96-d", "HTS-AT 256-d")
        for length, x in (("clip", clip), ("anchor", anchor))
    }
    calls["U-Net", "clip"] = lambda: nets["U-Net"](clip, query)
    return nets, calls


def verdicts(result: dict) -> list[str]:
    """Lines that say how the models compare, and for CaRE-SEP 768 which targets are met."""
    length, plain = f"{result['seconds']:g} s", {k: v["s"] for k, v in result["plain"].items()}
    tagger, unet = plain["HTS-AT 96-d clip"], plain["U-Net clip"]
    lines = []
    for name, row in result["models"].items():
        mask = row["mask"]["s"]
        asked = {
            f"a query of {length}": ("embed", plain["HTS-AT 256-d clip"]),
            f"an anchor of {ANCHOR:g} s": ("embed_anchor", plain["HTS-AT 256-d anchor"]),
            "an embedding at hand": (None, 0.0),
        }
        for query, (key, other) in asked.items():
            embed = row[key]["s"] if key else 0.0
            ours, route = embed + mask, other + unet
            parts = f" (embedding {embed:.3f} + mask {mask:.3f})" if key else " (mask pass alone)"
            theirs = f" (embedding {other:.3f} + U-Net {unet:.3f})" if key else " (U-Net alone)"
            line = (
                f"{name} answers {query} on {length} in {ours:.3f} s{parts}; "
                f"two-network route {route:.3f} s{theirs}: ratio 1/{route / ours:.1f}; "
                f"HTS-AT 96-d {tagger:.3f} s: ratio {ours / tagger:.2f}."
            )
            if row["width"] == TARGET_WIDTH:
                line += (
                    f" Targets: at most 1/{1 / ROUTE_TARGET:g} of the route "
                    f"{_met(ours / route, ROUTE_TARGET)}; at most {TAGGER_TARGET} x HTS-AT "
                    f"96-d {_met(ours / tagger, TAGGER_TARGET)}."
                )
            lines.append(line)
    return lines + _warning(result)


def _warning(result: dict) -> list[str]:
    rows = [
        *result["plain"].values(),
        *(row[key] for row in result["models"].values() for key in ("mask", "embed", "embed_anchor")),
    ]
    lost = max(row["lost"] for row in rows)
    return (
        []
        if lost <= QUIET
        else [
            f"NOT VALID: other processes took up to {lost:.1f} cores meanwhile; measure again when "
            "the machine is quiet."
        ]
    )


def _met(ratio: float, target: float) -> str:
    return "MET" if ratio <= target else "MISSED"


HEADER = ["network", "M param.", "GFLOP", "s", "lowest", "highest", "cores lost"]


def table_rows(result: dict) -> list[list]:
    """The cells below `HEADER`: plain networks, then the passes of the models."""
    clip = {"clip": f"{result['seconds']:g} s", "anchor": f"{ANCHOR:g} s"}
    keys = ("s", "low", "high", "lost")
    rows = []
    for name, row in result["plain"].items():
        net, _, length = name.rpartition(" ")
        rows.append([f"{net}, {clip[length]}", row["parameters_m"], row["gflop"], *(row[k] for k in keys)])
    names = {
        "mask": f"mask, {clip['clip']}",
        "embed": f"embedding, {clip['clip']}",
        "embed_anchor": f"embedding, {clip['anchor']}",
    }
    for model, row in result["models"].items():
        rows += [[f"{model}: {text}", None, None, *(row[key][k] for k in keys)] for key, text in names.items()]
    return rows
