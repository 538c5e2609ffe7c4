"""A bundle at work where it is installed: a program that is spoken to over its own pipes.

    python -m edge.runtimes.worker FOLDER serve      answers requests, a line of JSON each
    python -m edge.runtimes.worker FOLDER selftest   loads it, compares the first tokens, and says what it took
    python -m edge.runtimes.worker FOLDER bench '{"threads": null, ...}'    one repetition, as edge bench does
    python -m edge.runtimes.worker FOLDER profile '{"threads": null, ...}'  where the time goes, as edge profile does
    python -m edge.runtimes.worker FOLDER act        acts for a person at the other end (edge.runtimes.act.linked)
    python -m edge.runtimes.worker FOLDER ask [--image FILE]... [WORDS]...    for who sits at the device: edge-chat

The requests of `serve`: {"do": "open", "threads": 4, "context": 2048}, then any number of
{"do": "generate", "ids": [...], "sampling": {...}, "pictures": [base64], "lookup": true}, which may be cut short by
{"do": "stop"}. What comes back: {"id": 5} for each token, {"read": [512, 2048]} while a long prompt
is read, {"stats": {...}} at the end of an answer, {"error": ..., "hint": ..., "code": 1} instead of one.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from edge import bundle as bundles
from edge.errors import EdgeError, InputError, UsageError
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Sampling, generate
from edge.runtimes.sight import Prompt, place

PROTOCOL = 1
_PROBE = 4  # tokens of a self-test whose bundle says nothing of what must come


class _Stop(Exception):
    """Somebody does not want to hear the rest."""


def serve(folder: Path, inputs: BinaryIO, outputs: BinaryIO) -> int:
    """Answer requests until the other end is gone."""
    requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_listen, args=(inputs, requests), daemon=True).start()
    model: Model | None = None

    def say(**record: Any) -> None:
        outputs.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        outputs.flush()

    try:
        while (request := requests.get()) is not None:
            try:
                match request.get("do"):
                    case "open":
                        model = model or _open(folder, request)
                        say(
                            protocol=PROTOCOL, bundle=model.bundle.id, context_length=model.context_length,
                            threads=request.get("threads"), pid=os.getpid(),
                        )  # fmt: skip
                    case "generate":
                        if model is None:
                            raise UsageError("nothing is open yet")
                        _answer(model, request, requests, say)
                    case "stop":
                        continue  # it came when the answer had ended already
                    case other:
                        raise UsageError(f"the worker knows no request {other!r}")
            except EdgeError as err:
                say(error=err.message, hint=err.hint, code=err.exit_code, kind=type(err).__name__)
            except MemoryError:
                say(error="the device is out of memory", hint="choose a smaller context or bundle", code=1)
    except BrokenPipeError:
        pass
    finally:
        if model:
            model.close()
    return 0


def _listen(inputs: BinaryIO, requests: queue.Queue[dict[str, Any] | None]) -> None:
    for line in inputs:
        try:
            found = json.loads(line)
        except ValueError:
            found = {}
        requests.put(found if isinstance(found, dict) else {})
    requests.put(None)


def _open(folder: Path, request: dict[str, Any]) -> Model:
    # The store compared every file with its hash when it took it in.
    return open_bundle(folder, threads=request.get("threads"), context_length=request.get("context"), check=False)


def _answer(model: Model, request: dict[str, Any], requests: queue.Queue[dict[str, Any] | None], say: Any) -> None:
    def stopped() -> bool:
        try:
            told = requests.get_nowait()
        except queue.Empty:
            return False
        if told is None:  # for the loop outside, which ends then
            requests.put(None)
        return told is None or told.get("do") == "stop"

    def reading(done: int, total: int) -> None:
        say(read=[done, total])
        if stopped():
            raise _Stop

    try:
        sampling = Sampling(**request.get("sampling") or {})
        ids = [int(i) for i in request["ids"]]
    except (KeyError, TypeError, ValueError) as err:
        raise UsageError(f"the request makes no sense: {err!r}") from err
    with _pictures(request.get("pictures") or []) as paths:
        prompt: Sequence[int] = ids
        if paths:
            seen = [model.sight.look({"path": path}) for path in paths]
            prompt = Prompt(ids, place(ids, seen, model.bundle.image["token_id"]))
        model.looks_up = request.get("lookup") is not False
        pieces = model.generate_ids(prompt, sampling, reading=reading)
        try:
            for piece in pieces:
                if piece.token_id is not None:
                    say(id=piece.token_id)
                if stopped():
                    break
        except _Stop:
            pass
        finally:
            getattr(pieces, "close", lambda: None)()
    say(stats=asdict(model.stats) if model.stats else None)


class _pictures:
    """The files of a question's pictures, for as long as it takes."""

    def __init__(self, encoded: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edge-") if encoded else None
        self._encoded = encoded

    def __enter__(self) -> list[str]:
        if self._folder is None:
            return []
        paths = []
        for i, text in enumerate(self._encoded):
            path = Path(self._folder.name) / f"{i}.image"
            try:
                path.write_bytes(base64.b64decode(text, validate=True))
            except (binascii.Error, TypeError) as err:
                raise UsageError("a picture did not arrive whole") from err
            paths.append(str(path))
        return paths

    def __exit__(self, *_: object) -> None:
        if self._folder:
            self._folder.cleanup()


def selftest(folder: Path) -> dict[str, Any]:
    """Load the bundle and compare its first greedy tokens with those of the export.

    Raises `InputError` when they differ: this device, or this runtime, computes something else.
    """
    bundle = bundles.read(folder)
    wanted = dict(bundle.selftest or {})
    with open_bundle(folder, check=False) as model:
        prompt = [int(i) for i in wanted.get("prompt") or ()] or model.tokenizer.encode(
            "Hello", add_special=True, parse_special=False
        )
        tokens = [int(i) for i in wanted.get("tokens") or ()]
        found = [t.id for t in generate(model.session, prompt, Sampling(max_tokens=len(tokens) or _PROBE))]
    if found != tokens and tokens:
        raise InputError(
            f"{bundle.name} says {found} here, and said {tokens} when it was proven",
            hint="this device, or the runtime on it, computes something else: the bundle must not run there",
        )
    from edge.runtimes import meter, threads

    peak_rss_bytes = meter.peak_rss_bytes()  # of the test alone, without the trial after it
    threads.once(folder, check=False)
    return {"bundle": bundle.id, "tokens": found, "compared": len(tokens), "peak_rss_bytes": peak_rss_bytes}


def ask(folder: Path, words: Sequence[str], inputs: TextIO) -> None:
    """A conversation for somebody at the device itself: no library but the runtime's own is needed.

    `words` are a question, which is answered; without them every line of `inputs` is one. Pictures
    (`--image FILE`) belong to the first question.
    """
    from edge.runtimes.conversation import Conversation

    rest = list(words)
    images: list[str] = []
    while rest[:1] == ["--image"]:
        if len(rest) < 2:
            raise UsageError("--image wants a file")
        images.append(rest[1])
        rest = rest[2:]
    with open_bundle(folder, check=False) as model:
        conversation = Conversation(model)
        if rest:
            _reply(conversation, " ".join(rest), images)
            return
        asking = inputs.isatty()
        if asking:
            sys.stderr.write(f"{model.bundle.name}; Ctrl-C stops an answer, Ctrl-D ends\n")
        for line in _asked(inputs, asking):
            if not line.strip():
                continue
            try:
                _reply(conversation, line.rstrip("\n"), images)
                images = []
            except EdgeError as err:
                sys.stderr.write(f"edge: {err}\n")


def _asked(inputs: TextIO, asking: bool) -> Iterator[str]:
    """Lines, as they come."""
    while True:
        try:
            if asking:
                sys.stdout.write("> ")
                sys.stdout.flush()
            if not (line := inputs.readline()):
                return
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            continue
        yield line


def _reply(conversation: Any, question: str, images: Sequence[str]) -> None:
    try:
        for piece in conversation.say(question, Sampling(temperature=0.0), images=images):
            sys.stdout.write("".join(c for c in piece.text if c.isprintable() or c in "\n\t"))
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()


def main(argv: Sequence[str]) -> int:
    try:
        if len(argv) < 2:
            raise UsageError("wanted: python -m edge.runtimes.worker FOLDER serve|selftest|bench|profile|act|ask")
        folder, verb = Path(argv[0]), argv[1]
        match verb:
            case "serve" | "act":
                # What a runtime or a tool prints must not get between the lines of the protocol.
                outputs = os.fdopen(os.dup(1), "wb")
                os.dup2(2, 1)
                if verb == "serve":
                    return serve(folder, sys.stdin.buffer, outputs)
                from edge.runtimes.act import linked

                return linked.serve(folder, sys.stdin.buffer, outputs)
            case "selftest":
                sys.stdout.write(json.dumps(selftest(folder)) + "\n")
            case "bench" | "profile":
                from edge.runtimes import bench_worker, profile_worker

                run = bench_worker.run if verb == "bench" else profile_worker.run
                sys.stdout.write(json.dumps(run({**json.loads(argv[2]), "bundle": str(folder)})) + "\n")
            case "ask":
                try:
                    ask(folder, argv[2:], sys.stdin)
                except EdgeError as err:
                    sys.stderr.write(f"edge: {err}\n")
                    return err.exit_code
            case other:
                raise UsageError(f"the worker knows no {other!r}")
    except EdgeError as err:
        sys.stdout.write(json.dumps({"error": err.message, "hint": err.hint, "code": err.exit_code}) + "\n")
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
