"""Hostile bundles: `info` and `separate` refuse them, `info` within 1 s and 500 MB; nothing is written outside the
output folder, called or fetched. An audit hook in the process sees what it writes, starts and connects to."""

import io
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import yaml
from children import Child, Outcome
from mutate import ALIASES
from sandbox import Sandbox
from world import words

CPU, MEGABYTES = 0.8, 450.0  # of `info`, above those of a process that has only started
TOUCH = "touch ../../escaped"
UNUSED = {"preprocessor", "preprocessor_conf", "model", "model_conf"}  # by what separates
USE = {"q.zip": "separate in/0.wav --query sounds/bell/0.wav --bundle bad.zip -o new/"}
USE["exp/weak/weak.zip"] = "separate in/0.wav --bundle bad.zip -o new/"


class Bad:
    """Pickled as a call."""

    def __init__(self, call: Callable, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def pickles() -> Iterator[tuple[str, bytes]]:
    """Programs for the reader of weights, each by another of its instructions."""
    for call, *args in (
        (os.system, TOUCH),
        (eval, f"__import__('os').system({TOUCH!r})"),
        (exec, "1"),
        (open, "x", "w"),
    ):
        for protocol in (0, 2, 4):
            yield f"{call.__name__} protocol {protocol}", pickle.dumps({"w": Bad(call, *args)}, protocol)
    t = TOUCH.encode()
    yield "inst", b"(S'" + t + b"'\nios\nsystem\n."
    yield "obj", b"(cos\nsystem\nS'" + t + b"'\no."
    yield "newobj", b"\x80\x02csubprocess\nPopen\n(X\x05\0\0\0touchtp\x81."
    yield "build", b"\x80\x02ccollections\nOrderedDict\n)R}X\x08\0\0\0__init__cos\nsystem\nsb."
    yield "getattr", b"\x80\x02cbuiltins\ngetattr\nctorch\nhub\nX\x04\0\0\0load\x86R."
    for name in ("torch\nload", "torch.hub\nload", "torch.storage\n_load_from_bytes", "torch\nsave", "numpy\nsave"):
        yield name.replace("\n", "."), b"\x80\x02c" + name.encode() + b"\nX\x01\0\0\0x\x85R."
    for n, code in enumerate(
        (
            b"\x82\x01.",
            b"\x80\xff.",
            b"\x95" + b"\xff" * 8 + b".",
            b"\x8d" + b"\xff" * 7 + b"\x00",
            b"j\xff\xff\xff\xff.",
        )
    ):
        yield f"instruction {n}", b"\x80\x04" + code
    yield "huge place in the memo", b"\x80\x02}r\xff\xff\xff\x7f."
    yield "nesting", b"\x80\x02" + b"]" * 200000 + b"a" * 199999 + b"."
    yield "long", b"\x80\x02\x8b\xff\xff\xff\x7f."
    for n, size in enumerate((1 << 40, -1, 1 << 62, (1 << 63) - 1)):
        yield f"tensor of size {n}", _tensor(size)


def _tensor(size: int) -> bytes:
    """One tensor over a storage that declares `size` numbers."""
    number = b"\x8a\x08" + struct.pack("<q", size)
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpu" + number + b"tQ"
    call = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\0"
        + number
        + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02}X\x01\0\0\0w" + call + b"s."


def with_pickle(weights: bytes, program: bytes) -> bytes:
    """A file of weights with another program, its zip whole."""
    with zipfile.ZipFile(io.BytesIO(weights)) as z:
        return packed([(n, program if n.endswith("/data.pkl") else z.read(n)) for n in z.namelist()])


def packed(members: list[tuple[str, bytes]], compress: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as z:
        for name, data in members:
            z.writestr(name, data)
    return out.getvalue()


def names_of_classes() -> Iterator[tuple[str, dict]]:
    """Configurations that name what a bundle must not."""
    parts = ("encoder", "decoder", "extractor", "query_net", "separator", "classifier", "preprocessor", "model")
    targets = "os:system subprocess:Popen builtins:exec pathlib:Path espnet2_ext.infer.pack:write_bundle torch.hub:load"
    targets += " asteroid.models:save_publishable asteroid.utils.hub_utils:cached_download asteroid_models asteroid"
    targets += " tempfile:mkdtemp urllib.request:urlopen ../../x torch.nn:Linear espnet2.enh.separator.asteroid_models"
    for n, target in enumerate(targets.split()):
        for part in parts[n % 2 :: 2]:
            yield f"{part}: {target}", {part: target, f"{part}_conf": {"command": TOUCH}}
    for asteroid in ("save_publishable", "from_pretrained", "ConvTasNet"):
        conf = {"encoder_output_dim": 1, "asteroid_name": asteroid, "pretrained_path": "https://example.org/x.pth"}
        more = {"encoder": "same", "decoder": "same", "encoder_conf": {}, "decoder_conf": {}}
        yield f"asteroid {asteroid}", {"separator": "asteroid", "extractor": "asteroid", "separator_conf": conf, **more}
        yield (
            f"asteroid {asteroid} in",
            {"separator": "asteroid", "separator_conf": conf, "extractor_conf": conf, **more},
        )
    yield "files", {"init_param": ["/etc/passwd"], "classifier_file": "/etc/passwd", "anchor_file": "/etc/passwd"}


def sizes() -> Iterator[tuple[str, dict]]:
    for key in ("n_fft", "hop_length", "num_bands", "sample_rate"):
        for value in (10**12, 0, -1, float("nan"), "9" * 5000):
            yield f"{key} {str(value)[:9]}", {"encoder_conf": {key: value}, "decoder_conf": {key: value}}
    for key, value in (
        ("dim", 10**9),
        ("depths", [10**8]),
        ("depths", [1] * 10**5),
        ("image_channels", 1 << 40),
        ("window", 10**9),
    ):
        yield f"{key} {str(value)[:9]}", {"extractor_conf": {key: value}, "separator_conf": {key: value}}
    yield "hidden", {"separator_conf": {"hidden": 10**7, "layers": 10**6}, "classifier_conf": {"hidden": 10**9}}


def bundles(base: dict[str, bytes]) -> Iterator[tuple[str, bytes, bool]]:
    """Name, bytes, and whether it may be accepted: what is odd in it is of no use to anybody.

    Args:
        base: members of a good bundle.
    """

    def plus(**more: bytes) -> list[tuple[str, bytes]]:
        return list({**base, **{k.replace("__", "."): v for k, v in more.items()}}.items())

    def edit(member: str, change: dict) -> bytes:
        content = yaml.safe_load(base[member])
        for key, value in change.items():
            old = content.get(key)
            content[key] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
        return packed(list({**base, member: yaml.safe_dump(content).encode()}.items()))

    for name, program in pickles():
        yield f"weights: {name}", packed(plus(model__pth=with_pickle(base["model.pth"], program))), False
        yield f"weights, old format: {name}", packed(plus(model__pth=program)), False
    for name, change in names_of_classes():
        known = set(yaml.safe_load(base["config.yaml"]))
        yield (f"config: {name}", edit("config.yaml", change), not set(change) & known - UNUSED or name == "files")
    for name, change in sizes():
        yield f"size: {name}", edit("config.yaml", change), True
    for key, value in dict(
        task="x", format=9, classes=10**12, fs="x", plugins=["os", "a; touch x"], agreement="x", name="../x"
    ).items():
        yield f"bundle.yaml: {key}", edit("bundle.yaml", {key: value}), key in ("fs", "name", "agreement")
    for name in ("x/../../../escaped", "/tmp/escaped", "..", "a/b", "nul\0", "x" * 300, "", "-rf", "a\tb"):
        lines = base["labels.tsv"].decode().split("\n")
        lines[1] = f"0\t{name}\t{name}\t"
        classes = yaml.safe_load(base["config.yaml"]).get("class_names")
        config = edit("config.yaml", {"class_names": [name, *classes[1:]]}) if classes else packed(plus())
        with zipfile.ZipFile(io.BytesIO(config)) as z:
            members = {n: z.read(n) for n in z.namelist()} | {"labels.tsv": "\n".join(lines).encode()}
        yield f"class {name[:20]!r}", packed(list(members.items())), True
    for member in ("config.yaml", "bundle.yaml", "meta.yaml"):
        for name, text in (
            ("bomb", f"a: &a [x, x]\n{ALIASES}z: *i\n"),
            ("nesting", "[" * 10**5),
            ("tag", f"!!python/object/apply:os.system ['{TOUCH}']"),
        ):
            yield f"{member}: {name}", packed(plus(**{member.replace(".", "__"): text.encode()})), False
        yield f"{member}: of 50 MB", packed(plus(**{member.replace(".", "__"): b"a: b\n" * 10**7})), False
        yield f"without {member}", packed([(n, v) for n, v in base.items() if n != member]), False
    for target in ("/etc/passwd", "../../escaped", "bundle.yaml", "model.pth/", "*", "https://example.org/model.pth"):
        yield f"meta.yaml: {target}", edit("meta.yaml", {"files": {"model_file": target}}), False
    for name in (
        "/tmp/escaped",
        "../../escaped",
        "a/../../b",
        "espnet2_ext/__init__.py",
        "sitecustomize.py",
        "x\\..\\y",
    ):
        yield f"member {name}", packed([*plus(), (name, b"x")]), True
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    yield "a link", packed([*plus(), (link, b"/etc/passwd")]), True
    yield "two of each", packed([*plus(), *plus(config__yaml=b"extractor: os:system\n")]), True
    for n, number in enumerate((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)):
        yield f"compressed {n}", packed(plus(), number), True
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(2000)) + zeros.flush()
    for member in ("model.pth", "config.yaml", "labels.tsv"):
        yield f"{member}: bomb of 2 GB", _declared(base, member, bomb, 2000 << 20, zipfile.ZIP_DEFLATED), False
        yield (
            f"{member}: declares 4 GB",
            _declared(base, member, base[member], (1 << 32) - 2, zipfile.ZIP_STORED),
            False,
        )


def _declared(base: dict[str, bytes], member: str, raw: bytes, size: int, compress: int) -> bytes:
    """A bundle in which `raw` is what is stored of a member, which declares another size and way."""
    data = bytearray(packed(list({**base, member: raw}.items())))
    name = member.encode()
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = data.find(mark)
        while place >= 0:
            start = place + (30 if at == 8 else 46)
            if data[start : start + len(name)] == name:
                data[place + at : place + at + 2] = struct.pack("<H", compress)
                data[place + at + 14 : place + at + 18] = struct.pack("<I", size)
            place = data.find(mark, place + 4)
    return bytes(data)


class Hostile:
    """Case n: bundle n // 2, looked at by `info` or used by `separate`."""

    def __init__(self, world: Path, work: Path, keep: Path, short: bool):
        self.world, self.work, self.keep = world, work, keep
        self.box: Sandbox | None = None
        self.cases = []
        for source in USE:
            with zipfile.ZipFile(world / source) as z:
                found = list(bundles({n: z.read(n) for n in z.namelist()}))
            self.cases += [(source, *case, use) for case in found for use in ("info bad.zip", USE[source])]
        if short:
            self.cases = Random(0).sample(self.cases, 40)

    def __call__(self, n: int) -> list[tuple[str, str, Outcome]]:
        if self.box is None:
            self.box = Sandbox(self.world, self.work / f"deep{os.getpid()}/er/box")
        self.box.restore()
        top, log = self.box.path, self.work / f"hostile{os.getpid()}"
        source, name, data, may, use = self.cases[n]
        (top / "bad.zip").write_bytes(data)
        (top / "tmp").mkdir(exist_ok=True)
        log.with_suffix(".audit").unlink(missing_ok=True)
        child = Child(words(use), top, log, int(MEGABYTES) + 200, self._in_box, log.with_suffix(".audit"))
        outcome = child.outcome(30.0)
        if outcome.what != "FAULT":
            outcome = self._judged(outcome, use, may, log.with_suffix(".audit"))
        if outcome.what == "FAULT":
            (self.keep / f"hostile-{n}.zip").write_bytes(data)
        self.box.restore()
        return [(name.split(":")[0].split(" ")[0], f"{source} {name}, {use.split()[0]}", outcome)]

    def _in_box(self) -> None:
        import tempfile

        tempfile.tempdir = str(self.box.path / "tmp")

    def _judged(self, outcome: Outcome, use: str, may: bool, audit: Path) -> Outcome:
        bad, top = [], self.box.path
        allowed = (f"{top}/tmp", f"{top}/new", "/dev/null", "/dev/shm/sem.")
        for line in audit.read_text("utf-8", "replace").splitlines():
            event, _, what = line.partition("\t")
            path = os.path.abspath(os.path.join(top, what.strip("b'\"").replace("PosixPath('", "").rstrip("')")))
            if not path.startswith(allowed):
                bad.append(f"{event} {what[:80]}")
        outside = [p for p in (top.parent, top.parent.parent) for p in p.glob("*escaped*")]
        for path in outside:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if use.startswith("info") and (outcome.cpu > CPU or outcome.megabytes > MEGABYTES):
            bad.append(f"{outcome.cpu:.1f} s of CPU, {outcome.megabytes:.0f} MB")
        if bad or outside:
            return outcome._replace(what="FAULT", text="; ".join([*bad[:3], *map(str, outside)]))
        if outcome.what == "accepted" and not use.startswith("info") and not may:
            return outcome._replace(what="FAULT", text="accepted")
        return outcome


def make(part: str, a, top: Path, work: Path) -> tuple[Hostile, int]:
    """What does case n, and the number of cases."""
    hostile = Hostile(top, work, a.keep, a.short)
    return hostile, len(hostile.cases)
