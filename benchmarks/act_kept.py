"""How many held-out requests `smollm2-act` still answers rightly at 4 bits, with a grammar and without.

The cases are those of its card (`edge.export.training.act.requests.held_out`), judged as there: the same tools with the
same arguments, or the very words of the right question back or refusal. Each is answered greedily by the source, in
torch and float32, and by bundles, on their own runtime. Under the grammar an answer is a call of the tools that are
shown, a question back or a refusal, as `edge act` holds it; what had that form without one is not asked again, because
greedy decoding says the same then. `python -m benchmarks.act_kept --ask-all BUNDLE` asks again nevertheless, keeps
nothing, and counts what differs.

    python -m benchmarks.act_kept                           the source
    python -m benchmarks.act_kept out/smollm2-act-*         bundles

Lines are kept as they come; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.race import RESULTS
from edge.export.training.act import requests
from edge.export.training.act.requests import Case
from edge.export.training.act.score import of, right
from edge.export.zoo._assemble import ADAPTERS
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.grammar import Grammar, Grammars
from edge.runtimes.session import Mask, Sampling, generate
from edge.runtimes.tokenizer import Tokenizer
from edge.runtimes.tool_calls import read, syntax_of

KEPT = RESULTS / "act_kept.jsonl"
SOURCE = "source"
_CASES = 120  # of the splits with an aim; a quarter of it of the others
_SAMPLING = Sampling(max_tokens=192)


@dataclass(frozen=True)
class Asked:
    """A case, what it is called, and its prompt."""

    id: str
    case: Case
    prompt: tuple[int, ...]

    @property
    def number(self) -> int:
        """Which case of its split it is."""
        return int(self.id.rpartition("-")[2])


@dataclass(frozen=True)
class Subject:
    """Who answers: its name, what it says to many prompts, and to one under a mask."""

    name: str
    about: Mapping[str, str]
    grammars: Grammars
    syntax: Any
    free: Callable[[Sequence[Asked]], Iterator[list[int]]]
    held: Callable[[Asked, Mask], list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE", help="without one, the source")
    parser.add_argument("-o", "--output", type=Path, default=KEPT)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--splits", nargs="+", choices=requests.SPLITS, default=requests.SPLITS, help="only these")
    parser.add_argument("--cases", type=int, default=_CASES, metavar="N", help="only the first N of each split")
    parser.add_argument("--ask-all", action="store_true", help="only see whether a grammar changes sound answers")
    args = parser.parse_args()
    for subject in [_bundle(b, args.threads) for b in args.bundles] or [_source()]:
        with subject as (who, tokenizer, template):
            asked = [a for a in _asked(tokenizer, template) if a.case.split in args.splits and a.number < args.cases]
            if args.ask_all:
                _ask_all(who, asked[::4], tokenizer)
                continue
            known = {(r["subject"], r["id"]) for r in kept(args.output)}
            rest = [a for a in asked if (who.name, a.id) not in known]
            for one, ids in zip(rest, who.free(rest), strict=True):
                record = _judged(who, one, ids, tokenizer)
                with args.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(table(kept(args.output)), end="")


def kept(path: Path = KEPT) -> list[dict[str, Any]]:
    """The lines that are there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _asked(tokenizer: Tokenizer, template: ChatTemplate) -> list[Asked]:
    """All cases, the splits in turn: a run that was stopped has seen some of each."""
    found = []
    for split in requests.SPLITS:
        for n, case in enumerate(requests.held_out(split, of(split, _CASES))):
            text = template.render(list(case.messages), tools=list(case.tools))
            found.append(Asked(f"{split}-{n}", case, tuple(tokenizer.encode(text))))
    return sorted(found, key=lambda a: a.number)


def _judged(who: Subject, one: Asked, ids: list[int], tokenizer: Tokenizer) -> dict[str, Any]:
    said = tokenizer.decode(ids, skip_special=True)
    grammar = _grammar(who, one.case)
    has_form = grammar.accepts(said)
    held = said if has_form else tokenizer.decode(who.held(one, grammar.mask(_SAMPLING)), skip_special=True)
    return {
        "subject": who.name, "id": one.id, "split": one.case.split, **who.about,
        "right": right(one.case, said), "sound": read(said).sound, "said": said,
        "right_held": right(one.case, held), "sound_held": read(held).sound and grammar.accepts(held),
        "said_held": None if has_form else held,
    }  # fmt: skip


def _grammar(who: Subject, case: Case) -> Grammar:
    return who.grammars.tools(case.tools, who.syntax)


def _ask_all(who: Subject, asked: Sequence[Asked], tokenizer: Tokenizer) -> None:
    sound = differ = 0
    for one, ids in zip(asked, who.free(asked), strict=True):
        grammar = _grammar(who, one.case)
        if grammar.accepts(tokenizer.decode(ids, skip_special=True)):
            sound += 1
            differ += who.held(one, grammar.mask(_SAMPLING)) != ids
    print(f"{who.name}: {differ} of {sound} answers that had the form differ under the grammar", flush=True)


@contextlib.contextmanager
def _bundle(folder: Path, threads: int | None) -> Iterator[tuple[Subject, Tokenizer, ChatTemplate]]:
    from edge.runtimes.model import open_bundle

    with open_bundle(folder, threads=threads) as model:
        assert model.template is not None
        stop_ids = model.bundle.stop_ids

        def asked(one: Asked, mask: Mask | None = None) -> list[int]:
            model.session.rewind(0)
            said = generate(model.session, one.prompt, _SAMPLING, stop_ids=stop_ids, mask=mask)
            return [t.id for t in said]

        who = Subject(
            f"{model.bundle.format} {model.bundle.quantization}", {"bundle_id": model.bundle.id},
            Grammars.of(model), syntax_of(model.template.source), lambda some: map(asked, some), asked,
        )  # fmt: skip
        yield who, model.tokenizer, model.template


@contextlib.contextmanager
def _source() -> Iterator[tuple[Subject, Tokenizer, ChatTemplate]]:
    from edge.export.gate.held_calls import Reference
    from edge.export.gate.replies import source_replies
    from edge.export.reference import load_model
    from edge.export.source import open_source

    checkpoint = open_source("smollm2-act")
    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    assert template is not None
    model = load_model(checkpoint)
    stop_ids = [i for i in (tokenizer.id_of("<|im_end|>"),) if i is not None]

    def free(asked: Sequence[Asked]) -> Iterator[list[int]]:
        for start in range(0, len(asked), 16):
            prompts = [a.prompt for a in asked[start : start + 16]]
            for reply in source_replies(checkpoint, prompts, stop_ids, _SAMPLING.max_tokens, lambda: model):
                yield list(reply.ids)

    def held(one: Asked, mask: Mask) -> list[int]:
        session: Any = Reference(lambda: model)
        return [t.id for t in generate(session, one.prompt, _SAMPLING, stop_ids=stop_ids, mask=mask)]

    about = {"checkpoint_id": checkpoint.id}
    yield (
        Subject(SOURCE, about, Grammars(tokenizer, stop_ids), syntax_of(template.source), free, held),
        tokenizer,
        template,
    )


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """For each subject, without and with the grammar, how many cases of each split are right, and what can be read.

    The source stands there as its card has it, too. Cases are compared one by one where it answered the same ones.
    """
    splits = [s for s in requests.SPLITS if any(r["split"] == s for r in records)]
    card = json.loads((ADAPTERS / "smollm2-act" / "score.json").read_text(encoding="utf-8"))["exact"]
    heads = ("", *splits, "against the source, case by case", "can be read")
    rows = [heads, ("---",) * len(heads)]
    rows.append(("source, as on its card", *(_of(card[s]["right"], card[s]["of"]) for s in splits), "", ""))
    names = list(dict.fromkeys(r["subject"] for r in records))
    for name in sorted(names, key=lambda n: (n != SOURCE, n)):
        for more, says in (("", "no grammar"), ("_held", "grammar")):
            own = {r["id"]: r for r in records if r["subject"] == name}
            theirs = {r["id"]: r for r in records if r["subject"] == SOURCE and r["id"] in own}
            counted = [[r["right" + more] for r in own.values() if r["split"] == s] for s in splits]
            compared = name != SOURCE and theirs.keys() == own.keys()
            rows.append((
                f"{name}, {says}", *map(_share, counted), _difference(own, theirs, more) if compared else "",
                _share([r["sound" + more] for r in own.values()]),
            ))  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _difference(own: Mapping[str, Any], theirs: Mapping[str, Any], more: str) -> str:
    """By how many points of all cases, and which way."""
    both = [(own[i]["right" + more], theirs[i]["right" + more]) for i in theirs]
    lost, won = sum(b and not a for a, b in both), sum(a and not b for a, b in both)
    return f"{100 * (won - lost) / len(both):+.1f} points: {lost} lost, {won} won"


def _share(right: Sequence[bool]) -> str:
    return _of(sum(right), len(right))


def _of(some: int, of_all: int) -> str:
    return f"{some} of {of_all} ({100 * some / of_all:.1f} %)" if of_all else ""


if __name__ == "__main__":
    main()
