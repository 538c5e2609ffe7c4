"""Opening files beneath a folder, and never elsewhere: not by `..`, links, or something that is swapped meanwhile.

The kernel itself resolves the path (openat2), so nothing can change between a check and its use. Where a kernel lacks
it (before 5.6), no link is followed at all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path, PurePosixPath

from edge.runtimes.act.ran import ToolError

_OPENAT2 = 437  # the same on every architecture
_NO_MAGICLINKS, _BENEATH = 0x02, 0x08
_TRIES = 8  # the kernel asks to try again when something was renamed meanwhile


def opened(folder: Path, path: str, flags: int, mode: int = 0o644) -> int:
    """A file descriptor of `path` beneath `folder`. Raises `ToolError` when it leads out, or cannot be opened."""
    parts = checked(path)
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise ToolError(f"the folder {folder} cannot be opened: {err.strerror}") from err
    try:
        return _resolved(root, parts, flags, mode)
    except OSError as err:
        if err.errno in (errno.EXDEV, errno.ELOOP):
            raise ToolError(f"{path!r} leads out of the folder, or over a link") from err
        raise ToolError(f"{path!r}: {(err.strerror or 'cannot be opened').lower()}") from err
    finally:
        os.close(root)


def checked(path: str) -> str:
    """`path` as one that stays beneath its folder by its words alone. Raises `ToolError` for one that does not."""
    if "\0" in path or len(path) > 1000:
        raise ToolError("that is no path")
    pure = PurePosixPath(path or ".")
    if pure.is_absolute() or ".." in pure.parts:
        raise ToolError(f"{path!r} is not beneath the folder: paths are relative to it, without '..'")
    return str(pure)


def _resolved(root: int, path: str, flags: int, mode: int) -> int:
    how = struct.pack("QQQ", flags, mode if flags & os.O_CREAT else 0, _BENEATH | _NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(_TRIES):
        found = libc.syscall(_OPENAT2, root, os.fsencode(path), how, ctypes.c_size_t(len(how)))
        if found >= 0:
            return found
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EPERM):
            return _walked(root, path, flags, mode)
        if code != errno.EAGAIN:
            raise OSError(code, os.strerror(code))
    raise OSError(errno.EAGAIN, "something is renaming folders all the time")


def _walked(root: int, path: str, flags: int, mode: int) -> int:
    """One folder after another, over no link."""
    *folders, last = PurePosixPath(path).parts or (".",)
    at = os.dup(root)
    try:
        for name in folders:
            deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = deeper
        return os.open(last, flags | os.O_NOFOLLOW, mode, dir_fd=at)
    finally:
        os.close(at)
