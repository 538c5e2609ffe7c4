"""The wire between an adb server and a device: messages with a header of 24 bytes, and streams over them.

    command, arg0, arg1, length, checksum, command ^ 0xffffffff      little endian, then `length` bytes

Each side may have one unacknowledged WRTE per stream in flight. That is all the flow control there is:
a stream is acknowledged when what came over it was taken, so a slow device makes a slow host.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
AUTH_TOKEN, AUTH_SIGNATURE, AUTH_PUBLIC_KEY = 1, 2, 3
VERSION = 0x01000001  # from this version on nobody looks at checksums
MAX_PAYLOAD = 256 << 10
_HEADER = struct.Struct("<6I")


class Lost(Exception):
    """The host is gone, or has closed this stream."""


class Died(Exception):
    """The daemon itself was killed: whoever catches this cleans nothing up."""


@dataclass(frozen=True)
class Message:
    command: int
    arg0: int
    arg1: int
    data: bytes = b""


class Wire:
    """One connection's messages."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._sending = threading.Lock()

    def send(self, command: int, arg0: int, arg1: int, data: bytes = b"") -> None:
        header = _HEADER.pack(command, arg0, arg1, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        try:
            with self._sending:
                self._peer.sendall(header + data)
        except OSError as err:
            raise Lost from err

    def receive(self) -> Message:
        command, arg0, arg1, length, _checksum, magic = _HEADER.unpack(self._exactly(_HEADER.size))
        if magic != command ^ 0xFFFFFFFF or length > MAX_PAYLOAD:
            raise Lost
        return Message(command, arg0, arg1, self._exactly(length))

    def close(self) -> None:
        try:
            self._peer.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._peer.close()

    def _exactly(self, n: int) -> bytes:
        got = bytearray()
        while len(got) < n:
            try:
                piece = self._peer.recv(n - len(got))
            except OSError as err:
                raise Lost from err
            if not piece:
                raise Lost
            got += piece
        return bytes(got)


class Stream:
    """One service's two-way flow of bytes; reads and writes block."""

    def __init__(self, wire: Wire, local: int, remote: int) -> None:
        self._wire, self.local, self.remote = wire, local, remote
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._received = bytearray()
        self._owed = False  # whether what was received is still to be acknowledged
        self._may_send = True
        self._ended: type[Lost] | type[Died] | None = None

    def write(self, data: bytes) -> None:
        """Send all of it, each part once the one before was acknowledged."""
        with self._writing:
            for start in range(0, len(data), MAX_PAYLOAD):
                with self._changed:
                    self._changed.wait_for(lambda: self._may_send or self._ended)
                    if self._ended:
                        raise self._ended
                    self._may_send = False
                self._wire.send(WRTE, self.local, self.remote, data[start : start + MAX_PAYLOAD])

    def read(self, n: int) -> bytes:
        """Exactly `n` bytes."""
        with self._changed:
            while len(self._received) < n:
                self._wait()
            return self._take(n)

    def read_some(self) -> bytes:
        """What there is, at least a byte."""
        with self._changed:
            while not self._received:
                self._wait()
            return self._take(len(self._received))

    def close(self) -> None:
        """End it from this side, after everything written was acknowledged."""
        with self._changed:
            self._changed.wait_for(lambda: self._may_send or self._ended)
            if self._ended:
                return
            self._ended = Lost
            self._changed.notify_all()
        self._wire.send(CLSE, self.local, self.remote)

    def received(self, data: bytes) -> None:
        with self._changed:
            self._received += data
            self._owed = True
            self._changed.notify_all()

    def acknowledged(self) -> None:
        with self._changed:
            self._may_send = True
            self._changed.notify_all()

    def end(self, reason: type[Lost] | type[Died]) -> None:
        with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()

    def _wait(self) -> None:
        if self._ended:
            raise self._ended
        self._acknowledge()
        self._changed.wait()

    def _take(self, n: int) -> bytes:
        data = bytes(self._received[:n])
        del self._received[:n]
        if not self._received and not self._ended:
            self._acknowledge()
        return data

    def _acknowledge(self) -> None:
        if self._owed:
            self._owed = False
            self._wire.send(OKAY, self.local, self.remote)


class Owner(Protocol):
    """What a connection asks its device."""

    def welcome(self, connection: Connection, message: Message) -> None: ...
    def service(self, name: str) -> Callable[[Stream], None] | None: ...
    def passing(self, n_bytes: int) -> None: ...


class Connection:
    """One adb server talking to the device: reads messages until either side is gone."""

    def __init__(self, peer: socket.socket, owner: Owner) -> None:
        self.wire = Wire(peer)
        self._owner = owner
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._gone: type[Lost] | type[Died] | None = None

    def run(self) -> None:
        try:
            while True:
                self._handle(self.wire.receive())
        except (Lost, Died) as end:
            self.drop(type(end))

    def drop(self, reason: type[Lost] | type[Died] = Lost) -> None:
        """Cut the connection; its streams end with `reason`."""
        self._gone = self._gone or reason
        for stream in list(self._streams.values()):
            stream.end(self._gone)
        self.wire.close()

    def _handle(self, message: Message) -> None:
        if message.command in (CNXN, AUTH):
            self._owner.welcome(self, message)
        elif message.command == OPEN:
            self._open(message)
        elif (stream := self._streams.get(message.arg1)) is None:
            return  # about a stream that is closed already
        elif message.command == WRTE:
            self._owner.passing(len(message.data))
            stream.received(message.data)
        elif message.command == OKAY:
            stream.acknowledged()
        elif message.command == CLSE:
            self._streams.pop(message.arg1).end(Lost)

    def _open(self, message: Message) -> None:
        serve = self._owner.service(message.data.rstrip(b"\0").decode())
        if serve is None:
            self.wire.send(CLSE, 0, message.arg0)
            return
        stream = Stream(self.wire, self._next, message.arg0)
        self._next += 1
        self._streams[stream.local] = stream
        self.wire.send(OKAY, stream.local, stream.remote)
        threading.Thread(target=self._serve, args=(serve, stream), daemon=True).start()

    def _serve(self, serve: Callable[[Stream], None], stream: Stream) -> None:
        try:
            try:
                serve(stream)
            finally:
                stream.close()
        except (Lost, Died):
            pass
        finally:
            self._streams.pop(stream.local, None)
