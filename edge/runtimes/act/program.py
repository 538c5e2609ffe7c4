"""Running a program of a tool: without a shell, confined, limited in time, memory and output, and to its very end."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.runtimes.act import confinement, interpreter
from edge.runtimes.act.manifest import Paths
from edge.runtimes.act.ran import Ran
from edge.runtimes.act.words import cut

# A program sees this and what its manifest gives it: nobody's keys, nobody's settings.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
_WORKER = Path(__file__).with_name("confined_worker.py")
_FILE_BYTES = 256 << 20
_ERROR_BYTES = 4 << 10
_GRACE_S = 3.0


def launched(
    argv: Sequence[str],
    *,
    paths: Paths,
    network: bool,
    memory_bytes: int,
    cpu_s: int,
    env: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> tuple[list[str], bytes]:
    """The command line that runs `argv` within its bounds, and what it must be given first on its standard input.

    A file descriptor to tell on is to be added to the command line.
    """
    read = [os.path.realpath(path) for path in paths.read]
    write = [os.path.realpath(path) for path in paths.write]
    how = confinement.by()
    if how == "bubblewrap":
        argv = confinement.bubblewrapped(argv, read, write, network=network)
    wanted = {
        "argv": list(argv), "parent": os.getpid(), "program": argv[0], "env": {**ENVIRONMENT, **(env or {})},
        "folder": folder or next((path for path in (*write, *read) if Path(path).is_dir()), "/"),
        "memory_bytes": memory_bytes, "file_bytes": _FILE_BYTES, "cpu_s": cpu_s,
        "read": read, "write": write, "network": network, "confine": how if how == "landlock" else "",
    }  # fmt: skip
    # Not as an argument: everybody on the machine can read those, keys in `env` too, and long ones are refused.
    bounds = json.dumps(wanted).encode()
    return [*interpreter.argv(), "-I", "-S", str(_WORKER), str(len(bounds))], bounds


def run(
    argv: Sequence[str],
    *,
    paths: Paths,
    network: bool,
    timeout_s: float,
    memory_bytes: int,
    output_bytes: int,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Run `argv` (its first word a path) to its end, or stop it and all that it started."""
    status_out, status_in = os.pipe()
    launch, bounds = launched(
        argv, paths=paths, network=network, memory_bytes=memory_bytes, cpu_s=int(timeout_s) + 2, env=env
    )  # fmt: skip
    try:
        process = subprocess.Popen(
            [*launch, str(status_in)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=(status_in,), start_new_session=True, env={}, bufsize=0,
        )  # fmt: skip
    except OSError as err:
        os.close(status_out)
        return Ran(False, b"", f"it could not be started: {err.strerror}")
    finally:
        os.close(status_in)
    try:
        return _followed(process, bounds + stdin, timeout_s, output_bytes, status_out)
    finally:
        _stop(process)
        os.close(status_out)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe and not pipe.closed:
                pipe.close()


def _followed(process: subprocess.Popen, stdin: bytes, timeout_s: float, output_bytes: int, status: int) -> Ran:
    ends = time.monotonic() + timeout_s
    given, said, complained = process.stdin, process.stdout, process.stderr
    assert given
    assert said
    assert complained
    out, err, open_ = bytearray(), bytearray(), 2
    waiting = memoryview(stdin)
    late = f"it was stopped after {timeout_s:g} s without having ended"
    with selectors.DefaultSelector() as selector:
        selector.register(said, selectors.EVENT_READ)
        selector.register(complained, selectors.EVENT_READ)
        os.set_blocking(given.fileno(), False)
        selector.register(given, selectors.EVENT_WRITE)
        while open_:
            left = ends - time.monotonic()
            if left <= 0:
                return Ran(False, bytes(out), late, ended=False)
            for key, _ in selector.select(left):
                if key.fileobj is given:
                    waiting = _written(key.fd, waiting)
                    if not waiting:
                        selector.unregister(given)
                        given.close()
                    continue
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    selector.unregister(key.fileobj)
                    open_ -= 1
                elif key.fileobj is complained:
                    err = (err + piece)[-_ERROR_BYTES:]
                elif len(out := out + piece) > output_bytes:
                    why = f"it was stopped: more than {output_bytes} bytes of output"
                    return Ran(False, cut(bytes(out), output_bytes), why, ended=False)
    try:
        process.wait(max(0.1, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Ran(False, bytes(out), late, ended=False)
    return _judged(bytes(out), bytes(err), os.read(status, 1 << 12))


def _judged(out: bytes, err: bytes, status: bytes) -> Ran:
    """What the worker's word means."""
    if not status:
        return Ran(False, out, "what was to confine it has died", ended=False)
    told: dict[str, Any] = json.loads(status)
    said = err.decode("utf-8", errors="replace").strip().splitlines()
    tail = f": {said[-1][:300]}" if said else ""
    if "error" in told:
        return Ran(False, out, f"it could not be started: {told['error']}")
    if "signal" in told:
        return Ran(False, out, f"it crashed ({_called(told['signal'])}){tail}", ended=False)
    if told["exit"]:
        return Ran(False, out, f"it ended with exit code {told['exit']}{tail}")
    return Ran(True, out)


def _called(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # those for real time have no names


def _written(handle: int, waiting: memoryview) -> memoryview:
    try:
        return waiting[os.write(handle, waiting[: 1 << 16]) :]
    except BlockingIOError:
        return waiting
    except BrokenPipeError:
        return waiting[:0]  # it does not want to hear more


def _stop(process: subprocess.Popen) -> None:
    """End the worker, which ends all that it started; if it does not, its process group."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
