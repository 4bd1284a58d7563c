"""`espnet2-ext app`: a page on this machine."""

import contextlib
import os
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

from espnet2_ext.cli.options import add_bundle, add_device, bundle_path, log_starter
from espnet2_ext.errors import DataError
from espnet2_ext.util.locks import unfinished
from espnet2_ext.util.names import Parser

PORT = 8600


def app(argv: list[str] | None = None) -> None:
    """Open a page in the browser that separates recordings; what it is given stays on this machine."""
    p = Parser(description=app.__doc__)
    add_bundle(p)
    p.add_argument("--port", type=int, help=f"of 127.0.0.1; 0: a free one (default: {PORT}, or a free one)")
    p.add_argument("--no_browser", action="store_true", help="only print the page's address")
    p.add_argument("--max_gb", type=float, default=4.0, help="size of a file that is dropped (%(default)g)")
    p.add_argument("--max_hours", type=float, default=12.0, help="length of a recording (%(default)g)")
    add_device(p)
    args = p.parse_args(argv)
    for name in ("max_gb", "max_hours"):
        if not getattr(args, name) > 0:
            raise DataError(f"--{name} {getattr(args, name):g}: above 0")
    from espnet2_ext.app.server import Server
    from espnet2_ext.app.sounds import Limits, Sounds
    from espnet2_ext.app.work import Works
    from espnet2_ext.infer.bundle import open_bundle

    with tempfile.TemporaryDirectory(prefix="espnet2-ext-app-") as folder, unfinished(folder):  # its owner's alone
        sounds = Sounds(Path(folder), Limits(round(args.max_gb * 1e9), args.max_hours * 3600))
        with open_bundle(bundle_path(args.bundle)) as bundle:
            model = _about(bundle)
            works = Works(sounds, model["task"])
            server = _at_port(args.port, lambda port: Server(sounds, works, model, port))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            print(f"{server.url}   (Ctrl-C ends it; sounds lie in {folder} until then)", flush=True)
            if not args.no_browser and _has_screen():
                webbrowser.open(server.url)
            separator = _load(bundle, args.device)
        model |= {"ready": True, "gate": separator.threshold is not None}
        log_starter(separator.info)
        works.run(separator)


def _about(bundle) -> dict:
    """What the page says of the model, before it is loaded."""
    known = bundle.class_queries()
    task, info = bundle.info["task"], bundle.info
    classes = bundle.config.get("class_names", []) if task == "weak" else known.names if known else []
    facts = {"name": info.get("name") or Path(bundle.path).stem, "fs": info.get("fs"), "path": bundle.path}
    return {"task": task, "classes": sorted(classes, key=str.casefold), "ready": False, "gate": False, **facts}


def _load(bundle, device: str):
    if bundle.info["task"] == "weak":
        from espnet2_ext.infer.class_separator import WeakSeparator

        return WeakSeparator.from_open(bundle, device)
    from espnet2_ext.infer.query_separator import Separator

    return Separator.from_open(bundle, device)


def _at_port(port: int | None, make):
    """Raises a DataError for a port that was asked for and cannot be had."""
    if port is None:
        with contextlib.suppress(OSError):
            return make(PORT)
    try:
        return make(port or 0)
    except (OSError, OverflowError) as e:
        reason = getattr(e, "strerror", None) or "is from 0 to 65535"
        raise DataError(f"--port {port}: {reason}; --port 0 takes a free one") from e


def _has_screen() -> bool:
    """Whether a browser with windows can be expected: one of a terminal would take the terminal."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")))
