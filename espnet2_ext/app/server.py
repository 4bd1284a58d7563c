"""The page and what it asks for, by HTTP on 127.0.0.1.

All addresses begin with a key that is drawn at each start. A request is answered if its `Host` is this machine's own
name (another one that resolves to it may belong to anybody) and, where something is changed, its `Origin` is the page.
A sound is sent as it is, and kept under a name of ours.
"""

import json
import logging
import re
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from espnet2_ext.app.sounds import PIECE, Kept, Sounds, Wav
from espnet2_ext.app.work import Works
from espnet2_ext.errors import DataError, explain
from espnet2_ext.util.documents import parse_json

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
MOST_JSON = 1 << 16  # bytes of a request
LENGTH = re.compile(r"[0-9]{1,15}")
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]*)?")
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
POLICY += "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """The page's server.

    Args:
        model: what the page says of the model: `task`, `classes`, `ready` and others.
        port: 0 for a free one.
    """

    daemon_threads = True

    def __init__(self, sounds: Sounds, works: Works, model: dict, port: int = 0):
        self.sounds, self.works, self.model = sounds, works, model
        self.key = secrets.token_urlsafe(12)
        super().__init__((ADDRESS, port), _Handler)
        self.url = f"http://{ADDRESS}:{self.server_port}/{self.key}/"

    def server_bind(self) -> None:
        """As the parent's, which looks the address up by its name: without a network that may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone is no error."""


class _Refused(Exception):
    """A request that is not answered, with its status."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version, server_version, sys_version = "HTTP/1.1", "espnet2-ext", ""
    timeout = 60  # seconds without a byte

    def do_GET(self) -> None:
        """See `_answer`."""
        self._answer()

    do_POST = do_DELETE = do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""

    # ---- who asks --------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Answer a request; what is wrong with it is a line of JSON."""
        self._begun = False
        length = self.headers.get("Content-Length", "" if self.command == "POST" else "0")
        known = LENGTH.fullmatch(length) and "Transfer-Encoding" not in self.headers
        self._unread = int(length) if known else -1  # bytes of the request; -1: not known
        try:
            self._route(*self._checked())
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except _Refused as e:
            self._say({"error": str(e)}, e.status)
        except KeyError:
            self._say({"error": "this is not here any more; reload the page"}, 404)
        except Exception as e:
            if (text := explain(e)) is None:
                logging.exception("%s", self.path)
            self._say({"error": text or "an error of the program; its terminal says more"}, 400 if text else 500)

    def _checked(self) -> tuple[str, list[str], dict[str, str]]:
        """Method, parts of the path behind the key, and the query."""
        host = self.headers.get("Host", "")
        if re.sub(r":\d+$", "", host) not in HOSTS:
            raise _Refused(403, f"this page is at {ADDRESS} only")
        if self.command not in ("GET", "HEAD") and self.headers.get("Origin") != f"http://{host}":
            raise _Refused(403, "sent by another page")
        url = urlsplit(self.path)
        key, *parts = url.path.removeprefix("/").split("/")
        if not secrets.compare_digest(key.encode(), self.server.key.encode()) or not parts:
            raise _Refused(404, "the address is the one that `espnet2-ext app` has printed")
        return self.command.replace("HEAD", "GET"), parts, dict(parse_qsl(url.query))

    def _route(self, method: str, parts: list[str], query: dict[str, str]) -> None:
        sounds, works = self.server.sounds, self.server.works
        match method, parts:
            case "GET", [name] if name in FILES:
                page = Path(__file__).with_name(name or "page.html").read_bytes()
                self._send(page, f"{FILES[name]}; charset=utf-8")
            case "GET", ["state"]:
                limits = {"bytes": sounds.limits.bytes, "seconds": sounds.limits.seconds}
                done = {"sounds": [s.about() for s in sounds.all()], "works": [w.about() for w in works.all()]}
                self._say({"model": self.server.model, "limits": limits, **done})
            case "POST", ["sounds"]:
                kept, again = sounds.take(self._read, self._length(), query.get("title", ""))
                self._say({**kept.about(), "again": again})
            case "DELETE", ["sounds", name]:
                self._say({"dropped": sounds.drop(name) is None})
            case "GET", ["sounds", name, "picture"]:
                kept = sounds.get(name)
                span = [round(_seconds(query, key) * kept.source.fs) for key in ("start", "end")]
                self._send(sounds.picture(name, *span), "application/octet-stream")
            case "GET", ["sounds", name, "listen"]:
                self._listen(sounds.get(name))
            case "GET", ["sounds", name, "file"]:
                self._file(sounds.get(name).path)
            case "POST", ["works"]:
                asked = parse_json(self._read(self._length(MOST_JSON)), "the request")
                work, again = works.ask(asked)
                self._say({**work.about(), "again": again})
            case "GET", ["works", name]:
                self._say(works.get(name).about())
            case "DELETE", ["works", name]:
                self._say({"dropped": works.drop(name) is None})
            case _:
                raise _Refused(404, "no such address")

    # ---- what comes ------------------------------------------------------------------------------

    def _length(self, most: float = float("inf")) -> int:
        if self._unread < 0:
            raise _Refused(411, "how long it is must be said before it is sent (Content-Length)")
        if self._unread > most:
            raise _Refused(413, f"has {self._unread} bytes, this takes {most}")
        return self._unread

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(min(size, self._unread))
        self._unread -= len(data)
        return data

    # ---- what goes -------------------------------------------------------------------------------

    def _begin(self, status: int, kind: str, size: int, **more: str) -> bool:
        """Send the headers; whether a body is wanted."""
        self._begun = True
        self.close_connection = self.close_connection or self._unread != 0  # what nobody read would be taken for more
        self.send_response(status)
        close = {"Connection": "close"} if self.close_connection else {}
        facts = {"Content-Type": kind, "Content-Length": str(size), **more, **HEADERS, **close}
        for name, value in facts.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        return self.command != "HEAD"

    def _send(self, data: bytes, kind: str, status: int = 200) -> None:
        if self._begin(status, kind, len(data)):
            self.wfile.write(data)

    def _say(self, value: dict, status: int = 200) -> None:
        if self._begun:  # too late to say anything
            self.close_connection = True
            return
        self._send(json.dumps(value).encode(), "application/json", status)

    def _listen(self, kept: Kept) -> None:
        """A WAV, or the part of it that is asked for."""
        wav = Wav(kept.source)
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1, wav.size) if asked and asked[2] else wav.size
        if start >= end:
            raise _Refused(416, f"has {wav.size} bytes")
        more = {"Accept_Ranges": "bytes"}
        if asked:
            more["Content_Range"] = f"bytes {start}-{end - 1}/{wav.size}"
        if self._begin(206 if asked else 200, "audio/wav", end - start, **more):
            for data in wav.blocks(start, end):
                self.wfile.write(data)

    def _file(self, path: Path) -> None:
        with open(path, "rb") as f:
            size = path.stat().st_size
            if self._begin(200, "application/octet-stream", size, Content_Disposition="attachment"):
                while data := f.read(PIECE):
                    self.wfile.write(data)


def _seconds(query: dict[str, str], key: str) -> float:
    if not SECONDS.fullmatch(query.get(key, "")):
        raise DataError(f"{key}: should be a number of seconds, not {query.get(key, '')!r}")
    return float(query[key])
