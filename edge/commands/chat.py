"""Talk to a bundle, offline.

In a terminal it is a conversation: the answer streams, Ctrl-C stops it, /help lists the
commands; with a model that sees, a picture is attached by dragging its file into the line.
With -p, or when text is piped in, it answers once and prints the answer alone.

When the conversation outgrows the context, the oldest turns are left out, and it says so;
the system prompt stays. Nothing that a model writes can control the terminal.

With --on, the answer is computed on a device that edge flash has put a bundle on: BUNDLE is then
its folder here, its name or its id, and without one it is what runs there.

examples:
  edge chat out/SmolLM2-135M-Instruct-gguf-q8_0
  edge chat BUNDLE -p "What is the capital of France?" --temperature 0
  git diff | edge chat BUNDLE --system "Summarize this change in one sentence."
  edge chat BUNDLE --image cat.jpg -p "What is this?"
  edge chat BUNDLE --save talk.json
  edge chat BUNDLE --resume talk.json --save talk.json
  edge chat BUNDLE -p "Hello" --json
  edge chat --on ssh://pi@raspberrypi
  edge chat BUNDLE --on adb: -p "Hello"
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge.chat import options
from edge.errors import InputError, UsageError

if TYPE_CHECKING:
    from edge.chat.terminal import Renderer
    from edge.runtimes.model import Model

_PIPE_LIMIT_BYTES = 4 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, nargs="?", help="a folder that edge export made")
    parser.add_argument("--on", metavar="DEVICE", help="ask it where it was flashed: ssh://user@host, adb:SERIAL, ...")
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="answer this once; - reads it from standard input")
    parser.add_argument(
        "--image", type=Path, action="append", default=[], metavar="FILE",
        help="a picture that the first question is about; may be given several times",
    )  # fmt: skip
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before everything else")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the conversation there after every answer")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on with a kept conversation")
    parser.add_argument("--any-bundle", action="store_true", help="even if it was held with another bundle")
    parser.add_argument("--markdown", action="store_true", help="show Markdown (needs rich), block by block")
    parser.add_argument("--json", action="store_true", help="print one JSON object: the answer and what it took")
    parser.add_argument("--stream", action="store_true", help="with --json: also a line for each piece, as it comes")
    options.add_arguments(parser)
    group = parser.add_argument_group("how the model runs")
    group.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: the bundle's)")
    group.add_argument("--threads", type=int, metavar="N", help="default: what is fastest here, tried once")
    group.add_argument("--no-check", action="store_true", help="do not compare the files with the manifest")
    group.add_argument("--no-lookup", action="store_true", help="guess nothing ahead; answers are the same either way")
    group.add_argument("--draft", metavar="BUNDLE", type=Path, help="a smaller model that guesses ahead, where it pays")


def run(args: argparse.Namespace) -> int:
    from edge.chat import line, once, terminal
    from edge.runtimes import kept
    from edge.runtimes.conversation import Conversation

    prompt = _prompt(args)
    if prompt is None and args.json:
        raise UsageError("--json answers once", hint="give the question with -p, or pipe it in")
    if args.stream and not args.json:
        raise UsageError("--stream goes with --json", hint="without it, the answer streams anyway")
    if args.draft is not None and (args.on is not None or args.no_lookup):
        raise UsageError(
            f"--draft and {'--on' if args.on is not None else '--no-lookup'} exclude each other",
            hint="a draft guesses ahead for a model on this machine" if args.on is not None else None,
        )
    if args.markdown and args.json:
        raise UsageError("--markdown and --json exclude each other")
    renderer = _renderer(markdown=args.markdown)
    with _opened(args) as model:
        model.looks_up = not args.no_lookup
        sampling = options.sampling(args, model.folder)
        if not model.bundle.proven:
            print("edge: this bundle is unproven: it was never compared with its source", file=sys.stderr)
        conversation = Conversation(model)
        if args.resume:
            conversation.load(args.resume, any_bundle=args.any_bundle)
            try:
                kept.restore(model, kept.beside(args.resume))
            except InputError as err:
                print(f"edge: {err.message}; the conversation is read again", file=sys.stderr)
        if args.system is not None:
            conversation.system = args.system
        for path in args.image:  # what cannot be seen is said before anything is asked
            notes = model.sight.look({"type": "image", "path": path}).notes
            if notes:
                print(f"edge: {path.name}: {'; '.join(notes)}", file=sys.stderr)
        if prompt is None:
            read, hint = line.reader(tuple(terminal.COMMANDS), line.history_file())
            chat = terminal.Terminal(
                conversation, sampling, read, save=args.save, any_bundle=args.any_bundle, renderer=renderer,
                images=args.image,
            )  # fmt: skip
            if hint:
                chat.note(hint)
            chat.run()
            _keep(args, model)
            return 0
        if args.json:
            once.answer_json(conversation, prompt, sampling, stream=args.stream, images=args.image)
        else:
            once.answer(conversation, prompt, sampling, renderer, args.image)
        if args.save:
            conversation.save(args.save)
            _keep(args, model)
    return 0


def _keep(args: argparse.Namespace, model: Model) -> None:
    """Keep the cache beside the conversation. What cannot be kept is only read again."""
    from edge.runtimes import kept

    if args.save and args.save.is_file():
        try:
            kept.keep(model, kept.beside(args.save))
        except OSError as err:
            print(f"edge: what the model read is not kept: {err.strerror or err}", file=sys.stderr)


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[Model]:
    """The model: of the bundle's folder, or on the device."""
    if args.on is None:
        from edge.runtimes import threads
        from edge.runtimes.model import open_bundle

        if args.bundle is None:
            raise UsageError("which bundle?", hint="give its folder, or a device with --on")
        # What makes no sense is said before a model is loaded.
        options.sampling(args, args.bundle)
        if args.threads is None:
            threads.once(args.bundle, check=not args.no_check)
        with open_bundle(
            args.bundle, threads=args.threads, context_length=args.context, check=not args.no_check
        ) as model:
            if args.draft is not None:
                from edge.runtimes.drafting import guess_for

                print(f"edge: {guess_for(model, args.draft, check=not args.no_check)}", file=sys.stderr)
            yield model
        return
    from edge.devices import book, installed
    from edge.devices.remote import open_remote

    [target] = book.find([args.on])
    wanted = None if args.bundle is None else installed.named(args.bundle)
    device = target.connect()
    try:
        with open_remote(device, wanted, threads=args.threads, context_length=args.context) as model:
            yield model
    finally:
        device.close()


def _renderer(*, markdown: bool) -> Renderer:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal of another alphabet shows what it can.
        sys.stdout.reconfigure(errors="replace")
    if markdown:
        from edge.chat.markdown import Rendered

        return Rendered()
    from edge.chat.terminal import Plain

    return Plain()


def _prompt(args: argparse.Namespace) -> str | None:
    """What to answer once; `None` for a conversation in the terminal."""
    text: str | None = args.prompt
    if text == "-" or (text is None and not sys.stdin.isatty()):
        raw = sys.stdin.buffer.read(_PIPE_LIMIT_BYTES + 1)
        if len(raw) > _PIPE_LIMIT_BYTES:
            raise UsageError(f"more than {_PIPE_LIMIT_BYTES >> 20} MiB were piped in, which fits no context")
        text = raw.decode("utf-8", errors="replace").rstrip("\n")
    if text is not None and not text.strip():
        raise UsageError("the question is empty", hint='ask with: edge chat BUNDLE -p "..."')
    return text
