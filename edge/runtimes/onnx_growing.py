"""ONNX decoders that were traced: keys and values go in, and come out longer. Slower than a cache in place, as exact.

What optimum exports, with `position_ids` among its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, InputError, UsageError
from edge.runtimes.session import ContextFull

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 128
_NUMPY = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_PLAIN = {"input_ids", "attention_mask", "position_ids"}


class GrowingSession:
    """One onnxruntime session; see `edge.runtimes.session.Session`."""

    def __init__(self, inner: Any, *, context_length: int) -> None:
        import numpy as np

        inputs = {i.name: i for i in inner.get_inputs()}
        outputs = {o.name: o for o in inner.get_outputs()}
        past = [n for n in inputs if n.startswith("past_key_values.")]
        present = [n.replace("past_key_values", "present") for n in past]
        if set(inputs) - set(past) != _PLAIN or not past or set(outputs) != {"logits", *present}:
            raise InputError(
                f"this is no decoder with a growing cache: its inputs are {', '.join(inputs)[:200]}",
                hint="export it again",
            )
        self._inner: Any = inner
        self._wanted = ["logits", *present]
        self.context_length = context_length
        self.vocab_size = int(outputs["logits"].shape[-1])
        self._past: dict[str, np.ndarray] = {
            n: np.zeros((1, inputs[n].shape[1], 0, inputs[n].shape[3]), _NUMPY[inputs[n].type]) for n in past
        }

    @property
    def position(self) -> int:
        return int(next(iter(self._past.values())).shape[2]) if self._past else 0

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        self._check(tokens)
        for start in range(0, len(tokens), _CHUNK):
            rows = self._run(tokens[start : start + _CHUNK])
        last: np.ndarray = rows[-1]
        return last

    def feed_all(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._check(tokens)
        return np.concatenate([self._run(tokens[i : i + _CHUNK]) for i in range(0, len(tokens), _CHUNK)])

    def feed_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        raise UsageError("this ONNX bundle takes token ids only: it is no vision-language model")

    def rewind(self, n_tokens: int) -> None:
        self._open()
        if not 0 <= n_tokens <= self.position:
            raise UsageError(f"cannot rewind to {n_tokens}: the cache holds {self.position} tokens")
        self._past = {name: values[:, :, :n_tokens] for name, values in self._past.items()}

    def another(self) -> GrowingSession:
        """A session on the same weights, with a cache of its own."""
        self._open()
        return GrowingSession(self._inner, context_length=self.context_length)

    def keep(self) -> list[np.ndarray]:
        """What the cache holds, for `restore`."""
        self._open()
        return list(self._past.values())

    def restore(self, n_tokens: int, kept: Sequence[np.ndarray]) -> None:
        """Hold what was kept instead. `InputError` when it does not fit; the cache is as it was then."""
        self._open()
        wanted = [(*v.shape[:2], n_tokens, v.shape[3]) for v in self._past.values()]
        if [k.shape for k in kept] != wanted:
            raise InputError("this cache has another shape than the model's")
        self._past = dict(zip(self._past, kept, strict=True))

    def close(self) -> None:
        self._inner = None
        self._past = {}

    def _run(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits `(n, vocab)` of these tokens, float32; the cache is as before when it fails."""
        import numpy as np

        at, n = self.position, len(tokens)
        feeds = {
            "input_ids": np.asarray(tokens, np.int64)[None],
            "attention_mask": np.ones((1, at + n), np.int64),
            "position_ids": np.arange(at, at + n, dtype=np.int64)[None],
            **{name: np.ascontiguousarray(values) for name, values in self._past.items()},
        }
        try:
            logits, *grown = self._inner.run(self._wanted, feeds)
        # onnxruntime raises its own exception types, none of which is exported.
        except Exception as err:  # noqa: BLE001
            reason = (str(err).splitlines() or [type(err).__name__])[0][:300]
            raise EdgeError(
                f"onnxruntime failed at token {at}: {reason}",
                hint="check the bundle with: edge inspect BUNDLE --check",
            ) from None
        self._past = dict(zip(self._past, grown, strict=True))
        rows: np.ndarray = logits[0].astype(np.float32, copy=False)
        return rows

    def _open(self) -> None:
        if self._inner is None:
            raise UsageError("this session is closed", hint="open the bundle again")

    def _check(self, tokens: Sequence[int]) -> None:
        self._open()
        if not len(tokens):
            raise UsageError("there is nothing to feed: no tokens were given")
        low, high = min(tokens), max(tokens)
        if low < 0 or high >= self.vocab_size:
            raise UsageError(f"token id {low if low < 0 else high} is outside the vocabulary of {self.vocab_size}")
        if self.position + len(tokens) > self.context_length:
            raise ContextFull(self.position, len(tokens), self.context_length)
