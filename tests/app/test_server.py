"""What the page's server answers, and what it does not."""

import io
import json
import socket

import numpy as np
import pytest
import soundfile

from espnet2_ext.app import sounds
from espnet2_ext.app import work as W
from espnet2_ext.app.sounds import Limits
from espnet2_ext.audio.streams import ArraySource
from espnet2_ext.cli import main as cli


def command(*args) -> None:
    """As a user types it."""
    cli.main([str(a) for a in args])


# ---- who may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "", "[::1]:80"])
def test_other_names_of_this_machine_are_refused(page, host):
    status, _, body = page().raw("GET", "state", Host=host)
    assert status == 403 and b"127.0.0.1 only" in body


@pytest.mark.parametrize("host", ["localhost", "localhost:8600", "127.0.0.1:9"])
def test_its_own_names_are_not(page, host):
    assert page().raw("GET", "state", Host=host)[0] == 200


@pytest.mark.parametrize("key", ["", "x", "état"])
def test_the_key_is_asked_for(page, key):
    status, _, body = page().raw("GET", "state", key=key.encode("ascii", "ignore").decode())
    assert status == 404 and b"espnet2-ext app" in body


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_pages_change_nothing(page, recordings, origin, method):
    p = page()
    kept = p.send(recordings / "example.flac")
    path = "sounds?title=x.wav" if method == "POST" else f"sounds/{kept['id']}"
    status, _, body = p.raw(method, path, b"abc", Origin=origin)
    assert status == 403 and b"another page" in body
    assert [s["id"] for s in p.ask("GET", "state")["sounds"]] == [kept["id"]]


def test_nothing_is_asked_of_others(page):
    p = page()
    for name, kind in (("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")):
        status, headers, body = p.raw("GET", name)
        assert status == 200 and headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert b"http://" not in body and b"https://" not in body and b"//cdn" not in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["../work.py", "server.py", "page.css/x", "sounds/../../x/file", "sounds/9/file", "works/9"]
)
def test_no_other_file(page, path):
    assert page().raw("GET", path)[0] == 404


# ---- sounds that are sent ------------------------------------------------------------------------


def files(p) -> int:
    return len(list(p.sounds.folder.iterdir()))


def test_what_is_no_sound_is_one_line_and_nothing_is_kept(page, recordings):
    p = page(limits=Limits(1 << 20, 2.0))
    for title, body, words in (
        ("notes.txt", b"not a sound at all", "cannot be decoded"),
        ("none.wav", b"", "is empty"),
        ("cut.flac", (recordings / "example.flac").read_bytes()[:3000], ""),
        (
            "mix.wav",
            (recordings / "mix.wav").read_bytes(),
            "is 0.00 h long; the page takes 0.000555556 h (--max_hours)",
        ),
    ):
        status, _, answer = p.raw("POST", f"sounds?title={title}", body)
        error = json.loads(answer)["error"]
        assert status == 400 and error.startswith(f"{title}: ") and words in error and "\n" not in error
        assert str(p.sounds.folder) not in error
    assert files(p) == 0 and p.ask("GET", "state")["sounds"] == []


def test_one_that_is_too_large_is_refused_before_it_comes(page):
    p = page(limits=Limits(1000, 10.0))
    with socket.create_connection(("127.0.0.1", p.server.server_port)) as s:
        head = f"POST /{p.server.key}/sounds?title=a.wav HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        s.sendall(f"{head}Content-Length: 5000000000\r\n\r\n".encode())
        answer = s.makefile("rb").read()  # to the end: the connection is closed
    assert b" 400 " in answer.splitlines()[0] and b"a.wav: has 5.00 GB; the page takes 1e-06 GB (--max_gb)" in answer


@pytest.mark.parametrize("line", ["Content-Length: x", "Content-Length: -1", "Transfer-Encoding: chunked", "X: y"])
def test_its_length_must_be_said(page, line):
    p = page()
    with socket.create_connection(("127.0.0.1", p.server.server_port)) as s:
        head = f"POST /{p.server.key}/sounds?title=a.wav HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        s.sendall(f"{head}{line}\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode())
        answer = s.makefile("rb").read()
    assert b" 411 " in answer.splitlines()[0] and answer.count(b"HTTP/1.1") == 1


def test_one_that_breaks_off_is_not_kept(page, recordings):
    p, data = page(), (recordings / "mix.wav").read_bytes()
    with socket.create_connection(("127.0.0.1", p.server.server_port)) as s:
        head = f"POST /{p.server.key}/sounds?title=a.wav HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        s.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[:1000])
        s.shutdown(socket.SHUT_WR)
        answer = s.makefile("rb").read()
    assert b"a.wav: only 1000 of" in answer and files(p) == 0


def test_one_that_is_sent_twice_is_kept_once(page, recordings):
    p = page()
    first, second = p.send(recordings / "mix.wav"), p.send(recordings / "mix.wav", "other.wav")
    assert (first["again"], second["again"]) == (False, True)
    assert first["id"] == second["id"] and second["title"] == "mix.wav" and files(p) == 1


def test_one_that_is_sent_twice_at_the_same_time_is_kept_once(page, recordings, monkeypatch):
    """The second comes while the first is opened, before it is kept."""
    p, data, opened = page(), (recordings / "example.flac").read_bytes(), sounds.open_source

    def take():
        return p.sounds.take(io.BytesIO(data).read, len(data), "a.flac")

    def open_again(path):
        monkeypatch.setattr(sounds, "open_source", opened)
        second.append(take())
        return opened(path)

    second = []
    monkeypatch.setattr(sounds, "open_source", open_again)
    kept, again = take()
    assert again and second == [(kept, False)]
    assert [f.name for f in p.sounds.folder.iterdir()] == [kept.path.name]


def test_a_name_from_outside_is_a_text(page, recordings):
    p = page()
    found = p.send(recordings / "mix.wav", "..%2F..%2Fa%00b%0A%3Cc%3E.wav")
    assert found["title"] == "ab<c>.wav" and [f.name for f in p.sounds.folder.iterdir()] == ["1.wav"]
    p.ask("DELETE", f"sounds/{found['id']}")
    assert files(p) == 0
    assert p.send(recordings / "mix.wav", "x.py")["title"] == "x.py"
    assert [f.suffix for f in p.sounds.folder.iterdir()] == [""]  # only suffixes of sounds


# ---- to listen, to see ---------------------------------------------------------------------------


def test_any_part_to_listen_to(page, recordings):
    p = page()
    path = f"sounds/{p.send(recordings / 'mix.wav')['id']}/listen"
    whole = p.raw("GET", path)[2]
    x, fs = soundfile.read(io.BytesIO(whole), dtype="int16")
    np.testing.assert_array_equal(x, soundfile.read(recordings / "mix.wav", dtype="int16")[0])
    assert fs == 44100
    for start, end in ((0, 9), (10, 50), (43, 44), (44, 48), (47, 301), (len(whole) - 7, len(whole))):
        status, headers, part = p.raw("GET", path, Range=f"bytes={start}-{end - 1}")
        assert status == 206 and headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(whole)}"
        assert part == whole[start:end]
    assert p.raw("GET", path, Range=f"bytes={len(whole)}-")[0] == 416


def test_what_is_decoded_from_its_start_only_has_a_copy(page, recordings, tmp_path):
    x, fs = soundfile.read(recordings / "mix.wav")
    soundfile.write(tmp_path / "mix.ogg", x, fs)
    p = page()
    kept = p.send(tmp_path / "mix.ogg")
    assert files(p) == 2 and kept["seconds"] == 3.0
    whole = p.raw("GET", f"sounds/{kept['id']}/listen")[2]
    found, _ = soundfile.read(io.BytesIO(whole))
    assert np.abs(found - soundfile.read(tmp_path / "mix.ogg")[0]).max() <= 2**-16
    assert p.raw("GET", f"sounds/{kept['id']}/listen", Range="bytes=400044-400099")[2] == whole[400044:400100]
    assert p.file(kept["id"]) == (tmp_path / "mix.ogg").read_bytes()
    p.ask("DELETE", f"sounds/{kept['id']}")
    assert files(p) == 0


@pytest.mark.parametrize("query", ["start=0&end=x", "start=-1&end=2", "start=0", "start=nan&end=inf"])
def test_a_picture_of_no_part(page, recordings, query):
    p = page()
    status, _, body = p.raw("GET", f"sounds/{p.send(recordings / 'mix.wav')['id']}/picture?{query}")
    assert status == 400 and b"should be a number of seconds" in body


# ---- separations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_the_same_bytes_as_the_command_line(page, recordings, bundles, tmp_path, monkeypatch, format):
    p = page()
    mix, example = p.send(recordings / "mix.wav"), p.send(recordings / "example.flac")
    ask = [{"sound": mix["id"], "start": 1.1, "end": 1.9}, {"sound": example["id"]}]
    work = p.separate(mix["id"], ask, [{"sound": mix["id"], "start": 0.0, "end": 0.5}], format=format)
    assert work["state"] == "done" and work["done"] == 1
    monkeypatch.chdir(recordings)
    query = ("--query", "mix.wav@1.1-1.9", "--query", "example.flac", "--not", "mix.wav@0-0.5")
    outs = [tmp_path / f"{name}.{format}" for name in ("target", "rest")]
    command("separate", "mix.wav", *query, "--bundle", bundles["qsep"], "-o", outs[0], "--residual", outs[1])
    assert [t["name"] for t in work["tracks"]] == ["target", "rest"]
    for track, out in zip(work["tracks"], outs):
        assert p.file(track["id"]) == out.read_bytes()


def test_the_nearest_of_several(page, recordings, bundles, tmp_path, monkeypatch):
    p = page()
    mix, example = p.send(recordings / "mix.wav"), p.send(recordings / "example.flac")
    ask = [{"sound": mix["id"], "start": 0.0, "end": 0.5}, {"sound": example["id"]}]
    work = p.separate(mix["id"], ask, mode="nearest")
    monkeypatch.chdir(recordings)
    query = ("--query", "mix.wav@0-0.5", "--query", "example.flac", "--mode", "nearest")
    out = tmp_path / "out.wav"
    command("separate", "mix.wav", *query, "--bundle", bundles["qsep"], "-o", out, "--residual", tmp_path / "r.wav")
    assert p.file(work["tracks"][0]["id"]) == out.read_bytes()


def test_all_classes_of_a_model_of_weak_labels(page, recordings, bundles, tmp_path):
    p = page("weak")
    work = p.separate(p.send(recordings / "mix.wav")["id"])
    command("separate", recordings / "mix.wav", "--bundle", bundles["weak"], "-o", tmp_path, "--residual", tmp_path)
    assert [t["name"] for t in work["tracks"]][:2] == ["bell", "dog"] and work["tracks"][-1]["name"] == "rest"
    for track in work["tracks"]:
        assert p.file(track["id"]) == (tmp_path / f"mix.{track['name']}.wav").read_bytes()
    assert all(0 <= track["presence"] <= 1 for track in work["tracks"][:2]) and work["tracks"][-1]["presence"] is None
    gated = p.separate(work["asked"]["recording"], gate=True)
    command("separate", recordings / "mix.wav", "--gate", "--bundle", bundles["weak"], "-o", tmp_path / "gated")
    assert [t["presence"] for t in gated["tracks"]] == [t["presence"] for t in work["tracks"]]
    assert p.file(gated["tracks"][1]["id"]) == (tmp_path / "gated" / "mix.dog.wav").read_bytes()
    refused = p.separate(work["asked"]["recording"], [{"class": "dog"}])
    assert refused == {"error": "this model knows classes and takes no query"}


def test_the_same_asked_twice_is_done_once(page, recordings):
    p = page()
    mix = p.send(recordings / "mix.wav")["id"]
    ask = [{"sound": mix, "start": 1.0, "end": 2.0}]
    first, second = p.separate(mix, ask), p.separate(mix, ask)
    assert first["id"] == second["id"] and second["again"] and len(p.ask("GET", "state")["works"]) == 1
    p.ask("DELETE", f"works/{first['id']}")
    assert p.ask("GET", "state")["works"] == [] and files(p) == 1  # the mixture stays


def test_what_cannot_be_separated_is_one_line(page, recordings, tmp_path):
    p = page()
    mix = p.send(recordings / "mix.wav")["id"]
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    silent = p.send(tmp_path / "silent.wav")["id"]
    for ask, words in (
        ([], "nothing is asked for"),
        ([{"sound": mix, "start": 2.0, "end": 1.0}], "mix.wav@2-1: a span ends after it starts"),
        ([{"sound": mix, "start": 1.0, "end": 1.1}], "mix.wav@1-1.1: is 0.1 s long; a span has 0.2 s or more"),
        ([{"sound": mix, "start": 2.0, "end": 4.0}], "mix.wav@2-4: the recording ends at 3.0 s"),
        ([{"sound": "gone"}], "this sound is not here any more"),
        ([{"sound": silent}], "silent.wav: is silent, so it cannot serve as a query"),
        ([{"class": "dog"}], "holds no queries of classes"),
        ("x", "the request: key ask.0: expected keys with values"),
    ):
        found = p.separate(mix, ask)
        assert words in found["error"] and "\n" not in found["error"] and str(p.sounds.folder) not in found["error"]
    assert "format 'exe': is none of" in p.separate(mix, [{"sound": mix}], format="exe")["error"]
    assert "nothing says how likely" in p.separate(mix, [{"sound": mix}], gate=True)["error"]
    assert "mode 'each': is none of" in p.separate(mix, [{"sound": mix}], mode="each")["error"]
    assert "is not valid JSON" in p.ask("POST", "works", b"{")["error"]
    assert files(p) == 2


def test_cancelled_while_it_waits_and_while_it_runs(page, recordings):
    p = page(works=False)
    mix = p.send(recordings / "mix.wav")["id"]
    asked = {"recording": mix, "ask": [{"sound": mix}], "against": [], "mode": "mean", "format": "wav", "gate": False}
    waiting = p.works.ask(asked)[0]
    p.ask("DELETE", f"works/{waiting.id}")
    p.works.do(waiting, None)
    assert waiting.state == "cancelled"
    running = p.works.ask(asked)[0]
    assert running is not waiting
    assert files(p) == 1
    running.state = "running"
    source = W._Watched(ArraySource(np.zeros((1 << 17, 1), np.float32), 16000), running)
    blocks = source.blocks("float64")
    next(blocks), next(blocks)
    assert running.done == 0.5
    p.ask("DELETE", f"works/{running.id}")
    with pytest.raises(W.Cancelled):
        next(source.blocks())
    assert p.works.get(running.id) is running  # until it has ended


# ---- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, words", [(["--max_gb", "0"], "--max_gb 0: above 0"), (["--port", "99999"], "--port 99999: ")]
)
def test_wrong_options(bundles, capsys, more, words):
    with pytest.raises(SystemExit) as e:
        command("app", "--bundle", bundles["qsep"], "--no_browser", *more)
    assert e.value.code == 1 and f"error: {words}" in capsys.readouterr().err
