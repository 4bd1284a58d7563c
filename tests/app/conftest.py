"""Bundles of small untrained models, and the page's server with one of them."""

import http.client
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from untrained import bundle_of

from espnet2_ext.app.server import Server
from espnet2_ext.app.sounds import Limits, Sounds
from espnet2_ext.app.work import ENDED, Works
from espnet2_ext.infer.class_separator import WeakSeparator
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.util.config import read_config

LIMITS = Limits(1 << 22, 10.0)
CONF = Path(__file__).parents[2] / "conf" / "debug"
MODELS = {
    "qsep": ("train_qsep_query_unet.yaml", {}),
    "weak": ("train_weak.yaml", {"class_names": ["bell", "dog"], "label_type": "frame"}),
}


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """A bundle for each task."""
    top, found = tmp_path_factory.mktemp("bundles"), {}
    for task, (name, more) in MODELS.items():
        config = {"sample_rate": 16000, **read_config(CONF / name), **more}
        found[task] = bundle_of(config, task, top / f"{task}.zip")
    return found


@pytest.fixture(scope="session")
def separators(bundles):
    return {
        "qsep": Separator.from_bundle(bundles["qsep"], "cpu"),
        "weak": WeakSeparator.from_bundle(bundles["weak"], "cpu"),
    }


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder with a mixture in stereo and an example."""
    top, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    t = np.arange(3 * 44100) / 44100
    chirp = 0.3 * np.sin(2 * np.pi * (300 + 400 * t) * t) * (t > 1) * (t < 2)
    mix = chirp[:, None] * [1.0, 0.5] + 0.02 * rng.standard_normal((len(t), 2))
    soundfile.write(top / "mix.wav", mix, 44100)
    soundfile.write(top / "example.flac", chirp[44100:88200], 44100)
    return top


class Page:
    """A client of the page's server, which does what is asked for with `separator`."""

    def __init__(self, folder: Path, task: str, separator=None, limits: Limits = LIMITS):
        self.sounds = Sounds(folder, limits)
        self.works = Works(self.sounds, task)
        self.server = Server(self.sounds, self.works, {"task": task, "classes": [], "ready": True})
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        if separator is not None:
            threading.Thread(target=self.works.run, args=(separator,), daemon=True).start()

    def raw(self, method: str, path: str, body=None, key: str | None = None, **headers) -> tuple[int, dict, bytes]:
        """Status, headers and body; `Origin` is the page's unless it is given, None for none."""
        client = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        headers = {"Origin": self.origin} | {k.replace("_", "-"): v for k, v in headers.items()}
        url = f"/{self.server.key if key is None else key}/{path}"
        client.request(method, url, body, {k: v for k, v in headers.items() if v is not None})
        answer = client.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        client.close()
        return found

    def ask(self, method: str, path: str, body=None, **headers) -> dict:
        """The answer, which is JSON."""
        return json.loads(self.raw(method, path, body, **headers)[2])

    def send(self, path: Path, title: str | None = None) -> dict:
        return self.ask("POST", f"sounds?title={title or path.name}", path.read_bytes())

    def separate(self, recording: str, ask=(), against=(), mode="mean", format="wav", gate=False) -> dict:
        """Asks for it, and waits for the end."""
        asked = {"recording": recording, "ask": list(ask), "against": list(against)}
        asked |= {"mode": mode, "format": format, "gate": gate}
        work = self.ask("POST", "works", json.dumps(asked))
        while work.get("state") not in (None, *ENDED):
            work = self.ask("GET", f"works/{work['id']}")
        return work

    def file(self, sound: str) -> bytes:
        return self.raw("GET", f"sounds/{sound}/file")[2]


@pytest.fixture
def page(tmp_path, separators):
    """Makes a `Page` for a task."""
    pages = []

    def make(task="qsep", works=True, **options):
        (folder := tmp_path / f"page{len(pages)}").mkdir()
        pages.append(Page(folder, task, separators[task] if works else None, **options))
        return pages[-1]

    yield make
    for one in pages:
        one.server.shutdown()
        one.server.server_close()
