"""Answers take turns: one thread computes, a token of one answer after a token of the other.

1. Running two models at once makes both slower than running them in turn, for each already takes all cores.
   So there is one thread for all models, and it does the same small piece of work for everybody in turn.
2. A seat is a model with a cache of its own. An answer takes the free seat whose cache begins most like its
   prompt, so that a conversation goes on where it was; of equals, and for a new conversation, the one that was left
   the longest ago. What that held is put on a shelf (`edge.serve.shelf`), and
   taken from there when its conversation goes on.
3. Who finds no seat waits. Clients are served in turn, whatever number of requests each of them has waiting.
4. Nothing that a client does reaches this thread: it puts what was said into a queue, and takes no notice of
   how fast anybody reads. Who has gone is left out at the next token.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgeError
from edge.runtimes.kept import WORTH
from edge.runtimes.model import Model, Piece, Read, Stats
from edge.runtimes.session import Sampling
from edge.runtimes.sight import Prompt
from edge.runtimes.tool_calls import ToolCall
from edge.serve.refusal import Refusal, refusal_of
from edge.serve.shaping import Odds, Shaping
from edge.serve.shelf import Shelf
from edge.serve.voice import Voice

log = logging.getLogger("edge.serve")
CHUNK = 128  # tokens of a long prompt that are read before the next answer has its turn
_SHARE = 3 / 4  # of all places, that one client may take


@dataclass(frozen=True)
class Said:
    """A piece of an answer; `odds` of its tokens, if they were asked for."""

    text: str
    odds: tuple[Odds, ...] = ()


@dataclass(frozen=True)
class End:
    """How an answer ended: "stop", "length" or "tool_calls"."""

    reason: str
    calls: tuple[ToolCall, ...]
    stats: Stats


Event = Said | End | Refusal


class Work:
    """What takes a seat and is done in steps, from its place in the queue to its end.

    Made on the event loop that wants to hear of it; `advance` is computed on the thread of `Turns`.
    """

    def __init__(self, seats: Seats, prompt: Prompt, place: Place) -> None:
        self.seats, self.prompt, self.place = seats, prompt, place
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.cut: Refusal | None = None  # why it has to end early
        self.ended = ""  # "stop", "length", "tool_calls", or the status of what ended it
        self.waited_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._asked_s = time.monotonic()
        self._model: Model | None = None

    @property
    def stats(self) -> Stats | None:
        raise NotImplementedError

    def advance(self, model: Model) -> bool:
        """A small piece of the work; False when it is done."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Leave off what was begun: it has failed, or nobody wants it."""

    def start(self, model: Model) -> None:
        self.waited_s = time.monotonic() - self._asked_s
        self._model = model

    def step(self) -> bool:
        """`advance`; False when it is over, in whatever way."""
        assert self._model is not None
        try:
            if self.cut is not None:
                raise self.cut
            return self.advance(self._model)
        except (EdgeError, Refusal) as err:
            self._fail(refusal_of(err))
        except MemoryError:
            self._fail(Refusal(503, "the server is out of memory"))
        # Whatever goes wrong in one answer, the others go on.
        except Exception as err:
            log.exception("an answer failed")
            self._fail(refusal_of(err))
        return False

    def tell(self, event: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop has ended: nobody hears it
            self.cut = Refusal(503, "nobody is there")

    def _fail(self, refusal: Refusal) -> None:
        self.abandon()
        self.ended = str(refusal.status)
        self.tell(refusal)


class Answer(Work):
    """Words that follow a prompt, a token or a piece of the prompt at a step; each `Event` is told."""

    def __init__(
        self, seats: Seats, prompt: Prompt, sampling: Sampling, voice: Voice, shaping: Shaping, place: Place
    ) -> None:
        super().__init__(seats, prompt, place)
        self.sampling, self.voice, self.shaping = sampling, voice, shaping
        self.echo = ""  # what is said before the answer
        self._steps: Generator[Piece | Read, None, None] | None = None
        self._odds: list[Odds] = []

    @property
    def stats(self) -> Stats | None:
        return self._model.stats if self._model and self._steps else None  # before, they are another answer's

    def advance(self, model: Model) -> bool:
        """Compute one token, or read a piece of the prompt."""
        if self._steps is None:
            self.seats.shelf.exchange(model, self.prompt)
            mask = None if self.shaping.idle else self.shaping
            self._steps = model.steps(self.prompt, self.sampling, mask=mask, chunk=CHUNK)
        step = next(self._steps, None)
        if isinstance(step, Read):
            return True
        if step is not None:
            self._hear(step)
            if not self.voice.stopped:
                return True
        self._steps.close()
        self._end(model.stats)
        return False

    def abandon(self) -> None:
        if self._steps is not None:
            self._steps.close()

    def _hear(self, piece: Piece) -> None:
        assert self._model is not None
        if piece.token_id is not None and (odds := self.shaping.odds(piece.token_id, self._model.tokenizer.decode)):
            self._odds.append(odds)
        if text := self.voice.push(piece.text):
            self._say(text)

    def _say(self, text: str) -> None:
        self.tell(Said(text, tuple(self._odds)))
        self._odds = []

    def _end(self, stats: Stats | None) -> None:
        assert stats is not None
        rest = self.voice.end()
        if rest or self._odds:
            self._say(rest)
        cut = stats.stopped_by in ("length", "context") and not self.voice.stopped
        reason = "tool_calls" if self.voice.calls else "length" if cut else "stop"
        self.ended = reason
        self.tell(End(reason, self.voice.calls, stats))


class Seats:
    """The caches of one bundle, and who waits for them."""

    def __init__(self, name: str, models: list[Model], shelf: Shelf) -> None:
        self.name = name
        self.shelf = shelf  # of the thread that computes
        self.free: list[Model] = list(models)  # the one left the longest ago comes first
        self.n = len(models)
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def add(self, answer: Work) -> None:
        self._waiting.setdefault(answer.place.client, deque()).append(answer)

    def remove(self, answer: Work) -> bool:
        line = self._waiting.get(answer.place.client, deque())
        if answer not in line:
            return False
        line.remove(answer)
        if not line:
            del self._waiting[answer.place.client]
        return True

    def next(self) -> tuple[Work, Model] | None:
        """Who has his turn, and his seat. The client goes to the end of the line of clients."""
        if not self.free or not self._waiting:
            return None
        client, line = self._waiting.popitem(last=False)
        answer = line.popleft()
        if line:
            self._waiting[client] = line
        same, model = max(((m.reusable(answer.prompt), m) for m in self.free), key=lambda pair: pair[0])
        if same < WORTH and 2 * same < len(model.held):
            model = self.free[0]  # all conversations begin with the same few words, and this is another one
        self.free.remove(model)
        return answer, model

    def all(self) -> list[Work]:
        return [answer for line in self._waiting.values() for answer in line]


class Place:
    """A request that was let in; given back when its answer has ended, or was never computed."""

    def __init__(self, client: str, leave: Callable[[Place], None]) -> None:
        self.client = client
        self._leave: Callable[[Place], None] | None = leave

    def give_back(self) -> None:
        leave, self._leave = self._leave, None
        if leave:
            leave(self)


class Turns:
    """The thread that computes. `ended(answer, seconds)` is called on it after every answer."""

    def __init__(self, *, waiting: int, ended: Callable[[Work, float], Any] = lambda answer, s: None) -> None:
        self._change = threading.Condition()
        self._seats: list[Seats] = []
        self._active: deque[tuple[Work, Model, float]] = deque()
        self._waiting = waiting
        self._clients: Counter[str] = Counter()
        self._typical_s = 1.0  # of an answer, for saying when to come back
        self._closing = False
        self._cut_at_s: float | None = None  # when what is still at work is cut; set when nobody is taken in any more
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name="edge-turns", daemon=True)
        self._thread.start()

    def seat(self, name: str, models: list[Model], *, shelf_bytes: int = 0) -> Seats:
        """Take models in; they belong to the thread from now on. Caches that lose their seat may take `shelf_bytes`."""
        with self._change:
            self._seats.append(Seats(name, models, Shelf(shelf_bytes)))
            return self._seats[-1]

    @property
    def n_active(self) -> int:
        with self._change:
            return sum(s.n - len(s.free) for s in self._seats)

    @property
    def n_waiting(self) -> int:
        with self._change:
            return sum(map(len, self._seats))

    def enter(self, client: str) -> Place:
        """Let a request in, before any work is done for it. `Refusal` 429 when too many are there."""
        with self._change:
            self._refuse_when_draining()
            most = self._waiting + sum(s.n for s in self._seats)
            if self._clients.total() >= most:
                raise self._come_back(f"the server is busy: {most} requests are at work or waiting")
            if self._clients[client] >= max(1, int(most * _SHARE)):
                raise self._come_back(f"you have {self._clients[client]} requests here; some places are for others")
            self._clients[client] += 1
        return Place(client, self._left)

    def submit(self, answer: Work) -> None:
        """Put an answer in line; its events come to its queue. Gives its place back at its end."""
        with self._change:
            self._refuse_when_draining()
            answer.seats.add(answer)
            self._change.notify()

    def leave(self, answer: Work) -> None:
        """Nobody wants to hear this answer any more."""
        answer.cut = answer.cut or Refusal(499, "the client has gone")
        with self._change:
            waited = answer.seats.remove(answer)
        if waited:
            answer.place.give_back()

    async def drain(self, grace_s: float) -> None:
        """Take nobody in any more, and let those at work finish for `grace_s` seconds; then cut them."""
        with self._change:
            self._cut_at_s = time.monotonic() + grace_s
            waiting = [answer for s in self._seats for answer in s.all()]
        for answer in waiting:
            self.leave(answer)
            answer.tell(Refusal(503, "the server is stopping", retry_s=10))
        while self.n_active:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """Stop the thread after the token it is computing."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while (turn := self._next()) is not None:
            answer, model, began_s = turn
            if self._cut_at_s is not None and time.monotonic() > self._cut_at_s:
                answer.cut = answer.cut or Refusal(503, "the server is stopping; the answer is not complete")
            more = answer.step()
            if more:
                with self._change:
                    self._active.append(turn)
                continue
            took_s = time.monotonic() - began_s
            self._ended(answer, took_s)
            with self._change:
                answer.seats.free.append(model)
                self._typical_s += (took_s - self._typical_s) / 8
            answer.place.give_back()

    def _next(self) -> tuple[Work, Model, float] | None:
        with self._change:
            while True:
                for seats in self._seats:
                    while found := seats.next():
                        answer, model = found
                        answer.start(model)
                        self._active.append((answer, model, time.monotonic()))
                if self._closing:
                    return None
                if self._active:
                    return self._active.popleft()
                self._change.wait()

    def _left(self, place: Place) -> None:
        with self._change:
            self._clients[place.client] -= 1
            if self._clients[place.client] <= 0:
                del self._clients[place.client]

    def _come_back(self, words: str) -> Refusal:
        seats = max(1, sum(s.n for s in self._seats))
        retry_s = min(60.0, self._typical_s * (1 + sum(map(len, self._seats)) / seats))
        return Refusal(429, words, code="too_many_requests", retry_s=retry_s)

    def _refuse_when_draining(self) -> None:
        if self._cut_at_s is not None or self._closing:
            raise Refusal(503, "the server is stopping", retry_s=10)
