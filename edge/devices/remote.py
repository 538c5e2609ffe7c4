"""A bundle that runs on a device, opened here: words become tokens on this machine, tokens are computed on that one.

Only ids, and pictures, go over the link; the tokenizer and the template are the bundle's own, kept here by hash.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.devices import installed
from edge.devices.device import Device, Ended, LinkLost, Stream
from edge.devices.store import Store
from edge.devices.words import died, line, said_well
from edge.errors import EdgeError, UsageError
from edge.runtimes.model import Message, Model, Piece, Reading, Stats
from edge.runtimes.session import ContextFull, Mask, Sampling
from edge.runtimes.sight import Prompt, image_parts, source_of

_LOAD_S = 900.0
_TOKEN_S = 600.0  # reading a long prompt on a slow device says how far it is, chunk by chunk
_STOP_S = 60.0


class _Far:
    """The session of a model that is elsewhere: how much it holds is known, its logits are not here."""

    def __init__(self, context_length: int, vocab_size: int) -> None:
        self.context_length, self.vocab_size = context_length, vocab_size
        self.held = 0

    @property
    def position(self) -> int:
        return self.held

    def feed(self, tokens: Any) -> Any:
        raise UsageError("the logits of a model on a device stay there", hint="open the bundle here to see them")

    feed_all = feed_embeddings = rewind = feed

    def close(self) -> None:
        pass


class RemoteModel(Model):
    """As `Model`, over a worker's pipes.

    A link that breaks, or a worker that dies, ends the answer with an error; the conversation is kept here, and
    the next question starts the worker anew with `start`.
    """

    def __init__(self, folder: Path, bundle: Bundle, start: Callable[[], tuple[Stream, int]], where: str) -> None:
        self._far = _Far(bundle.context_length, bundle.vocab_size)
        super().__init__(folder, bundle, self._far)
        self._start, self._where = start, where
        self._stream: Stream | None
        self._stream, self._far.context_length = start()
        self._shown: dict[str, bytes] = {}  # pictures by the hash of their pixels, as they were given

    def prompt(self, messages: str | Sequence[Message], *, tools: Any = None) -> Prompt:
        prompt = super().prompt(messages, tools=tools)
        for part in image_parts(messages) if not isinstance(messages, str) else ():
            if (key := self.sight.look(part).sha256) not in self._shown:
                self._shown[key] = _bytes(source_of(part))
        return prompt

    def generate_ids(
        self,
        prompt: Sequence[int],
        sampling: Sampling | None = None,
        *,
        mask: Mask | None = None,
        reading: Reading | None = None,
    ) -> Iterator[Piece]:
        if mask is not None:
            raise UsageError("answers on a device cannot be masked from here", hint="open the bundle here")
        prompt = prompt if isinstance(prompt, Prompt) else Prompt(prompt)
        if len(prompt) > self.context_length:
            raise ContextFull(0, len(prompt), self.context_length)
        pictures = [base64.b64encode(self._shown[p.seen.sha256]).decode() for p in prompt.pictures]
        self.stats = None
        asked = asdict(sampling or Sampling())
        self._ask(do="generate", ids=list(prompt), sampling=asked, pictures=pictures, lookup=self.looks_up)
        words, waited_for = self.tokenizer.stream(), True
        try:
            while waited_for:
                try:
                    said = self._hear(_TOKEN_S)
                    waited_for = "id" in said or "read" in said
                    if not waited_for:
                        self._end(said)
                except EdgeError:
                    waited_for = False  # nothing more comes
                    raise
                if "id" in said:
                    yield Piece(words.push(said["id"]), said["id"], time.perf_counter_ns())
                elif "read" in said and reading is not None:
                    reading(*said["read"])
            if rest := words.flush():
                yield Piece(rest, None, time.perf_counter_ns())
        finally:
            if waited_for:
                self._stop()

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.kill()

    def _end(self, said: dict[str, Any]) -> None:
        said_well(said, self._where)
        if said.get("stats"):
            self.stats = Stats(**said["stats"])
            self._far.held = self.stats.prompt_tokens + self.stats.new_tokens

    def _stop(self) -> None:
        """The rest of the answer is not wanted: what is on its way is dropped, and the model is free again."""
        if self._stream is None:
            return
        try:
            self._ask(do="stop")
            end = time.monotonic() + _STOP_S
            while time.monotonic() < end:
                said = self._hear(_STOP_S)
                if "id" not in said and "read" not in said:
                    self._end(said)
                    return
        except EdgeError:
            pass  # the next question says what is the matter

    def _ask(self, **request: Any) -> None:
        if self._stream is None:
            self._stream, _ = self._start()
            self._far.held = 0
        try:
            self._stream.write(json.dumps(request, separators=(",", ":")).encode() + b"\n")
        except Ended as err:
            self._drop()
            raise died(self._where, err.done.code, err.done.reason) from None
        except LinkLost:
            self._drop()
            raise

    def _hear(self, timeout_s: float) -> dict[str, Any]:
        assert self._stream is not None
        try:
            return line(self._stream, self._where, timeout_s)
        except EdgeError:
            self._drop()
            raise


def open_remote(
    device: Device,
    wanted: str | None = None,
    *,
    root: str | None = None,
    threads: int | None = None,
    context_length: int | None = None,
) -> RemoteModel:
    """Open what runs on `device`, or the bundle of it that is called `wanted`; loading happens there.

    Raises `DeviceError` when nothing is installed or the runtime dies, `LinkLost` when the link breaks, and
    what `open_bundle` raises there.
    """
    store = Store(device, root)
    bundle, _there = installed.current(store, wanted)
    folder = installed.small_files(store, bundle)
    request = {"do": "open", "threads": threads, "context": context_length}

    def start() -> tuple[Stream, int]:
        stream = device.open(["sh", f"{store.root}/refs/{bundle.id}.start", "serve"])
        try:
            try:
                stream.write(json.dumps(request).encode() + b"\n")
            except Ended as err:
                raise died(device.address, err.done.code, err.done.reason) from None
            said = line(stream, device.address, _LOAD_S)
            said_well(said, device.address)
            return stream, int(said["context_length"])
        except BaseException:
            stream.kill()
            raise

    return RemoteModel(folder, bundle, start, device.address)


def _bytes(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    if str(source).startswith("data:"):
        return base64.b64decode(str(source).partition(",")[2])
    return Path(source).expanduser().read_bytes()
