"""Files in one folder, and nowhere else: `--tools files` in this folder, `--tools files:/home/pi/notes` in that one."""

from __future__ import annotations

import fnmatch
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.runtimes.act import beneath
from edge.runtimes.act.ran import Place, ToolError
from edge.runtimes.act.words import cut, decoded

SETTINGS = {"folder": "."}
_READ_BYTES = 1 << 20
_LISTED = 200
_WALKED = 20_000


def list_files(place: Place, settings: Mapping[str, Any], folder: str = "") -> str:
    """Names in the folder, one a line; folders end with '/'."""
    with _open(settings, folder, os.O_RDONLY | os.O_DIRECTORY) as handle:
        found = sorted(f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name for e in os.scandir(handle))
    rest = f"\n… and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "\n".join(found[:_LISTED]) + rest or "(empty)"


def read_file(place: Place, settings: Mapping[str, Any], path: str) -> str:
    """What is in a text file."""
    with _open(settings, path, os.O_RDONLY) as handle:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ToolError(f"{path!r} is no file")
        data = _whole(handle)
    text = decoded(data)
    if text is None:
        raise ToolError(f"{path!r} holds no text, but {about.st_size} bytes of something else")
    return text + (f"\n… and {about.st_size - len(data)} bytes more" if about.st_size > len(data) else "")


def find_files(place: Place, settings: Mapping[str, Any], name: str = "*", text: str = "") -> str:
    """Paths of files whose name is like `name` and that hold `text`."""
    wanted = name if any(c in name for c in "*?[") else f"*{name}*"
    found = []
    for path in _walk(Path(settings["folder"])):
        if not fnmatch.fnmatch(path.rsplit("/", 1)[-1].lower(), wanted.lower()):
            continue
        if text and not _holds(settings, path, text):
            continue
        found.append(path)
        if len(found) == _LISTED:
            break
    return "\n".join(sorted(found)) or "no such file"


def write_file(place: Place, settings: Mapping[str, Any], path: str, text: str) -> str:
    """Make a file, or replace what is in it; after a loss of power it holds either all of the old or all of the new.

    Who may read and write it stays as it was.
    """
    data = text.encode()
    folder, _, name = beneath.checked(path).rpartition("/")
    with _open(settings, folder, os.O_RDONLY | os.O_DIRECTORY) as at:
        mode = _regular(name, at)
        part = f".{secrets.token_hex(8)}.part"
        with _or_not(f"{path!r} was not written"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(part, flags, 0o644 if mode is None else 0o600, dir_fd=at)
            try:
                if mode is not None:
                    os.fchmod(handle, mode)
                _put(handle, data)
                os.rename(part, name, src_dir_fd=at, dst_dir_fd=at)
            except OSError:
                os.unlink(part, dir_fd=at)
                raise
        os.fsync(at)
    return f"wrote {len(data)} bytes to {path}"


def append_file(place: Place, settings: Mapping[str, Any], path: str, text: str) -> str:
    """Add a line to the end of a file, which is made when there is none."""
    with _open(settings, path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as handle:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ToolError(f"{path!r} is no file")
        data = (text if text.endswith("\n") else f"{text}\n").encode()
        _put(handle, data, close=False)
    return f"added {len(data)} bytes to {path}"


def make_folder(place: Place, settings: Mapping[str, Any], path: str) -> str:
    """Make a folder."""
    folder, _, name = beneath.checked(path).rpartition("/")
    with _open(settings, folder, os.O_RDONLY | os.O_DIRECTORY) as at:
        try:
            with _or_not(f"{path!r} was not made"):
                os.mkdir(name, dir_fd=at)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=at).st_mode):
                raise ToolError(f"{path!r} is there already, and no folder") from None
    return f"{path} is there"


def move_file(place: Place, settings: Mapping[str, Any], path: str, to: str) -> str:
    """Give a file another name or folder; nothing that is there is replaced."""
    (folder, _, name), (other, _, new) = beneath.checked(path).rpartition("/"), beneath.checked(to).rpartition("/")
    directory = os.O_RDONLY | os.O_DIRECTORY
    with _open(settings, folder, directory) as at, _open(settings, other, directory) as there:
        _regular(name, at, must_exist=True)
        try:
            with _or_not(f"{path!r} was not moved"):
                os.link(name, new, src_dir_fd=at, dst_dir_fd=there, follow_symlinks=False)
        except FileExistsError:
            raise ToolError(f"{to!r} is there already") from None
        os.fsync(there)  # under its new name before it is gone from the old one
        os.unlink(name, dir_fd=at)
        os.fsync(at)
    return f"moved {path} to {to}"


def delete_file(place: Place, settings: Mapping[str, Any], path: str) -> str:
    """Delete one file. There is no way back."""
    folder, _, name = beneath.checked(path).rpartition("/")
    with _open(settings, folder, os.O_RDONLY | os.O_DIRECTORY) as at:
        _regular(name, at, must_exist=True)
        with _or_not(f"{path!r} was not deleted"):
            os.unlink(name, dir_fd=at)
        os.fsync(at)
    return f"deleted {path}"


FUNCTIONS = (list_files, read_file, find_files, write_file, append_file, make_folder, move_file, delete_file)


@contextmanager
def _open(settings: Mapping[str, Any], path: str, flags: int) -> Iterator[int]:
    handle = beneath.opened(Path(settings["folder"]), path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _or_not(words: str) -> Iterator[None]:
    """What the system refuses here has changed nothing, and is said so; that a name is taken is for the caller."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as err:
        raise ToolError(f"{words}: {err.strerror}") from err


def _regular(name: str, at: int, *, must_exist: bool = False) -> int | None:
    """The permissions of the file `name`, None when there is none.

    Raises `ToolError` unless it is a file proper; a link is none, wherever it leads.
    """
    try:
        found = os.lstat(name, dir_fd=at)
    except FileNotFoundError:
        if must_exist:
            raise ToolError(f"there is no file {name!r}") from None
        return None
    except OSError as err:
        raise ToolError(f"{name!r} cannot be looked for: {err.strerror}") from err
    if not stat.S_ISREG(found.st_mode):
        raise ToolError(f"{name!r} is there, and no file")
    return stat.S_IMODE(found.st_mode)


def _put(handle: int, data: bytes, *, close: bool = True) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        if close:
            os.close(handle)


def _whole(handle: int) -> bytes:
    data = bytearray()
    while len(data) <= _READ_BYTES and (piece := os.read(handle, _READ_BYTES + 1 - len(data))):
        data += piece
    # A character that was cut in half at the limit is no damage of the file.
    return cut(bytes(data), _READ_BYTES)


def _walk(folder: Path) -> Iterator[str]:
    """Paths of files beneath `folder`; no link is followed, and no more than so many are looked at."""
    seen = 0
    for at, folders, files, _ in os.fwalk(folder):
        folders.sort()
        for name in sorted(files):
            seen += 1
            if seen > _WALKED:
                return
            yield os.path.relpath(os.path.join(at, name), folder)


def _holds(settings: Mapping[str, Any], path: str, text: str) -> bool:
    try:
        with _open(settings, path, os.O_RDONLY) as handle:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return False
            found = decoded(_whole(handle))
    except ToolError:
        return False
    return found is not None and text.lower() in found.lower()
