"""A tokenizer of fewer words: those that a text uses, what they are merged from, and every byte.

A token of byte-pair encoding comes from merges, and each merge from tokens that must stay too. With all of them
kept, text that uses kept tokens alone is cut exactly as before: the merge that the whole tokenizer applies next is
always among those that are left. Other text falls to smaller pieces, in the end to bytes, which are never left out.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError

_BYTE = tuple(f"<0x{i:02X}>" for i in range(256))
_ROUND = 64  # kernels like rows by the dozen


@dataclass(frozen=True)
class Trimmed:
    """Old ids in their new order: new id n was `kept[n]`; and the new tokenizer.json as data."""

    kept: tuple[int, ...]
    tokenizer: Mapping[str, Any]

    @cached_property
    def new_id(self) -> dict[int, int]:
        return {old: new for new, old in enumerate(self.kept)}


def trim(tokenizer: Mapping[str, Any], uses: Mapping[int, int], *, tokens: int | None) -> Trimmed:
    """The tokenizer with `tokens` tokens, or with those that are used and no more.

    `tokenizer` is tokenizer.json as data, `uses` how often each id was used. The most used stay; what room is left
    is filled with the tokens that were merged first when the tokenizer was made: the most frequent ones of its own
    text. The number is rounded up to a multiple of 64 while there are tokens. Raises `UsageError` for a tokenizer
    that is no byte-pair encoding, or for fewer tokens than must stay.
    """
    merged = _Merges(tokenizer)
    added = {int(t["id"]): str(t["content"]) for t in tokenizer.get("added_tokens") or ()}
    by_id = {i: t for t, i in merged.vocab.items()} | added
    kept = set(added) | {i for t, i in merged.vocab.items() if len(t) == 1 or t in _BYTE}
    kept |= {merged.vocab[t] for t in _named(tokenizer) if t in merged.vocab}
    if tokens is not None and not len(kept) <= tokens <= len(by_id):
        raise UsageError(
            f"a vocabulary of {tokens:,} tokens was asked for; this tokenizer has {len(by_id):,}, of which "
            f"{len(kept):,} are bytes, single characters and control tokens, which must stay"
        )
    room = len(by_id) if tokens is None else min(-(-tokens // _ROUND) * _ROUND, len(by_id))
    used = sorted((i for i in uses if i in by_id), key=lambda i: (-uses[i], merged.rank(i), i))
    for i in used:
        more = merged.closure(by_id[i]) | {i}
        if len(kept | more) <= room:
            kept |= more
    room = min(-(-len(kept) // _ROUND) * _ROUND, len(by_id)) if tokens is None else room
    for i in sorted(by_id, key=lambda i: (merged.rank(i), i)):
        if len(kept) >= room:
            break
        more = merged.closure(by_id[i]) | {i}
        if len(kept | more) <= room:
            kept |= more
    order = tuple(sorted(kept))
    return Trimmed(order, _rewritten(tokenizer, {old: new for new, old in enumerate(order)}))


def write_side_files(source: Path, folder: Path, trimmed: Trimmed) -> None:
    """tokenizer.json and every other file that names ids, with the new ones; tokenizer.model where there is one."""
    (folder / "tokenizer.json").write_text(json.dumps(trimmed.tokenizer, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for path in sorted(source.iterdir()):
        if path.suffix == ".jinja":
            (folder / path.name).write_bytes(path.read_bytes())
        # vocab.json and merges.txt say again what tokenizer.json says.
        elif path.suffix == ".json" and path.name not in ("tokenizer.json", "vocab.json", "config.json"):
            if path.name.endswith(".index.json"):
                continue
            data = json.loads(path.read_text(encoding="utf-8"))
            (folder / path.name).write_text(
                json.dumps(renumbered(data, trimmed.new_id), ensure_ascii=False, indent=2) + "\n", "utf-8"
            )
    if (source / "tokenizer.model").is_file():
        _write_sentencepiece(source / "tokenizer.model", folder / "tokenizer.model", trimmed)


def renumbered(data: Any, new_id: Mapping[int, int]) -> Any:
    """A configuration with new ids in every `..._token_id` and the like, and in `added_tokens_decoder`.

    An id that is no longer there, or never was, is left out of lists, and elsewhere becomes nothing.
    """
    if not isinstance(data, Mapping):
        return [renumbered(row, new_id) for row in data] if isinstance(data, list) else data
    out: dict[str, Any] = {}
    for key, value in data.items():
        if key == "added_tokens_decoder" and isinstance(value, Mapping):
            out[key] = {str(new_id[int(i)]): token for i, token in value.items() if int(i) in new_id}
        elif key.endswith(("token_id", "token_ids", "token_index")):
            out[key] = _ids(value, new_id)
        else:
            out[key] = renumbered(value, new_id)
    return out


def _ids(value: Any, new_id: Mapping[int, int]) -> Any:
    if isinstance(value, list):
        return [new_id[i] for i in value if i in new_id]
    return new_id.get(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Merges:
    """What each pair of tokens becomes, and in what order."""

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        model = tokenizer.get("model") or {}
        if model.get("type", "BPE") != "BPE" or not model.get("merges"):
            raise UsageError(
                f"a tokenizer of the kind {model.get('type')!r} cannot be trimmed",
                hint="byte-pair encodings can: those of Llama, Mistral, Qwen, Gemma, Phi and SmolLM",
            )
        self.vocab: dict[str, int] = model["vocab"]
        pairs = (tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"])
        self._ranks: dict[tuple[str, ...], int] = {pair: n for n, pair in enumerate(pairs)}
        first: dict[str, int] = {}
        for (a, b), n in self._ranks.items():
            first.setdefault(a + b, n)
        self._first = {self.vocab[t]: n for t, n in first.items() if t in self.vocab}

    def rank(self, token_id: int) -> int:
        """When the token was first merged; what was never merged comes last."""
        return self._first.get(token_id, len(self._ranks))

    def closure(self, token: str) -> set[int]:
        """Every token on the way from single characters to this one; nothing for one that merges do not make."""
        # Neighbours in a list with links, the pair of the lowest rank first.
        parts: list[str | None] = list(token)
        following = [*range(1, len(token)), -1]
        before = [-1, *range(len(token) - 1)]
        heap = [(r, i) for i in range(len(token) - 1) if (r := self._ranks.get((token[i], token[i + 1]))) is not None]
        heapq.heapify(heap)
        made: list[str] = []
        while heap:
            rank, i = heapq.heappop(heap)
            j = following[i] if parts[i] is not None else -1
            if j < 0 or self._ranks.get((parts[i] or "", parts[j] or "")) != rank:
                continue
            parts[i], parts[j] = f"{parts[i]}{parts[j]}", None
            following[i] = following[j]
            if following[i] >= 0:
                before[following[i]] = i
            made.append(parts[i] or "")
            for a, b in ((before[i], i), (i, following[i])):
                if a >= 0 and b >= 0 and (r := self._ranks.get((parts[a] or "", parts[b] or ""))) is not None:
                    heapq.heappush(heap, (r, a))
        if made and made[-1] == token:
            return {self.vocab[t] for t in made if t in self.vocab}
        return set()


def _named(tokenizer: Mapping[str, Any]) -> set[str]:
    """Tokens that the file itself speaks of: for what is unknown, and around a text."""
    found = {tokenizer["model"].get("unk_token")}
    found |= set(((tokenizer.get("post_processor") or {}).get("special_tokens") or {}).keys())
    return {t for t in found if t}


def _rewritten(tokenizer: Mapping[str, Any], new_id: Mapping[int, int]) -> dict[str, Any]:
    model = tokenizer["model"]
    vocab = {t: new_id[i] for t, i in model["vocab"].items() if i in new_id}
    merges = []
    for merge in model["merges"]:
        a, b = merge if isinstance(merge, list) else merge.split(" ")
        if a in vocab and b in vocab and a + b in vocab:
            merges.append(merge)
    made = dict(tokenizer)
    made["model"] = {**model, "vocab": dict(sorted(vocab.items(), key=lambda row: row[1])), "merges": merges}
    made["added_tokens"] = [{**t, "id": new_id[t["id"]]} for t in tokenizer.get("added_tokens") or ()]
    if tokenizer.get("post_processor"):
        made["post_processor"] = _post_processor(tokenizer["post_processor"], new_id)
    return made


def _post_processor(data: Any, new_id: Mapping[int, int]) -> Any:
    """Ids that are put around a text: `{"ids": [1]}` in a template, `["</s>", 2]` in the older kinds."""
    if isinstance(data, list):
        if len(data) == 2 and isinstance(data[0], str) and isinstance(data[1], int):
            return [data[0], new_id[data[1]]]
        return [_post_processor(row, new_id) for row in data]
    if not isinstance(data, Mapping):
        return data
    return {k: [new_id[i] for i in v] if k == "ids" else _post_processor(v, new_id) for k, v in data.items()}


def _write_sentencepiece(source: Path, target: Path, trimmed: Trimmed) -> None:
    """The same pieces in SentencePiece's own file, which llama.cpp's converter reads; scores stay as they are."""
    from sentencepiece import sentencepiece_model_pb2

    pb: Any = sentencepiece_model_pb2  # its classes are made when it is imported

    model = pb.ModelProto.FromString(source.read_bytes())
    pieces = [model.pieces[old] for old in trimmed.kept if old < len(model.pieces)]
    by_id = {i: t for t, i in trimmed.tokenizer["model"]["vocab"].items()}
    for new, piece in enumerate(pieces):
        if by_id.get(new, piece.piece) != piece.piece:
            raise InputError(f"tokenizer.model and tokenizer.json disagree: {piece.piece!r} is {by_id[new]!r} there")
    made = pb.ModelProto()
    made.CopyFrom(model)
    del made.pieces[:]
    made.pieces.extend(pieces)
    places = {piece.piece: i for i, piece in enumerate(pieces)}
    spec = made.trainer_spec
    spec.vocab_size = len(pieces)
    for role in ("unk", "bos", "eos", "pad"):
        if getattr(spec, f"{role}_id") >= 0 and (place := places.get(getattr(spec, f"{role}_piece"))) is not None:
            setattr(spec, f"{role}_id", place)
    target.write_bytes(made.SerializeToString())


def count(texts: Iterable[Sequence[int]]) -> dict[int, int]:
    """How often each id is used."""
    found: dict[int, int] = {}
    for ids in texts:
        for i in ids:
            found[i] = found.get(i, 0) + 1
    return found
