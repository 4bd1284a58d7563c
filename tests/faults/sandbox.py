"""A copy of the tiny project that is put right after each use, by what has changed in it."""

import os
import shutil
from pathlib import Path


def tree(top: Path) -> dict[str, tuple]:
    """Relative path -> what tells a change, of everything below `top`; folders too."""
    found, stack = {}, [""]
    while stack:
        folder = stack.pop()
        with os.scandir(os.path.join(top, folder)) as entries:
            for e in entries:
                path = os.path.join(folder, e.name)
                if e.is_dir(follow_symlinks=False):
                    found[path] = ("folder",)
                    stack.append(path)
                elif e.is_symlink():
                    found[path] = ("link", os.readlink(e.path))
                else:
                    st = e.stat()
                    found[path] = (st.st_mode, st.st_size, st.st_mtime_ns)
    return found


class Sandbox:
    """The project `world` at `path`."""

    def __init__(self, world: Path, path: Path):
        self.world, self.path = world, path
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(world, path, symlinks=True)
        self.good = tree(path)

    def changed(self) -> list[str]:
        """Paths that are new, gone or other than in the project."""
        now = tree(self.path)
        return sorted(p for p in now.keys() | self.good.keys() if now.get(p) != self.good.get(p))

    def restore(self) -> None:
        for name in self.changed():
            path = self.path / name
            if path.is_dir() and not path.is_symlink() and self.good.get(name) != ("folder",):
                shutil.rmtree(path)
            elif path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
        for name, what in sorted(self.good.items()):
            path = self.path / name
            if what == ("folder",):
                path.mkdir(exist_ok=True)
            elif not os.path.lexists(path):
                shutil.copy2(self.world / name, path, follow_symlinks=False)

    def without(self, patterns: str) -> None:
        """Remove what a stage makes."""
        for pattern in patterns.split():
            for path in self.path.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
