"""A Stream over a process of this machine: the program itself, or the client that reaches it."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge.devices.device import STALL_S, Device, Done, Ended, LinkLost
from edge.errors import DeviceError

_KEPT_ERR_BYTES = 1 << 16
_CHUNK = 1 << 17

# Raises when exit code and stderr say that the link broke rather than the program ended.
Judge = Callable[[int, bytes], None]


class Process:
    """`argv` as a `Stream`. What it writes before `begins` belongs to somebody's login script, and is dropped."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        judge: Judge = lambda code, err: None,
        begins: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._name, self._judge, self._begins = name, judge, begins
        try:
            # A session of its own: Ctrl-C is ours to handle, and must not tear the link down first.
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                start_new_session=True, bufsize=0,
            )  # fmt: skip
        except FileNotFoundError:
            raise DeviceError(f"{name} needs the program {argv[0]!r}, which is not installed here") from None
        assert self._popen.stdin
        assert self._popen.stdout
        self._in, self._out = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self._in, False)
        self._held = b""  # read, but not yet asked for
        self._err = bytearray()
        self._errors = threading.Thread(target=self._drain, daemon=True)
        self._errors.start()

    def write(self, data: bytes, timeout_s: float = STALL_S) -> None:
        if self._popen.stdin is None or self._popen.stdin.closed:
            # Its number may be another file's by now.
            raise LinkLost(f"{self._name}: the link was let go")
        view = memoryview(data)
        while view:
            if not select.select([], [self._in], [], timeout_s)[1]:
                self.kill()
                raise LinkLost(f"{self._name} took no data for {timeout_s:.0f} s: the link stalls")
            try:
                view = view[os.write(self._in, view[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise Ended(self._name, self.finish()) from None

    def read(self, most: int = 1 << 16, timeout_s: float | None = None) -> bytes:
        self._skip(timeout_s)
        if not self._held:
            return self._more(most, timeout_s)
        found, self._held = self._held[:most], self._held[most:]
        return found

    def readline(self, timeout_s: float | None = None) -> bytes:
        self._skip(timeout_s)
        while b"\n" not in self._held:
            more = self._more(1 << 16, timeout_s)
            if not more:
                break
            self._held += more
        line, end, self._held = self._held.partition(b"\n")
        return line + end

    def finish(self, timeout_s: float = STALL_S) -> Done:
        ends = time.monotonic() + timeout_s
        if self._popen.stdin and not self._popen.stdin.closed:
            self._popen.stdin.close()
        out = self._rest(ends, timeout_s)
        try:
            code = self._popen.wait(max(0.1, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            raise LinkLost(f"{self._name}: no end after {timeout_s:g} s") from None
        self._close()
        err = bytes(self._err)
        self._judge(code, err)
        return Done(128 - code if code < 0 else code, out, err)

    def talk(self, stdin: bytes, timeout_s: float) -> Done:
        """Feed it `stdin` while reading what it says: `run` of every kind of device."""
        feeding = threading.Thread(target=self._feed, args=(stdin, timeout_s), daemon=True)
        feeding.start()
        ends = time.monotonic() + timeout_s
        out = self._rest(ends, timeout_s)
        feeding.join(timeout_s)
        done = self.finish(max(1.0, ends - time.monotonic()))
        return Done(done.code, out, done.err)

    def _rest(self, ends: float, timeout_s: float) -> bytes:
        """What it still writes, until it ends or the clock says `ends`, which is `timeout_s` after it was asked."""
        out = bytearray()
        try:
            while chunk := self.read(timeout_s=max(0.0, ends - time.monotonic())):
                out += chunk
        except LinkLost:
            raise LinkLost(f"{self._name}: no end after {timeout_s:g} s") from None
        return bytes(out)

    def kill(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        self._close()

    def _feed(self, data: bytes, timeout_s: float) -> None:
        view = memoryview(data)
        try:
            while view and select.select([], [self._in], [], timeout_s)[1]:
                view = view[os.write(self._in, view[:_CHUNK]) :]
        except (OSError, ValueError):
            return  # it did not want to hear more; its exit code tells why
        finally:
            if self._popen.stdin:
                self._popen.stdin.close()

    def _skip(self, timeout_s: float | None) -> None:
        while self._begins:
            found = self._held.find(self._begins)
            if found >= 0:
                self._held, self._begins = self._held[found + len(self._begins) :], b""
                return
            more = self._more(1 << 16, timeout_s)
            if not more:
                self._held, self._begins = b"", b""
                return
            self._held += more

    def _more(self, most: int, timeout_s: float | None) -> bytes:
        if self._popen.stdout is None or self._popen.stdout.closed:
            return b""
        if not select.select([self._out], [], [], timeout_s)[0]:
            self.kill()
            raise LinkLost(f"{self._name}: no answer for {timeout_s:.0f} s")
        return os.read(self._out, most)

    def _drain(self) -> None:
        assert self._popen.stderr
        try:
            while chunk := self._popen.stderr.read(1 << 12):
                self._err += chunk
                del self._err[:-_KEPT_ERR_BYTES]
        except (OSError, ValueError):
            return

    def _close(self) -> None:
        self._errors.join(1.0)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe and not pipe.closed:
                pipe.close()


def send(device: Device, argv: Sequence[str], path: Path, remote: str) -> None:
    """`push` of every kind whose programs take stdin: a file to `argv`, which writes it to `remote`."""
    stream = device.open(argv)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            stream.write(chunk)
    done = stream.finish()
    if done.code:
        raise DeviceError(f"{device.address}: {remote} cannot be written: {done.reason}")


def receive(device: Device, remote: str, path: Path) -> None:
    """`pull` of every such kind: a file that appears when it is complete."""
    stream = device.open(["cat", remote])
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            while chunk := stream.read(timeout_s=STALL_S):
                file.write(chunk)
        done = stream.finish()
        if done.code:
            raise DeviceError(f"{device.address}: {remote} cannot be read: {done.reason}")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
