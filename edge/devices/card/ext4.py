"""An ext4 file system in a file of its own, written by e2fsprogs: without root, and without mounting it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.bundle import sha256_of
from edge.devices.needs import Need
from edge.errors import EdgeError, InputError

NEED = Need("images of cards", ("debugfs", "e2fsck", "resize2fs", "dumpe2fs"), "-V", "apt-get install e2fsprogs")
_INODE_BYTES = 1024  # what a small file takes beside its blocks, generously
_MARGIN_BYTES = 32 << 20


class Ext4:
    """The file system in `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mend(self) -> None:
        """Replay its journal, and put right what can be without asking; `InputError` when that is not all."""
        code, said = _run(["e2fsck", "-fp", str(self.path)])
        if code not in (0, 1):
            raise InputError(f"the root file system is damaged: {_last(said)}", hint="take a fresh image")

    def whole(self) -> None:
        """`EdgeError` when anything is wrong with it."""
        code, said = _run(["e2fsck", "-fn", str(self.path)])
        if code:
            raise EdgeError(f"the root file system was not written well: {_last(said)}")

    @property
    def free_bytes(self) -> int:
        """What files may still take."""
        _, said = _run(["dumpe2fs", "-h", str(self.path)])
        numbers = {name: int(n) for name, n in re.findall(r"^(Free blocks|Reserved block count|Block size): +(\d+)$",
                                                          said, re.MULTILINE)}  # fmt: skip
        return (numbers["Free blocks"] - numbers["Reserved block count"]) * numbers["Block size"]

    def grow(self, size: int) -> None:
        """Make it fill `size` bytes."""
        os.truncate(self.path, size)
        code, said = _run(["resize2fs", str(self.path)])
        if code:
            raise EdgeError(f"the root file system cannot be grown: {_last(said)}")

    def read(self, name: str) -> bytes | None:
        """A file of it; `None` when there is none."""
        return read(str(self.path), name)

    def add(self, tree: Path, owners: Iterable[tuple[str, int]] = ()) -> None:
        """Everything below `tree`, at the same place; links between files stay links. Nothing there is written over.

        What lies at or below one of `owners` belongs to that user and group, all else to root. Raises `EdgeError`
        with the words of debugfs.
        """
        lines: list[str] = []
        first: dict[int, str] = {}
        counts: dict[str, int] = {}
        given = sorted(owners)
        for path in sorted(tree.rglob("*")):
            name = f"/{path.relative_to(tree).as_posix()}"
            info = path.lstat()
            parent, _, base = name.rpartition("/")
            if path.is_dir() and not path.is_symlink():
                if self.is_folder(name):
                    continue
                lines.append(f"mkdir {_quoted(name)}")
            elif path.is_symlink():
                lines.append(f"symlink {_quoted(name)} {_quoted(os.readlink(path))}")
            elif info.st_ino in first:
                lines.append(f"ln {_quoted(first[info.st_ino])} {_quoted(name)}")
                counts[first[info.st_ino]] = counts.get(first[info.st_ino], 1) + 1
                continue
            else:
                first[info.st_ino] = name
                lines += [f"cd {_quoted(parent or '/')}", f"write {_quoted(str(path))} {_quoted(base)}"]
            owner = next((user for place, user in given if f"{name}/".startswith(f"{place}/")), 0)
            lines += [f"sif {_quoted(name)} {field} {owner}" for field in ("uid", "gid")]
            if not path.is_symlink():
                lines.append(f"sif {_quoted(name)} mode 0{info.st_mode:o}")
        lines += [f"sif {_quoted(name)} links_count {count}" for name, count in counts.items()]
        self._do(lines)

    def compare(self, tree: Path) -> None:
        """`EdgeError` unless every file below `tree` reads there as it does here."""
        with tempfile.TemporaryDirectory(dir=self.path.parent) as work:
            tops = {path.relative_to(tree).parts[0] for path in tree.rglob("*")}
            self._do([f"rdump {_quoted(f'/{top}')} {_quoted(work)}" for top in sorted(tops)], write=False)
            for path in tree.rglob("*"):
                got = Path(work) / path.relative_to(tree)
                if (
                    path.is_file()
                    and not path.is_symlink()
                    and (not got.is_file() or sha256_of(got) != sha256_of(path))
                ):
                    raise EdgeError(f"/{path.relative_to(tree)} of the image is not what was written")

    def is_folder(self, name: str) -> bool:
        """Whether there is such a folder."""
        return "Type: directory" in _debugfs(str(self.path), [f"stat {_quoted(name)}"])[0]

    def _do(self, lines: Sequence[str], *, write: bool = True) -> None:
        _, said = _debugfs(str(self.path), lines, write=write)
        wrong = [
            line for line in said.splitlines() if line and not re.match(r"debugfs \d|Allocated inode|rdump: Op", line)
        ]
        if wrong:
            raise EdgeError(f"the image cannot be written: {wrong[0]:.300}")


def read(where: str, name: str) -> bytes | None:
    """A file of the file system at `where`, which may be `IMAGE?offset=BYTES`; `None` when there is none."""
    done = subprocess.run(
        ["debugfs", "-R", f"cat {_quoted(name)}", where], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return None if b"not found" in done.stderr or b"Bad magic" in done.stderr else done.stdout or None


def size_of(tree: Path) -> int:
    """What everything below `tree` takes at most, in bytes."""
    seen = {path.lstat().st_ino: path.lstat().st_size for path in tree.rglob("*")}
    return sum(size + size // 200 + 4096 + _INODE_BYTES for size in seen.values()) + _MARGIN_BYTES


def _quoted(text: str) -> str:
    if '"' in text or "\n" in text:
        raise InputError(f"{text!r} cannot be written into an image: it has a quote or a newline in its name")
    return f'"{text}"'


def _debugfs(where: str, lines: Sequence[str], *, write: bool = False) -> tuple[str, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs", encoding="utf-8") as commands:
        commands.write("".join(f"{line}\n" for line in lines))
        commands.flush()
        argv = ["debugfs", *(["-w"] if write else []), "-f", commands.name, where]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def _run(argv: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        argv, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def _last(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"])[-1][:300]


__all__ = ["NEED", "Ext4", "read", "size_of"]
