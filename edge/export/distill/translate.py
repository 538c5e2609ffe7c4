"""A text, and what a teacher said about it, in the tokens of a trimmed vocabulary.

A token that was left out becomes the pieces that the trimmed tokenizer cuts it into. After whole tokens the teacher's
answers are still known: the probability of a piece is that of all tokens that begin with it. Within a token the text
itself is the answer, for what a teacher writes is drawn from what it expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edge.bundle import sha256_of
from edge.export.calibrate import Calibration
from edge.export.distill import store, texts
from edge.runtimes.tokenizer import Tokenizer


class Words:
    """From the tokens of `whole` to those of `trimmed`, which has some of the same and every byte."""

    def __init__(self, whole: Tokenizer, trimmed: Tokenizer) -> None:
        self._whole, self._trimmed = whole, trimmed
        self.vocab_size = trimmed.vocab_size
        self._pieces = list(_pieces(whole, trimmed))
        self._first = np.array([pieces[0] if pieces else -1 for pieces in self._pieces])

    def text(self, ids: Iterable[int]) -> tuple[int, ...]:
        """The same text in the trimmed tokens."""
        return tuple(piece for i in ids for piece in self._pieces[i])

    def calibration(self, given: Calibration) -> Calibration:
        """All windows of a text in the trimmed tokens."""
        return texts.of_windows([self.text(window) for window in given.windows], given.source)

    def agrees(self, ids: Iterable[int]) -> bool:
        """Whether the trimmed tokenizer cuts this text just so: pieces of neighbours may make a token, and windows end
        within characters."""
        asked = list(ids)
        return self._trimmed.encode(self._whole.decode(asked)) == list(self.text(asked))

    def records(self, old: np.ndarray, k: int) -> np.ndarray:
        """A text's answers `(tokens,)` as those about its pieces `(pieces,)`, with `k` likeliest next tokens each."""
        pieces = [self._pieces[i] for i in old["token"].tolist()]
        ends = np.cumsum([len(p) for p in pieces])
        out = np.zeros(int(ends[-1]), store.record_type(k, self.vocab_size))
        out["token"] = [piece for p in pieces for piece in p]
        out["logs"], out["rest"] = store.LEAST, store.LEAST
        whole = dict(zip((ends - 1).tolist(), old, strict=True))
        for at, row in enumerate(out):
            if at in whole:
                ids, shares, others = self._merged(whole[at], k)
            else:
                ids, shares, others = out["token"][at + 1 : at + 2], np.ones(1), 0.0
            spare = np.setdiff1d(np.arange(min(2 * k, self.vocab_size)), ids)[: k - len(ids)]
            row["ids"] = np.concatenate([ids, spare])
            row["logs"][: len(ids)] = _logs(shares)
            row["rest"] = _logs(np.array(others))
        return out

    def _merged(self, row: np.void, k: int) -> tuple[np.ndarray, np.ndarray, float]:
        """First pieces, most likely first, the probability of each, and that of all others together."""
        first = self._first[row["ids"]]
        ids, at = np.unique(first, return_inverse=True)
        shares = np.bincount(at, np.exp(row["logs"].astype(np.float64)))
        others = float(np.exp(row["rest"].astype(np.float64)))
        known = ids >= 0  # rows of an embedding may have no token
        others += float(shares[~known].sum())
        ids, shares = ids[known], shares[known]
        order = np.argsort(-shares, kind="stable")
        return ids[order[:k]], shares[order[:k]], others + float(shares[order[k:]].sum())

    def answers(self, old: store.Store, folder: Path, of: Path) -> store.Store:
        """The store `old` in trimmed tokens, without texts that are cut otherwise; `of` is the folder of `old`."""
        k = store.fitting(old.k, self.vocab_size)
        return store.write(folder, self._all(old, k), k=k, vocab_size=self.vocab_size, of=sha256_of(of / "index.json"))

    def _all(self, old: store.Store, k: int) -> Iterator[np.ndarray]:
        for i in range(len(old)):
            if self.agrees(old[i]["token"].tolist()):
                yield self.records(old[i], k)


def _pieces(whole: Tokenizer, trimmed: Tokenizer) -> Iterator[tuple[int, ...]]:
    """Of each of the whole vocabulary's tokens, what the trimmed one cuts it into; of ids without a token, nothing."""
    from tokenizers import Tokenizer as Inner

    before, after = Inner.from_str(whole.to_json()), Inner.from_str(trimmed.to_json())
    for i in range(whole.vocab_size):
        token = before.id_to_token(i)
        kept = None if token is None else after.token_to_id(token)
        if kept is not None:
            yield (kept,)
        else:
            yield () if token is None else tuple(piece.id for piece in after.model.tokenize(token))


def _logs(shares: np.ndarray) -> np.ndarray:
    """Their logarithms, as half precision holds them."""
    return np.log(shares, out=np.full(shares.shape, store.LEAST), where=shares > 0)
