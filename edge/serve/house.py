"""The bundles that are served, and how a request becomes an answer of one of them.

Prompts are made on a thread of their own, with a tokenizer of their own: rendering, tokenizing and opening
pictures keep neither the connections nor the model waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from edge.errors import EdgeError, UsageError
from edge.find import names
from edge.runtimes import wishes
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.drafting import guess_for
from edge.runtimes.model import Model, open_bundle, prompt_for
from edge.runtimes.session import ContextFull, Mask, Sampling
from edge.runtimes.sight import Prompt, Sight
from edge.runtimes.tool_calls import syntax_of
from edge.serve.asking import Wanted, WantedVectors
from edge.serve.embedding import Embedding
from edge.serve.fitting import Fitting
from edge.serve.refusal import Refusal
from edge.serve.shaping import Shaping
from edge.serve.turns import Answer, Place, Seats, Turns
from edge.serve.voice import Voice

if TYPE_CHECKING:
    from edge.runtimes.grammar import Grammars

T = TypeVar("T")
_PROBE = [{"type": "function", "function": {"name": "Xq7Zw", "description": "", "parameters": {"type": "object"}}}]


class Served:
    """One bundle: its name, its seats, and what makes prompts for it."""

    def __init__(
        self, name: str, models: Sequence[Model], turns: Turns, *, max_tokens: int, shelf_bytes: int = 0
    ) -> None:
        first = models[0]
        self.name, self.bundle, self.context_length = name, first.bundle, first.context_length
        self.created = int(time.time())
        self.models = models
        self.seats: Seats = turns.seat(name, list(models), shelf_bytes=shelf_bytes)
        # Asked for here: from then on, the models belong to the thread that computes.
        self.width = first.embedder.width if first.embedder else 0  # of a vector; 0 for none
        self.tokenizer = Fitting.load(first.folder)
        self.tokenizer.most = self.context_length
        self._template = ChatTemplate.load(first.folder)
        # It opens pictures and never encodes them: features are the model's own business.
        self._sight = Sight(first.bundle.image, _no_encoder)
        self._wishes = wishes.read(first.folder)
        self._max_tokens = max_tokens
        self._takes_tools: bool | None = None
        self._grammars: Grammars | None = None  # made for the first answer that is held to a form

    @property
    def sees(self) -> bool:
        return "vision" in self.bundle.parts

    @property
    def chats(self) -> bool:
        return self._template is not None

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template writes tools into the prompt; found by trying. On the desk's thread."""
        if self._takes_tools is None:
            message = [{"role": "user", "content": "?"}]
            try:
                shown = self._template.render(message, tools=_PROBE) if self._template else ""
            except EdgeError:
                shown = ""
            self._takes_tools = "Xq7Zw" in shown
        return self._takes_tools

    def prompt(self, wanted: Wanted) -> Prompt:
        """The ids of a request. On the desk's thread. `Refusal` for what this model cannot take."""
        if wanted.prompt is not None:
            prompt = self._text(wanted.prompt)
        else:
            if wanted.tools and not self.takes_tools:
                raise Refusal(400, f"the chat template of {self.name} has no place for tools", param="tools")
            if not self.sees and any(isinstance(m["content"], list) for m in wanted.messages):
                raise Refusal(400, f"{self.name} sees no pictures: it takes text alone", param="messages")
            tools = wanted.tools or None
            prompt = prompt_for(self.bundle, self.tokenizer, self._template, self._sight, wanted.messages, tools=tools)
        if len(prompt) >= self.context_length:
            raise ContextFull(0, len(prompt) + 1, self.context_length)
        return prompt

    def embeds(self, wanted: WantedVectors) -> None:
        """Raise `Refusal` unless this model gives such vectors."""
        if not self.width:
            raise Refusal(501, f"{self.name} makes text and no embeddings: {self._no_vectors()}", param="model",
                          code="no_embeddings")  # fmt: skip
        if (wanted.dimensions or 0) > self.width:
            raise Refusal(400, f"{self.name} has vectors of {self.width} dimensions", param="dimensions")

    def text(self, given: str | tuple[int, ...]) -> list[int]:
        """The ids of a text whose vector is wanted. On the desk's thread. `Refusal` for what does not fit."""
        try:
            ids = list(self._text(given, param="input"))
            if len(ids) > self.context_length:
                raise ContextFull(0, len(ids), self.context_length)
        except ContextFull as err:
            words = f"This model's context is {self.context_length} tokens; a text of the input has {err.wanted}."
            raise Refusal(400, words, param="input", code="context_length_exceeded") from None
        return ids

    def _no_vectors(self) -> str:
        if self.bundle.format in names("edge.runtimes.embedders"):
            return "its file names no way to pool its states, as those of models that were trained for it do"
        return f"bundles in GGUF can give them, and this one is in {self.bundle.format}"

    def _text(self, given: str | tuple[int, ...], param: str = "prompt") -> Prompt:
        """Whoever writes a whole prompt writes its control tokens too."""
        ids = self.tokenizer.encode(given, add_special=True) if isinstance(given, str) else list(given)
        if not ids:
            verb = "continue" if param == "prompt" else "embed"
            raise Refusal(400, f"there is nothing to {verb}: the {param} is empty", param=param)
        if min(ids) < 0 or max(ids) >= self.bundle.vocab_size:
            raise Refusal(400, f"token ids must be from 0 to {self.bundle.vocab_size - 1}", param=param)
        return Prompt(ids)

    def sampling(self, wanted: Wanted, prompt: Prompt) -> Sampling:
        """How the answer is drawn; it ends with the context at the latest."""
        most = self._max_tokens if wanted.max_tokens is None else wanted.max_tokens
        room = self.context_length - len(prompt) + 1
        return Sampling(**wishes.with_given(wanted.drawn, self._wishes), max_tokens=min(most, room))

    def held(self, wanted: Wanted, sampling: Sampling) -> Mask | None:
        """What holds the answer to the form that was asked for. On the desk's thread.

        Where a call is possible and need not come, nothing is held unless a tool is strict: models like to say
        something first, and a held answer is either calls or words.
        `Refusal` for a form that cannot be held, `MissingError` without the library.
        """
        if wanted.schema is not None and wanted.tools:
            raise Refusal(400, "response_format and tools cannot be asked for together", param="response_format")
        if wanted.schema is None and wanted.must_call is None and not wanted.strict:
            return None
        from edge.runtimes.grammar import Grammars

        self._grammars = self._grammars or Grammars(self.tokenizer, self.bundle.stop_ids)
        if wanted.schema is not None:
            form = {"type": "object"} if isinstance(wanted.schema, bool) else wanted.schema
            return self._grammars.schema(form).mask(sampling)
        must = wanted.must_call
        tools = [t for t in wanted.tools if not must or t["function"]["name"] == must]
        syntax = syntax_of(self._template.source if self._template else "") or "tags"
        if must is None:
            return self._grammars.tools(tools, syntax, idle=False, text=True).mask(sampling)
        # One call is what OpenAI's clients mean by a tool that must be called.
        return self._grammars.tools(tools, syntax, idle=False, most=1).mask(sampling)


class House:
    """All bundles that are served; answers take turns on `turns`, prompts are made at the desk."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: dict[str, Served] = {}
        self._keep_in: Path | None = None
        self._desk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edge-desk")

    def open(
        self,
        folders: Sequence[Path],
        *,
        parallel: int = 1,
        threads: int | None = None,
        context_length: int | None = None,
        check: bool = True,
        max_tokens: int = 1024,
        looks_up: bool = True,
        draft: Path | None = None,
        shelf_bytes: int = 0,
        keep_in: Path | None = None,
    ) -> None:
        """Open every bundle, `parallel` caches each, and for each `shelf_bytes` for conversations that lost theirs.

        The bundle `draft` guesses ahead for them, where that pays. Conversations are taken from the folder `keep_in`,
        and written there by `close`.

        Raises as `open_bundle`, and closes what was opened.
        """
        names: set[str] = set()
        for folder in folders:
            first = open_bundle(folder, threads=threads, context_length=context_length, check=check)
            first.looks_up = looks_up
            models = [first]
            try:
                name = _name(first, names)
                if draft is not None:
                    logging.getLogger(__name__).warning(guess_for(first, draft, check=check))
                while len(models) < parallel:
                    models.append(first.another())
            except BaseException:
                for model in reversed(models):
                    model.close()
                raise
            names.add(name)
            # Before anybody asks: from then on, models and shelf belong to the thread that computes.
            self.served[name] = Served(name, models, self.turns, max_tokens=max_tokens, shelf_bytes=shelf_bytes)
            if keep_in is not None:
                self._keep_in = keep_in
                self.served[name].seats.shelf.load(first, keep_in)

    def find(self, name: str) -> Served:
        """The bundle of this name; without a name the only one, or the first. `Refusal` 404 for an unknown name."""
        if not name:
            return next(iter(self.served.values()))
        if name not in self.served:
            known = ", ".join(self.served)
            raise Refusal(
                404, f"there is no model {name[:200]!r} here; there are: {known}", param="model", code="model_not_found"
            )
        return self.served[name]

    async def at_desk(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(*args)` on the desk's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._desk, work, *args)

    async def ask(self, wanted: Wanted, place: Place) -> Answer:
        """Put a request in line; its answer's events come to its queue."""
        served = self.find(wanted.model)

        def prepare() -> tuple[Prompt, Sampling, Shaping, str]:
            prompt = served.prompt(wanted)
            sampling = served.sampling(wanted, prompt)
            echo = served.tokenizer.decode(prompt, skip_special=True) if wanted.echo else ""
            return prompt, sampling, Shaping(wanted, served.held(wanted, sampling)), echo

        prompt, sampling, shaping, echo = await self.at_desk(prepare)
        voice = Voice(wanted.stop, tools=bool(wanted.tools))
        answer = Answer(served.seats, prompt, sampling, voice, shaping, place)
        answer.echo = echo
        self.turns.submit(answer)
        return answer

    async def embed(self, wanted: WantedVectors, place: Place) -> Embedding:
        """Put a request for vectors in line; they come to its queue."""
        served = self.find(wanted.model)
        served.embeds(wanted)
        # One by one, so that nobody's prompt waits for all of them.
        texts = [await self.at_desk(served.text, given) for given in wanted.inputs]
        work = Embedding(served.seats, texts, place)
        self.turns.submit(work)
        return work

    def close(self) -> None:
        """Stop computing, then free the models."""
        self._desk.shutdown(wait=True, cancel_futures=True)
        self.turns.close()
        for served in self.served.values():
            if self._keep_in is not None:
                served.seats.shelf.save(served.models, self._keep_in)
            for model in reversed(served.models):
                model.close()
        self.served = {}


def _name(model: Model, taken: set[str]) -> str:
    """What clients call the model: what its bundle is called, with its format and quantization."""
    bundle = model.bundle
    name = f"{bundle.name}-{bundle.format}-{bundle.quantization}"
    if name in taken:
        raise UsageError(f"two bundles are called {name}", hint="serve one of them on a port of its own")
    return name


def _no_encoder() -> NoReturn:
    raise AssertionError("features are computed where answers are")
