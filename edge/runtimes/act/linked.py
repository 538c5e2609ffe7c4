"""Acting for a person at the other end of a link: everything happens here, and only the person is there.

    python -m edge.runtimes.worker FOLDER act     a line of JSON for each request and each answer

Requests: {"do": "open", "tools": [...], ...}, {"do": "act", "request": ..., "given": [...]}, {"do": "memory",
"words": [...]}; {"do": "reply", "reply": ...} to what is asked; {"do": "stop"}; {"do": "beat"} every few seconds. What
comes back: {"beat": true}, {"tell": text}, {"question": ...} and {"asks": ...}, which wait for a reply, and at the end
of a request {"opened": ...}, {"report": ...}, {"lines": ...} or {"error": ...}.

When the other end is gone, no step begins any more: the one that runs ends and is written down, the others stay
planned.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from edge.errors import DeviceError, EdgeError, UsageError
from edge.runtimes.act import manifest, memory, perception, words
from edge.runtimes.act.hands import Hands, Question, state_folder
from edge.runtimes.act.intent import Budget
from edge.runtimes.act.memory import Memory
from edge.runtimes.act.mind import Mind
from edge.runtimes.act.perception import Given
from edge.runtimes.act.policy import Policy
from edge.runtimes.act.record import record
from edge.runtimes.act.schema import canonical
from edge.runtimes.model import Model, open_bundle

BEAT_S = 5.0
SILENCE_S = 60.0  # whoever was not heard for so long is gone
_TURN_S = SILENCE_S + 15.0


class Gone(Exception):
    """There is nobody at the other end any more."""


class Link:
    """One end of the link. Its other end is heard by a thread, so that a stop is seen while the model writes."""

    def __init__(self, inputs: BinaryIO, outputs: BinaryIO) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._writing = threading.Lock()
        self._heard = time.monotonic()
        self._stop = self._gone = False
        for work in (self._listen, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def say(self, **what: Any) -> None:
        """Raises `Gone`."""
        line = json.dumps(what, separators=(",", ":")).encode() + b"\n"
        try:
            with self._writing:
                self._outputs.write(line)
                self._outputs.flush()
        except (OSError, ValueError):
            self._gone = True
            raise Gone from None

    def hear(self) -> dict[str, Any]:
        """The next request or reply. Raises `Gone`."""
        while True:
            try:
                found = self._requests.get(timeout=1.0)
            except queue.Empty:
                self._present()
                continue
            if found is None:
                raise Gone
            return found

    def asked(self, **what: Any) -> Any:
        """What the person replies. Raises `Gone`."""
        self.say(**what)
        while (found := self.hear()).get("do") != "reply":
            pass  # nothing else makes sense now
        return found.get("reply")

    def stopped(self) -> bool:
        """Whether the person wants it to stop. Raises `Gone`, so that nothing is begun for nobody."""
        self._present()
        return self._stop

    def _present(self) -> None:
        if self._gone or time.monotonic() - self._heard > SILENCE_S:
            raise Gone

    def _listen(self) -> None:
        for line in self._inputs:
            self._heard = time.monotonic()
            try:
                found = json.loads(line)
            except ValueError:
                found = {}
            do = found.get("do") if isinstance(found, dict) else None
            if do in ("act", "stop"):  # here and not when it is its turn: a stop is of the request before it
                self._stop = do == "stop"
            if do not in ("beat", "stop"):
                self._requests.put(found if isinstance(found, dict) else {})
        self._gone = True
        self._requests.put(None)

    def _beat(self) -> None:
        while not self._gone:
            time.sleep(BEAT_S)
            try:
                self.say(beat=True)
            except Gone:
                return


class _Acting:
    """An open bundle with its tools; `ending` lets go of them."""

    def __init__(self, model: Model, request: Mapping[str, Any], link: Link, state: Path, ending: ExitStack) -> None:
        self._model, self._link, self._state = model, link, state
        sources = [manifest.Source(str(s["name"]), s.get("text")) for s in request["tools"]]
        # Relative paths begin where the person who is logged in here is at home.
        tools = manifest.join([manifest.understood(source, Path.home()) for source in sources])
        kept = Memory(state / "memory.db") if request.get("memory") else None
        policy = Policy(frozenset(request.get("yes_to") or ()), dry_run=bool(request.get("dry_run")))
        budget = Budget(int(request.get("max_tokens") or Budget.tokens), float(request.get("max_seconds") or 300))
        self._resumes = request.get("resume")
        if self._resumes:  # what was done is known when nobody does it any more
            ending.enter_context(_turn(state, link))
        asks = self._allowed if request.get("asks") else None
        self._hands = ending.enter_context(Hands(tools, policy, ask=asks, state=state, run=self._resumes))
        self._mind = Mind(
            model, self._hands, memory=kept, stopped=link.stopped,
            tell=lambda text: link.say(tell=text, run=self._hands.run),
            ask=self._replied if request.get("replies") else lambda question: None,
            budget=lambda: Budget(budget.tokens, budget.seconds),
        )  # fmt: skip

    def opened(self) -> dict[str, Any]:
        """What the other end has to know of it. Raises `UsageError` when there is no such run to go on with."""
        journal, bundle = self._hands.journal, self._model.bundle
        runs = journal.unfinished()
        waiting = {"run": runs[-1], "request": journal.request(runs[-1])} if runs else None
        request = None
        if self._resumes and (request := journal.request(self._resumes)) is None:
            hint = f"interrupted: {waiting['request']!r}; go on with --resume {waiting['run']}" if waiting else None
            raise UsageError(f"there is no run {self._resumes}", hint=hint or "none was interrupted")
        before = [[step.step + 1, step.tool, step.state] for step in self._hands.before()]
        about = {"name": bundle.name, "proven": bundle.proven, "tools": len(self._hands.manifest.tools)}
        return {**about, "waiting": waiting, "request": request, "before": before}

    def act(self, request: Mapping[str, Any]) -> dict[str, Any]:
        given = [Given("file", str(one.get("name")), words.for_model(str(one.get("text")))) for one in request["given"]]
        given += [self._seen(one) for one in request["pictures"]]
        with nullcontext() if self._resumes else _turn(self._state, self._link):
            report = self._mind.act(str(request["request"]), given)
        return record(report, self._model.bundle, self._hands.run)

    def _allowed(self, question: Question) -> bool:
        said = self._link.asked(
            question={
                "tool": question.tool.name, "arguments": canonical(dict(question.arguments)), "would": question.would,
                "reason": question.reason, "origin": question.origin, "confined_by": question.confined_by,
                "filled": question.filled,
            }
        )  # fmt: skip
        return said is True

    def _replied(self, question: str) -> str | None:
        said = self._link.asked(asks=question)
        return said if isinstance(said, str) else None

    def _seen(self, one: Mapping[str, Any]) -> Given:
        try:
            data = base64.b64decode(one["data"], validate=True)
        except (binascii.Error, TypeError) as err:
            raise UsageError("a picture did not arrive whole") from err
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            path = Path(folder) / "picture"
            path.write_bytes(data)
            return perception.of_picture(path, self._model)


def serve(folder: Path, inputs: BinaryIO, outputs: BinaryIO) -> int:
    """Answer requests until the other end is gone."""
    link, state = Link(inputs, outputs), state_folder()
    acting: _Acting | None = None
    try:
        with ExitStack() as ending:
            while True:
                request = link.hear()
                try:
                    match request.get("do"):
                        case "open" if acting is None:
                            model = ending.enter_context(_model(folder, request))
                            acting = _Acting(model, request, link, state, ending)
                            link.say(opened=acting.opened())
                        case "act" if acting is not None:
                            link.say(report=acting.act(request))
                        case "memory":
                            with closing(Memory(state / "memory.db")) as kept:
                                link.say(lines=memory.obey(kept, [str(word) for word in request["words"]]))
                        case other:
                            raise UsageError(f"{other!r} cannot be done now")
                except EdgeError as err:
                    link.say(error=err.message, hint=err.hint, code=err.exit_code, kind=type(err).__name__)
                except (KeyError, TypeError, ValueError) as err:
                    link.say(error=f"the request makes no sense: {err!r}", code=2)
                except MemoryError:
                    link.say(error="the device is out of memory", hint="choose a smaller context or bundle", code=1)
    except Gone:
        return 0


def _model(folder: Path, request: Mapping[str, Any]) -> Model:
    # The store compared every file with its hash when it took it in.
    return open_bundle(folder, threads=request.get("threads"), context_length=request.get("context"), check=False)


@contextmanager
def _turn(state: Path, link: Link) -> Iterator[None]:
    """One request after another: whose link broke may still be ending a step that must not be done twice."""
    state.mkdir(parents=True, exist_ok=True)
    lock = os.open(state / "acting.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    ends, told = time.monotonic() + _TURN_S, False
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if link.stopped() or time.monotonic() > ends:
                    raise DeviceError("another request is being carried out there", hint="try again later") from None
            if not told:
                link.say(tell="waiting: another request is being carried out there")
                told = True
            time.sleep(0.2)
        yield
    finally:
        os.close(lock)
