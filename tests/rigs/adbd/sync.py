"""`sync:`: push, pull, list and stat, as adbd does them.

What matters to whoever pushes onto a live path, from adbd's file_sync_service:

1. SEND removes what is there (a file or a link) before the first byte comes.
2. It then writes in place, under the final name. Nothing is hashed, nothing is flushed to the disk.
3. When the host goes away in the middle, the half-written file is removed too.
4. When adbd itself dies, half of a file stays under the final name.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

from tests.rigs.adbd.tree import Tree
from tests.rigs.adbd.wire import Lost, Stream

_CHUNK = 64 << 10  # what one DATA may carry
_STAT2 = struct.Struct("<IQQIIIIQqqq")


class Refused(Exception):
    """The host asked for something that cannot be done; it is told, and may go on."""


def serve(stream: Stream, tree: Tree) -> None:
    while True:
        command, length = _head(stream)
        if command == b"QUIT":
            return
        if length > 1024:
            raise Lost
        argument = stream.read(length).decode()
        try:
            _answer(stream, tree, command, argument)
        except Refused as err:
            words = str(err).encode()
            stream.write(b"FAIL" + struct.pack("<I", len(words)) + words)


def _answer(stream: Stream, tree: Tree, command: bytes, argument: str) -> None:
    if command == b"SEND":
        path, _, mode = argument.rpartition(",")
        _send(stream, tree, path, int(mode or "0644", 0))
    elif command == b"RECV":
        _receive(stream, tree.resolve(argument))
    elif command == b"STAT":
        found = _stat(tree.resolve(argument, follow=False))
        stream.write(b"STAT" + (_stat1(found) if isinstance(found, os.stat_result) else bytes(12)))
    elif command in (b"STA2", b"LST2"):
        stream.write(command + _stat2(_stat(tree.resolve(argument, follow=command == b"STA2"))))
    elif command in (b"LIST", b"LIS2"):
        _list(stream, tree.resolve(argument), new=command == b"LIS2")
    else:
        raise Lost


def _head(stream: Stream) -> tuple[bytes, int]:
    head = stream.read(8)
    return head[:4], int.from_bytes(head[4:], "little")


def _send(stream: Stream, tree: Tree, path: str, mode: int) -> None:
    target = tree.resolve(path, follow=False)
    if not tree.may_write(path):
        _skip(stream)
        raise Refused(f"couldn't create file: {os.strerror(errno.EACCES)}")
    replaced = not target.exists() or target.is_symlink() or target.is_file()
    if replaced:
        target.unlink(missing_ok=True)
    try:
        if stat.S_ISLNK(mode):
            _send_link(stream, tree, target)
        else:
            _send_file(stream, tree, target, mode)
    except Lost:
        if replaced:
            target.unlink(missing_ok=True)
        raise
    stream.write(b"OKAY" + bytes(4))


def _send_file(stream: Stream, tree: Tree, target: Path, mode: int) -> None:
    try:
        tree.make_folders(target.parent)
        file = os.open(target, os.O_WRONLY | os.O_CREAT, mode & 0o777)
    except OSError as err:
        _skip(stream)
        raise Refused(f"couldn't create file: {err.strerror}") from err
    failure: OSError | None = None
    try:
        tree.own(target)
        user = mode & 0o700
        os.fchmod(file, user | user >> 3 | user >> 6)
        while True:
            kind, size = _head(stream)
            if kind == b"DONE":
                break
            if kind != b"DATA" or size > _CHUNK:
                raise Lost
            data = stream.read(size)
            try:
                if failure is None:
                    os.write(file, data)
            except OSError as err:
                failure = err
    finally:
        os.close(file)
    if failure is not None:
        target.unlink(missing_ok=True)
        raise Refused(f"write failed: {failure.strerror}")
    os.utime(target, (size, size))  # of DONE, the size is the time


def _send_link(stream: Stream, tree: Tree, target: Path) -> None:
    kind, size = _head(stream)
    if kind != b"DATA":
        raise Lost
    points_to = stream.read(size).rstrip(b"\0")
    tree.make_folders(target.parent)
    os.symlink(points_to, target)
    _head(stream)


def _skip(stream: Stream) -> None:
    """Read and drop what the host still sends, as adbd does for old clients."""
    while True:
        kind, size = _head(stream)
        if kind != b"DATA":
            return
        stream.read(size)


def _receive(stream: Stream, path: Path) -> None:
    try:
        with path.open("rb") as f:
            while data := f.read(_CHUNK):
                stream.write(b"DATA" + struct.pack("<I", len(data)) + data)
    except OSError as err:
        raise Refused(f"open failed: {err.strerror}") from err
    stream.write(b"DONE" + bytes(4))


def _list(stream: Stream, folder: Path, *, new: bool) -> None:
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for entry in entries:
        found, name = entry.lstat(), os.fsencode(entry.name)
        head = b"DNT2" + _stat2(found) if new else b"DENT" + _stat1(found)
        stream.write(head + struct.pack("<I", len(name)) + name)
    stream.write(b"DONE" + bytes(_STAT2.size + 4 if new else 16))


def _stat(path: Path) -> os.stat_result | OSError:
    try:
        return path.lstat()
    except OSError as err:
        return err


def _stat1(found: os.stat_result) -> bytes:
    return struct.pack("<3I", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))


def _stat2(found: os.stat_result | OSError) -> bytes:
    if isinstance(found, OSError):
        return _STAT2.pack(found.errno or 0, *(10 * [0]))
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    return _STAT2.pack(
        0, found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size, *times
    )
