"""Fewer words: the tokenizer and the embeddings trimmed to a domain.

    [student.vocabulary]
    tokens = 12_288         # without it: those that the text uses, and no more

The domain is the recipe's text, or, without any, `words`: English chat, which ships with edge. Text of another domain
is still read and written, in more and smaller pieces. The weights that stay are as they were; with [train] the student
then learns to say and to read in pieces what its teacher has words for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.export import distance, sharded
from edge.export.checkpoint import Checkpoint
from edge.export.distill import vocabulary
from edge.export.distill.given import Given
from edge.export.sources.folder import open_folder
from edge.progress import Progress
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

LEARNS = False
_ROWS = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")
_CORPUS = Path(__file__).parents[2] / "corpus"


@dataclass(frozen=True)
class Options:
    """`words` is a list that ships with edge, `<name>_words.txt`: a word and how often it is used on each line."""

    tokens: int | None = None
    words: str = "english_chat"


def make(checkpoint: Checkpoint, options: Options, given: Given, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the trimmed checkpoint. Raises `UsageError` where it cannot be trimmed."""
    tables = [name for name in checkpoint.tensors if name.endswith(_ROWS)]
    if not any(name.endswith(_ROWS[0]) for name in tables):
        raise UsageError(f"{checkpoint.name} has no tensor embed_tokens.weight, so its vocabulary cannot be trimmed")
    progress.start("trimming the vocabulary")
    whole = json.loads((checkpoint.folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    uses = _listed(options.words, tokenizer) if given.text is None else vocabulary.count(given.text.windows)
    for i, n in vocabulary.count(given.sample.windows).items():  # its template's words stand before every answer
        uses[i] = uses.get(i, 0) + n
    if template is not None:
        asked = template.render([{"role": "user", "content": ""}], add_generation_prompt=True)
        uses |= dict.fromkeys(tokenizer.encode(asked), max(uses.values()) + 1)
    trimmed = vocabulary.trim(whole, uses, tokens=options.tokens)
    vocabulary.write_side_files(checkpoint.folder, folder, trimmed)
    config = vocabulary.renumbered(dict(checkpoint.config), trimmed.new_id)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and "vocab_size" in part:
            part["vocab_size"] = len(trimmed.kept)
    sharded.save(_tensors(checkpoint, trimmed, set(tables)), config, folder)
    made = open_folder(folder)
    before, after = (sum(_elements(c.tensors[n].shape) for n in c.tensors) for c in (checkpoint, made))
    return {
        "tokens": len(trimmed.kept),
        "of": tokenizer.vocab_size,
        "tokens_sha256": hashlib.sha256(json.dumps(trimmed.kept).encode()).hexdigest(),
        "parameters_saved": 1 - after / before,
        **distance.of_words(checkpoint, made, given.held_out, progress),
    }


def _listed(name: str, tokenizer: Tokenizer) -> dict[int, int]:
    """How often each id is used by the words of a list: alone, and after a space."""
    path = _CORPUS / f"{name}_words.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.name.removesuffix("_words.txt") for p in _CORPUS.glob("*_words.txt")))
        raise UsageError(f"there is no list of words {name!r}", hint=f"there are: {known}")
    uses: dict[int, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, n = line.partition(" ")
        for text in (f" {word}", word):
            for i in tokenizer.encode(text, parse_special=False):
                uses[i] = uses.get(i, 0) + int(n)
    return uses


def _tensors(checkpoint: Checkpoint, trimmed: vocabulary.Trimmed, tables: set[str]) -> Iterator[tuple[str, Any]]:
    """Every tensor as the file has it, those with a row for each token with fewer rows."""
    import torch
    from safetensors import safe_open

    rows = torch.tensor(trimmed.kept)
    for name, info in checkpoint.tensors.items():
        with safe_open(checkpoint.folder / info.file, framework="pt") as file:
            tensor = file.get_tensor(name)
        yield name, tensor[rows] if name in tables else tensor


def _elements(shape: tuple[int, ...]) -> int:
    n = 1
    for d in shape:
        n *= d
    return n
