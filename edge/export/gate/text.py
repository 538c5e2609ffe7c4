"""Tokenizer and chat template: the same ids and the same bytes as the source gives."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from edge.export.checkpoint import Checkpoint
from edge.export.reference import load_tokenizer
from edge.export.stress import stress_corpus
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

N_STRINGS = 2_000
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " two  words\n"}],
    [
        {"role": "user", "content": "{{ 7 * 7 }} <b>\u00fc</b>"},
        {"role": "assistant", "content": "49"},
        {"role": "user", "content": "again"},
    ],
)


def tokenizer(checkpoint: Checkpoint, folder: Path, embedded: Any = None) -> tuple[dict[str, object], list[str]]:
    """Ids of the packed tokenizer against the source's own, as `transformers` runs it.

    `embedded(texts)` gives the ids of a second tokenizer that the model file carries, if it does.
    Such a one takes characters as they come; where the source composes them first (NFC), it is given
    composed text, and the record says how many strings other programs would have to compose.
    """
    source = load_tokenizer(checkpoint)
    try:
        packed = Tokenizer.load(folder)
    except EdgeError as err:
        return {}, [f"the packed tokenizer cannot be read: {err.message}"]
    composed = _composer(folder)
    strings = stress_corpus(N_STRINGS, special=tuple(source.all_special_tokens))
    wanted = [source(s, add_special_tokens=False)["input_ids"] for s in strings]
    failures = []
    record: dict[str, object] = {"strings": len(strings)}
    for name, ids in (
        ("packed", [packed.encode(s) for s in strings]),
        ("embedded", None if embedded is None else embedded([composed(s) for s in strings])),
    ):
        if ids is None:
            continue
        if name == "embedded" and (apart := sum(composed(s) != s for s in strings)):
            record["embedded_composed"] = apart
        wrong = [s for s, a, b in zip(strings, wanted, ids, strict=True) if list(a) != list(b)]
        record[f"{name}_different"] = len(wrong)
        if wrong:
            failures.append(
                f"the {name} tokenizer gives other ids for {len(wrong)} of {len(strings)} strings, {wrong[0]!r} first"
            )
    return record, failures


def _composer(folder: Path) -> Callable[[str], str]:
    """What tokenizer.json does to characters before anything else, when that is to compose them (NFC)."""
    normalizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")).get("normalizer") or {}
    first = (normalizer.get("normalizers") or [normalizer])[0]
    return (lambda text: unicodedata.normalize("NFC", text)) if first.get("type") == "NFC" else lambda text: text


def template(
    checkpoint: Checkpoint, folder: Path, conversations: Sequence[list[dict[str, str]]] = CONVERSATIONS
) -> tuple[dict[str, object], list[str]]:
    """The packed template's text against the source's, as `transformers` renders it, byte for byte.

    A conversation that the source's template refuses must be refused by the packed one too.
    """
    source = load_tokenizer(checkpoint)
    try:
        packed = ChatTemplate.load(folder)
    except EdgeError as err:
        return {}, [f"the packed chat template cannot be used: {err.message}"]
    if source.chat_template is None:
        extra = ["the bundle has a chat template, its source has none"] if packed else []
        return {"template": None}, extra
    if packed is None:
        return {"template": None}, ["the source has a chat template, the bundle has none"]
    failures: list[str] = []
    compared = 0
    for messages in conversations:
        for prompt in (True, False):
            wanted = _or_refusal(
                lambda m=messages, p=prompt: source.apply_chat_template(m, tokenize=False, add_generation_prompt=p)
            )
            found = _or_refusal(lambda m=messages, p=prompt: packed.render(m, add_generation_prompt=p))
            compared += 1
            if wanted != found and not failures:
                failures.append(f"the chat template gives {found!r:.120}, the source's gives {wanted!r:.120}")
    return {"sha256": packed.sha256, "conversations": compared}, failures


def _or_refusal(render: Any) -> str | None:
    # transformers raises Jinja's own errors, ours are EdgeErrors: either way, no text came out.
    try:
        return str(render())
    except Exception:  # noqa: BLE001
        return None
