"""One tokenizer for all runtimes: `tokenizer.json`, run by the `tokenizers` library."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from edge.errors import InputError, UsageError, require

_LIMIT_BYTES = 256 << 20  # the largest known vocabularies are below 40 MB
_REPLACEMENT = "\ufffd"


class Tokenizer:
    """Text to ids and back. Not for use from several threads at once."""

    def __init__(self, inner: Any, config: Mapping[str, Any]) -> None:
        self._inner = inner
        self.config = config

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `tokenizer.json` and, where there is one, `tokenizer_config.json`.

        Raises `UsageError` when there is no tokenizer, `InputError` when it is damaged.
        """
        require("tokenizers", extra="all", purpose="turning text into tokens")
        from tokenizers import Tokenizer as Inner

        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise UsageError(
                f"{folder} has no tokenizer.json",
                hint="load it with transformers.AutoTokenizer and call save_pretrained: that writes one",
            )
        if path.stat().st_size > _LIMIT_BYTES:
            raise InputError(f"{path} is larger than {_LIMIT_BYTES >> 20} MiB, which no tokenizer is")
        try:
            inner = Inner.from_file(str(path))
        # The library raises plain Exception; its Rust side may panic on hostile input.
        except BaseException as err:
            if isinstance(err, KeyboardInterrupt):
                raise
            words = str(err).splitlines()[0] if str(err) else type(err).__name__
            raise InputError(f"{path} is not a tokenizer that can be read: {words}") from None
        inner.no_truncation()
        inner.no_padding()
        _give_back()
        return cls(inner, read_config(Path(folder) / "tokenizer_config.json"))

    @property
    def vocab_size(self) -> int:
        """Added tokens included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of control tokens, which `decode(skip_special=True)` leaves out."""
        added = self._inner.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    def vocabulary(self) -> dict[str, int]:
        """The id of every token, by how the tokenizer spells it."""
        return dict(self._inner.get_vocab(with_added_tokens=True))

    def to_json(self) -> str:
        """The whole of it as `tokenizer.json`, for programs that build their own from it."""
        return str(self._inner.to_str())

    def id_of(self, token: str) -> int | None:
        """The id of exactly this token, or `None`."""
        found = self._inner.token_to_id(token)
        return None if found is None else int(found)

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Ids of `text`.

        `add_special` adds what the tokenizer puts around a text of its own accord, such as a
        first token. With `parse_special` false, control tokens spelled out in `text` are read
        as plain text: for what users type.
        """
        self._inner.encode_special_tokens = not parse_special
        try:
            return list(self._inner.encode(text, add_special_tokens=add_special).ids)
        finally:
            self._inner.encode_special_tokens = False

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return str(self._inner.decode(list(ids), skip_special_tokens=skip_special))

    def stream(self, *, skip_special: bool = True) -> TextStream:
        """A decoder that takes ids one by one and gives text as soon as it is certain."""
        return TextStream(self, skip_special=skip_special)


class TextStream:
    """Incremental decoding: the pieces put together are what `decode` gives for all ids.

    Decodes a short window with and without the newest ids and gives the difference, because a
    token's text may depend on the tokens before it (a leading space, half a character).
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special
        self._ids: list[int] = []
        self._start = 0  # where the window begins
        self._given = 0  # up to where the window's text has been given

    def push(self, token_id: int) -> str:
        """Text that became certain by this id; empty while a character is incomplete."""
        self._ids.append(token_id)
        before, now = self._texts()
        if len(now) <= len(before) or now.endswith(_REPLACEMENT):
            return ""
        self._start, self._given = self._given, len(self._ids)
        return now[len(before) :]

    def flush(self) -> str:
        """What is left at the end, incomplete characters as U+FFFD."""
        before, now = self._texts()
        self._start = self._given = len(self._ids)
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        decode = self._tokenizer.decode
        before = decode(self._ids[self._start : self._given], skip_special=self._skip)
        return before, decode(self._ids[self._start :], skip_special=self._skip)


def _give_back() -> None:
    """Return what parsing took to the system: a third of what a vocabulary of 49,152 words leaves behind."""
    # Only glibc keeps it, and only glibc has the call.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object of a bounded file, `{}` when there is none. `InputError` when it is damaged."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} is larger than {_LIMIT_BYTES >> 20} MiB, which no such file is")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is not sound JSON: {err}") from err
    if not isinstance(data, dict):
        raise InputError(f"{path}: wanted an object, found {type(data).__name__}")
    return data
