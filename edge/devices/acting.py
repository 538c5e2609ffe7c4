"""A bundle that acts on a device, for a person who is here: what is planned, decided and done is planned, decided and
done there; here a person is asked, and stops it. The other end is `edge.runtimes.act.linked`.

    with Acting(device, "smollm2-act", tools, ask=at_terminal()) as there:
        print(there.act("turn off the hall light")["answer"])
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.devices import installed
from edge.devices.device import Device, Ended, LinkLost
from edge.devices.store import Store
from edge.devices.words import died, line, said_well
from edge.errors import DeviceError, UsageError
from edge.runtimes.act import manifest
from edge.runtimes.act.hands import Ask, Question
from edge.runtimes.act.linked import BEAT_S
from edge.runtimes.act.manifest import Source
from edge.runtimes.act.perception import Given
from edge.runtimes.act.policy import ORIGINS
from edge.runtimes.act.words import for_person

_LOAD_S = 900.0
_QUIET_S = 120.0  # a device that works says so every few seconds
_LOOK_S = 0.1  # how soon a stop goes over the link
_PICTURE_BYTES = 32 << 20
_UNKNOWN = "the worker knows no 'act'"  # says one of before


@dataclass(frozen=True)
class Wishes:
    """What may be asked of it: as the options of `edge act`."""

    yes_to: tuple[str, ...] = ()
    dry_run: bool = False
    memory: bool = True
    resume: str | None = None
    max_tokens: int = 2048
    max_seconds: float = 300.0
    threads: int | None = None
    context_length: int | None = None


class Acting:
    """What runs on `device`, or its bundle called `wanted`, with `tools`, which are read here first, and there again.

    `ask` as for `Hands`; `reply` as `ask` for `Mind`, None when nobody replies; `tell` and `stopped` as for `Mind`.

    Raises `DeviceError` when nothing is installed or the worker dies, `LinkLost` when the link breaks, and what `Hands`
    and `Mind` raise there.
    """

    def __init__(
        self,
        device: Device,
        wanted: str | None,
        tools: Sequence[Source],
        wishes: Wishes | None = None,
        *,
        ask: Ask | None = None,
        reply: Callable[[str], str | None] | None = None,
        tell: Callable[[str], None] = lambda text: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        wishes = wishes or Wishes()
        self._where = device.address
        self._ask, self._reply, self._tell, self._stopped = ask, reply, tell, stopped
        # Where relative paths begin is known there alone; nothing of it is shown here.
        self._tools = manifest.join([manifest.understood(source, Path("/")) for source in tools])
        self.run = wishes.resume
        with _Worker(device, wanted) as worker:
            self._worker = worker
            worker.say(
                do="open", tools=[_sent(source) for source in tools],
                yes_to=wishes.yes_to, dry_run=wishes.dry_run, memory=wishes.memory, resume=wishes.resume,
                max_tokens=wishes.max_tokens, max_seconds=wishes.max_seconds, threads=wishes.threads,
                context=wishes.context_length, asks=ask is not None, replies=reply is not None,
            )  # fmt: skip
            self.opened: dict[str, Any] = self._until("opened", _LOAD_S)
            worker.keep()

    def __enter__(self) -> Acting:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; what runs there ends with the step that it is at."""
        self._worker.close()

    def act(self, request: str, given: Sequence[Given] = (), pictures: Sequence[Path] = ()) -> dict[str, Any]:
        """Do what is wanted, as far as it is allowed; as `edge.runtimes.act.record`. A break of the link says how to go
        on: what was done is in the journal there."""
        shown = [{"name": path.name, "data": _encoded(path)} for path in pictures]
        words = [{"name": one.name, "text": one.text} for one in given]
        try:
            self._worker.say(do="act", request=request, given=words, pictures=shown)
            report: dict[str, Any] = self._until("report", _QUIET_S)
        except DeviceError as err:
            if not self._worker.lost:
                raise
            raise type(err)(
                f"{err.message}; what was done until then is written down there",
                hint=f"to go on, with nothing done twice: --resume {self.run}" if self.run else err.hint,
            ) from err
        return report

    def remembered(self, words: Sequence[str]) -> list[str]:
        """As `edge.runtimes.act.memory.obey`, there."""
        self._worker.say(do="memory", words=list(words))
        lines: list[str] = self._until("lines", _QUIET_S)
        return lines

    def _until(self, end: str, timeout_s: float) -> Any:
        told_to_stop = False

        def stop() -> None:
            nonlocal told_to_stop
            if self._stopped() and not told_to_stop:
                told_to_stop = True
                self._worker.say(do="stop")

        with self._worker.meanwhile(stop):
            while True:
                said = self._worker.hear(timeout_s)
                if end in said:
                    return said[end]
                if "tell" in said:
                    self.run = said.get("run") or self.run
                    self._tell(str(said["tell"]))
                elif "question" in said:
                    reply: Any = self._allowed(said["question"])
                    stop()  # before the reply, which another step would follow
                    self._worker.say(do="reply", reply=reply)
                elif "asks" in said:
                    reply = self._reply(for_person(said["asks"])) if self._reply and not self._stopped() else None
                    stop()
                    self._worker.say(do="reply", reply=reply)
                elif "beat" not in said:
                    raise DeviceError(f"{self._where}: the worker says {sorted(said)}, which is no answer")

    def _allowed(self, asked: dict[str, Any]) -> bool:
        """What the person says to a question of the device, in which tool and risk are those of the manifest here."""
        try:
            tool = self._tools.tools[asked["tool"]]
            question = Question(
                tool, json.loads(asked["arguments"]), f"on {self._where}: {for_person(asked['would'])}",
                for_person(asked["reason"]), asked["origin"] if asked["origin"] in ORIGINS else ORIGINS[-1],
                for_person(asked["confined_by"]),
                None if asked.get("filled") is None else tuple(map(str, asked["filled"])),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise DeviceError(f"{self._where} asks for what it was not given, or what makes no sense: {err!r}") from err
        return self._ask is not None and not self._stopped() and self._ask(question)


def _sent(source: Source) -> dict[str, Any]:
    """A manifest as it goes over the link: where it lies here is nobody's business there."""
    return {"name": source.name if source.text is None else Path(source.name).name, "text": source.text}


def _encoded(path: Path) -> str:
    """A picture, as it goes over the link. Raises `UsageError` when there is none."""
    path = path.expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if path.stat().st_size > _PICTURE_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size} bytes, more than a picture may have")
    return base64.b64encode(path.read_bytes()).decode()


def remembered(device: Device, words: Sequence[str]) -> list[str]:
    """As `edge.runtimes.act.memory.obey`, with what is remembered on `device`."""
    with _Worker(device, None) as worker:
        worker.say(do="memory", words=list(words))
        while "lines" not in (said := worker.hear(_QUIET_S)):
            pass
        lines: list[str] = said["lines"]
        return lines


class _Worker:
    """The other end, and a thread that lets it know that we are there."""

    def __init__(self, device: Device, wanted: str | None) -> None:
        store = Store(device)
        bundle, _ = installed.current(store, wanted)
        self._where = device.address
        self._stream = device.open(["sh", f"{store.root}/refs/{bundle.id}.start", "act"])
        self._writing, self._over, self._kept = threading.Lock(), threading.Event(), False
        self.lost = False  # it has ended, or cannot be reached
        self._look: Callable[[], None] = lambda: None
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *about: object) -> None:
        if not self._kept:
            self.close()

    def keep(self) -> None:
        """It is needed longer than the block."""
        self._kept = True

    def close(self) -> None:
        self._over.set()
        self._beating.join(2 * _LOOK_S + 1.0)
        self._stream.kill()

    def say(self, **what: Any) -> None:
        data = json.dumps(what, separators=(",", ":")).encode() + b"\n"
        with self._writing:
            try:
                self._stream.write(data)
            except Ended as err:
                self.lost = True
                raise died(self._where, err.done.code, err.done.reason) from None
            except LinkLost:
                self.lost = True
                raise

    def hear(self, timeout_s: float) -> dict[str, Any]:
        try:
            said = line(self._stream, self._where, timeout_s)
        except DeviceError:
            self.lost = True
            raise
        if said.get("error") == _UNKNOWN:
            raise DeviceError(
                f"{self._where}: the bundle was flashed by an edge that does not act there",
                hint="flash it again: only what has changed is sent",
            )
        said_well(said, self._where)
        return said

    @contextmanager
    def meanwhile(self, look: Callable[[], None]) -> Iterator[None]:
        """Call `look` again and again, as long as the block runs."""
        self._look = look
        try:
            yield
        finally:
            self._look = lambda: None

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_LOOK_S):
            try:
                self._look()
                if time.monotonic() - last > BEAT_S:
                    last = time.monotonic()
                    self.say(do="beat")
            except (DeviceError, OSError, ValueError):
                return  # whoever reads finds out why
