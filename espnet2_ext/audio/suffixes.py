"""Which files of a folder are sound: by their suffixes, and what is left out is counted."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

NATIVE = frozenset(
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mpga .aif .aiff .aifc .au .snd .caf .voc .sph .nist "
    ".ircam .sf .svx .8svx .iff .avr .paf .pvf .xi .sds .wve .htk .mat4 .mat5 .mpc2k .sd2 .wavex".split()
)
WITH_AV = frozenset(
    ".m4a .m4b .mp4 .m4v .mov .3gp .3g2 .aac .webm .weba .mkv .mka .wma .wmv .asf .avi .flv .mpg .mpeg .mts .m2ts .amr "
    ".ac3 .eac3 .wv .ape .ogv .spx".split()
)
SUFFIXES = NATIVE | WITH_AV

KNOWN = "WAV, FLAC, Ogg, MP3, AIFF, CAF, AU; with the package av also MP4 (m4a), WebM and other video"


def sound_files(folder: Path, more: Iterable[str] = ()) -> list[Path]:
    """Files of a folder with a suffix of sound or of `more`, sorted; others are counted in a line of the log."""
    names = [p for p in sorted(folder.iterdir()) if not p.is_dir() and not p.name.startswith(".")]
    found = [p for p in names if p.is_file() and p.suffix.lower() in SUFFIXES.union(more)]
    left_out(folder, set(names).difference(found))
    return found


def left_out(folder: object, paths: Iterable[str | os.PathLike]) -> None:
    """Count in a line of the log the files of a folder that are not read, by suffix."""
    counts = Counter(_kind_of(os.fspath(path)) for path in paths)
    if counts:
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
        _warn_once(f"{folder}: left out, no known suffix of a sound file: {listed}")


def _kind_of(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    return "broken link" if suffix in SUFFIXES and not os.path.exists(path) else suffix or os.path.basename(path)


@functools.cache
def _warn_once(text: str) -> None:
    logging.warning("%s", text)
