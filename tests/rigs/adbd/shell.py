"""`shell:`, `shell,v2:` and `exec:`: a command in the device's tree.

Version 2 frames everything: an id, a length of four bytes, and the data. Only it keeps standard error
apart and hands on the exit code.
"""

from __future__ import annotations

import os
import pty
import signal
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import IO

from tests.rigs.adbd.tree import Tree
from tests.rigs.adbd.wire import Died, Lost, Stream

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_CHUNK = 32 << 10


def parse(name: str) -> tuple[str, bool, bool]:
    """The command of a service's name, whether it speaks version 2, and whether it wants a terminal.

    >>> parse("shell,v2,TERM=xterm,raw:ls /")
    ('ls /', True, False)
    """
    head, _, command = name.partition(":")
    options = head.split(",")[1:]
    wants_terminal = head != "exec" and ("pty" in options or (not command and "raw" not in options))
    return command, "v2" in options, wants_terminal


def serve(stream: Stream, name: str, tree: Tree, started: Callable[[subprocess.Popen[bytes]], None]) -> None:
    """Run it to its end. As in adbd, that is when nobody holds its output open any more."""
    command, framed, terminal = parse(name)
    argv = tree.command(["/system/bin/sh", *(["-c", command] if command else [])])
    send = _framed(stream) if framed else lambda _id, data: stream.write(data)
    if terminal:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=tree.environment(), start_new_session=True
        )
        os.close(theirs)
        outputs, to_stdin = [(_STDOUT, os.fdopen(ours, "rb", buffering=0))], os.fdopen(os.dup(ours), "wb", buffering=0)
    else:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=tree.environment(), start_new_session=True,
            stderr=subprocess.PIPE if framed else subprocess.STDOUT, bufsize=0,
        )  # fmt: skip
        outputs = [(_STDOUT, process.stdout)] + ([(_STDERR, process.stderr)] if framed else [])
        to_stdin = process.stdin
    started(process)
    threading.Thread(target=_feed, args=(stream, to_stdin, process, framed), daemon=True).start()
    pumps = [threading.Thread(target=_drain, args=(send, number, pipe), daemon=True) for number, pipe in outputs]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    code = process.wait()
    if framed:
        send(_EXIT, bytes([code if code >= 0 else 128 - code]))


def _framed(stream: Stream) -> Callable[[int, bytes], None]:
    return lambda number, data: stream.write(struct.pack("<BI", number, len(data)) + data)


def _drain(send: Callable[[int, bytes], None], number: int, pipe: IO[bytes]) -> None:
    try:
        while data := os.read(pipe.fileno(), _CHUNK):
            send(number, data)
    except (Lost, Died, OSError):  # a terminal ends with an error
        pass
    finally:
        pipe.close()


def _feed(stream: Stream, pipe: IO[bytes], process: subprocess.Popen[bytes], framed: bool) -> None:
    """Hand on what the host writes; hang up when it is gone."""
    try:
        while True:
            if not framed:
                pipe.write(stream.read_some())
                continue
            number, length = struct.unpack("<BI", stream.read(5))
            data = stream.read(length)
            if number == _STDIN:
                _write(pipe, data)
            elif number == _CLOSE_STDIN:
                pipe.close()
    except (OSError, ValueError):
        pass  # the command has closed its input
    except (Lost, Died):
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGHUP)
            except ProcessLookupError:
                pass
        pipe.close()


def _write(pipe: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) or 0 :]
