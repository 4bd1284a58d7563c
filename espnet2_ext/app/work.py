"""Separations that the page asks for, one after the other, by the functions of `espnet2-ext separate`."""

import itertools
import json
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_ext.app.sounds import Kept, Sounds
from espnet2_ext.audio.streams import FORMATS, Source, open_source
from espnet2_ext.errors import DataError, explain
from espnet2_ext.infer import jobs as J
from espnet2_ext.infer.queries import Span
from espnet2_ext.infer.vectors.class_queries import PREFIX
from espnet2_ext.util.documents import check

_ITEM = {"sound?": str, "start?": float, "end?": float, "class?": str}  # a sound, a span of one, or a class
_SHAPE = {"recording": str, "ask": [_ITEM], "against": [_ITEM], "mode": str, "format": str, "gate": bool}
MODES = ("mean", "nearest")  # of those of `separate --mode` what gives one target
ENDED = ("done", "failed", "cancelled")


class Cancelled(Exception):
    """The user does not want it any more."""


@dataclass
class Work:
    """A separation. state: waiting, running, done, failed or cancelled; done: share of the recording."""

    id: str
    asked: dict
    recording: Kept
    state: str = "waiting"
    done: float = 0.0
    error: str = ""
    notes: list[str] = field(default_factory=list)
    tracks: list[dict] = field(default_factory=list)
    cancelled: bool = False

    def about(self) -> dict:
        """What the page knows of it."""
        shown = ("id", "asked", "state", "done", "error", "notes", "tracks")
        return {name: getattr(self, name) for name in shown}


class Works:
    """All separations of a page; `run` does them, in the thread that calls it.

    Args:
        task: of the model: `qsep` answers queries, `weak` gives all of its classes.
    """

    def __init__(self, sounds: Sounds, task: str):
        self.sounds, self.task = sounds, task
        self._works: dict[str, Work] = {}
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._waiting: queue.SimpleQueue[Work] = queue.SimpleQueue()

    def ask(self, asked: Any) -> tuple[Work, bool]:
        """Begin a separation, and whether the same was begun before: then it is that.

        Raises:
            DataError: a request of another shape, a span that is none, a sound that is not here.
        """
        check(asked, _SHAPE, "the request")
        if f".{asked['format']}" not in FORMATS:
            raise DataError(f"format {asked['format']!r}: is none of {', '.join(FORMATS)}")
        if asked["mode"] not in MODES:
            raise DataError(f"mode {asked['mode']!r}: is none of {', '.join(MODES)}")
        if self.task == "qsep" and not asked["ask"]:
            raise DataError("nothing is asked for: mark a span, add an example or choose a class")
        if self.task == "weak" and asked["ask"] + asked["against"]:
            raise DataError("this model knows classes and takes no query")
        for item in asked["ask"] + asked["against"]:
            self._query(item)
        recording = self._sound(asked["recording"])
        with self._lock:
            for work in self._works.values():
                if work.asked == asked and work.state not in ("failed", "cancelled"):
                    return work, True
            work = Work(str(next(self._numbers)), asked, recording)
            self._works[work.id] = work
        self._waiting.put(work)
        return work, False

    def get(self, name: str) -> Work:
        """Raises a KeyError for one that is not here."""
        return self._works[name]

    def all(self) -> list[Work]:
        """In the order in which they were asked for."""
        return list(self._works.values())

    def drop(self, name: str) -> None:
        """Cancel a separation that is not done; forget one that is, with its sounds."""
        work = self.get(name)
        with self._lock:
            work.cancelled = True
            if work.state == "waiting":
                work.state = "cancelled"
            if work.state in ENDED:
                self._works.pop(name, None)
        for track in work.tracks:
            self.sounds.drop(track["id"])

    # ---- what is asked for -----------------------------------------------------------------------

    def _sound(self, name: str) -> Kept:
        try:
            return self.sounds.get(name)
        except KeyError:
            raise DataError("this sound is not here any more; drop it again") from None

    def _query(self, item: dict, shown: bool = False) -> str:
        """A query as the command line takes it; shown: with the sound's title in place of its path."""
        if name := item.get("class"):
            return f"{PREFIX}{name}"
        sound = self._sound(item.get("sound", ""))
        path = Path(sound.title) if shown else sound.path
        if "start" in item or "end" in item:
            try:
                return str(Span(path, item.get("start", 0.0), item.get("end", 0.0)))
            except DataError as e:
                raise DataError(self.sounds.titled(str(e))) from e
        return str(path)

    # ---- the work --------------------------------------------------------------------------------

    def run(self, separator) -> None:
        """Do what is waiting, with a `Separator` or a `WeakSeparator`, for ever."""
        while True:
            self.do(self._waiting.get(), separator)

    def do(self, work: Work, separator) -> None:
        """Do one of them; whatever comes of it is said in it."""
        with self._lock:
            if work.cancelled:
                return
            work.state = "running"
        told = _Told(work.notes)
        logging.getLogger().addHandler(told)
        try:
            found = self._separate(work, separator)
            work.tracks = [{**self.sounds.add(path, name).about(), **more} for name, path, more in found]
            state, work.done = "done", 1.0
        except Cancelled:
            state = "cancelled"
        except Exception as e:
            state, work.error = "failed", explain(e) or "an error of the program; its terminal says more"
            if explain(e) is None:
                logging.exception("separation %s", work.id)
        finally:
            logging.getLogger().removeHandler(told)
        work.error, *work.notes = map(self.sounds.titled, [work.error, *work.notes])
        with self._lock:
            work.state = state

    def _separate(self, work: Work, separator) -> list[tuple[str, Path, dict]]:
        """Name and file of each output, and the residual as the last; and how likely its sound is in the recording."""
        asked, mix = work.asked, work.recording
        source = _Watched(open_source(mix.path), work)
        weak = self.task == "weak"
        names = [*(separator.outputs if weak else ["target"]), "rest"]
        *outs, rest = (self.sounds.new_path(f".{asked['format']}") for _ in names)
        job = J.Job(mix.path, outs, rest)
        gate = separator.threshold if asked["gate"] else None
        if asked["gate"] and gate is None:
            raise DataError("nothing says how likely a sound is, of this model; `espnet2-ext calibrate` measures it")
        if weak:
            notes = J.Origin.of_classes(separator.model_hash, separator.outputs, gate).notes(job)
            more = (rest,)
        else:
            queries, others = ([self._query(item) for item in asked[key]] for key in ("ask", "against"))
            ask = separator.ask(queries, others, asked["mode"])
            notes = J.Origin.of_queries(separator.model_hash, [queries], None, others, ask.nearest, gate).notes(job)
            more = (ask, rest)
        for note in notes:
            note["mixture"] = mix.title
            if "query" in note:
                note["query"] = [self._query(item, shown=True) for item in asked["ask"]][:9]
        done = separator.separate_to(source, outs, *more, comments=[json.dumps(note) for note in notes], gate=gate)
        presence = [*done.presence, *[None] * len(names)]
        return [(name, path, {"name": name, "presence": p}) for name, path, p in zip(names, job.paths, presence)]


class _Told(logging.Handler):
    """Keeps the warnings of this thread."""

    def __init__(self, notes: list[str]):
        super().__init__(logging.WARNING)
        self.notes, self.thread = notes, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.notes.append(record.getMessage())


class _Watched:
    """A recording that says how far its separation is, and ends it when the user has cancelled it.

    The residual is made of float64 samples, which are read as the estimates come: these are counted.
    """

    def __init__(self, source: Source, work: Work):
        self.source, self.work = source, work

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def blocks(self, dtype: str = "float32") -> Iterator[np.ndarray]:
        """See `Source`."""
        done = 0
        for x in self.source.blocks(dtype):
            if self.work.cancelled:
                raise Cancelled
            yield x
            done += len(x)
            if dtype == "float64":
                self.work.done = done / self.source.frames
