"""Pictures in a conversation: from the parts of messages to places in a prompt, and features for them.

A message's content is text, or a list of parts:

    {"type": "text", "text": "What is this?"}
    {"type": "image", "path": "photo.jpg"}           or "data": bytes, or a data: URI
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}
"""

from __future__ import annotations

import functools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, InputError, UsageError
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.image import open_image
from edge.runtimes.pixels import Views, views

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.encoders import Encoder
    from edge.runtimes.session import Session

Message = Mapping[str, Any]
_FEATURES_BYTES = 64 << 20  # of the pictures that were seen last
_PICTURES = 64
_PROBE = "Xq7Zw"


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture that was opened and cut: its views, width and height, what had to be decided, a hash of its pixels."""

    views: Views
    size: tuple[int, int]
    notes: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, eq=False)
class Placed:
    """A picture in a prompt: `runs` are the starts and lengths of its stretches of ids."""

    seen: Seen
    runs: tuple[tuple[int, int], ...]


class Prompt(list[int]):
    """Ids to feed, with the pictures that stand in the place of some of them."""

    def __init__(self, ids: Sequence[int], pictures: Sequence[Placed] = ()) -> None:
        super().__init__(ids)
        self.pictures = tuple(pictures)

    @property
    def identity(self) -> list[int]:
        """What a cache that holds this prompt can be compared by: another picture is another text."""
        out = list(self)
        for placed in self.pictures:
            key, row = int(placed.seen.sha256[:10], 16), 0
            for start, n in placed.runs:
                out[start : start + n] = [-(1 + (key << 20) + row + i) for i in range(n)]
                row += n
        return out

    def segments(self, start: int) -> Iterator[tuple[int, int, Placed | None, int]]:
        """From id `start` on: begin, end, and for a picture's rows the picture and the first row."""
        runs = sorted((s, n, p, r) for p in self.pictures for s, n, r in _with_rows(p.runs))
        at = start
        for begin, n, placed, row in runs:
            if begin + n <= at:
                continue
            if at < begin:
                yield at, begin, None, 0
            yield begin, begin + n, placed, row
            at = begin + n
        if at < len(self):
            yield at, len(self), None, 0

    def cut_before_picture(self, n: int) -> int:
        """`n`, or the beginning of the picture that it would cut in two."""
        for placed in self.pictures:
            for start, length in placed.runs:
                if start < n < start + length:
                    return start
        return n


def in_common(held: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens of a prompt need not be read by a cache that holds `held`; its last one always is."""
    wanted = prompt.identity if isinstance(prompt, Prompt) and prompt.pictures else prompt
    most = min(len(held), len(prompt) - 1)
    same = next((i for i in range(most) if held[i] != wanted[i]), most)
    return prompt.cut_before_picture(same) if isinstance(prompt, Prompt) else same


def _with_rows(runs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    row = 0
    for start, n in runs:
        yield start, n, row
        row += n


class Sight:
    """Opens pictures, cuts them as the bundle's rule says, and remembers what the encoder made of them.

    `preprocess_ms` and `encode_ms` count what both took, until somebody sets them back.
    """

    def __init__(self, rule: Mapping[str, Any], encoder: Callable[[], Encoder]) -> None:
        self.rule = rule
        self._load = encoder
        self._encoder: Encoder | None = None
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._features: OrderedDict[str, np.ndarray] = OrderedDict()
        self.preprocess_ms = self.encode_ms = 0.0

    def look(self, part: Mapping[str, Any]) -> Seen:
        """The picture of a message's part.

        Raises as `open_image` and `views` do, and `InputError` when the part has the `sha256` of
        another picture: the file was changed since it was shown.
        """
        seen = self._look(source_of(part))
        if part.get("sha256") not in (None, seen.sha256):
            raise InputError(
                f"{part.get('path', 'a picture')} is another picture than the one this conversation was about",
                hint="put the old file back, or start a new conversation",
            )
        return seen

    def _look(self, source: str | Path | bytes) -> Seen:
        key = ""
        if not isinstance(source, bytes) and not str(source).startswith("data:"):
            path = Path(source).expanduser()
            known = next((k for k in reversed(self._seen) if k.startswith(f"{path}\0")), "")
            if path.is_file():
                stat = path.stat()
                key = f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}"
            elif known:  # the file went away after it was shown; the conversation goes on
                key = known
        if key in self._seen:
            self._seen.move_to_end(key)
            return self._seen[key]
        began = time.perf_counter_ns()
        picture = open_image(source)
        seen = Seen(views(picture, self.rule), picture.size, picture.notes, picture.sha256)
        self.preprocess_ms += (time.perf_counter_ns() - began) / 1e6
        if key:
            self._seen[key] = seen
            while len(self._seen) > _PICTURES:
                self._seen.popitem(last=False)
        return seen

    def features(self, seen: Seen) -> np.ndarray:
        """float32 `(rows, hidden)`, from memory when the picture was encoded before."""
        import numpy as np

        if seen.sha256 in self._features:
            self._features.move_to_end(seen.sha256)
            return self._features[seen.sha256]
        began = time.perf_counter_ns()
        if self._encoder is None:
            self._encoder = self._load()
            began = time.perf_counter_ns()
        found = self._encoder.encode(seen.views)
        self.encode_ms += (time.perf_counter_ns() - began) / 1e6
        if len(found) != seen.views.n_tokens:
            raise EdgeError(
                f"the vision encoder gave {len(found)} rows for a picture that takes {seen.views.n_tokens}",
                hint="the encoder belongs to another model; export it again",
            )
        if not np.isfinite(found).all():
            raise EdgeError("the vision encoder returned features that are not numbers", hint="export it again")
        self._features[seen.sha256] = found
        while len(self._features) > 1 and sum(f.nbytes for f in self._features.values()) > _FEATURES_BYTES:
            self._features.popitem(last=False)
        return found

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
        self._encoder = None


def image_parts(messages: Sequence[Message]) -> list[Mapping[str, Any]]:
    """The parts of all messages that are pictures, in order."""
    found = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, (list, tuple)):
            found += [p for p in content if isinstance(p, Mapping) and p.get("type") in ("image", "image_url")]
    return found


def place(ids: Sequence[int], seen: Sequence[Seen], token_id: int) -> list[Placed]:
    """Where each picture's rows are among `ids`.

    Raises `InputError` when there are more or fewer places than rows: the template dropped a picture.
    """
    at = [i for i, token in enumerate(ids) if token == token_id]
    wanted = sum(s.views.n_tokens for s in seen)
    if len(at) != wanted:
        raise InputError(
            f"the prompt has {len(at)} places for pictures, {len(seen)} pictures need {wanted}",
            hint="the chat template left one out, or put one in twice",
        )
    out = []
    for picture in seen:
        mine, at = at[: picture.views.n_tokens], at[picture.views.n_tokens :]
        runs: list[tuple[int, int]] = []
        for i in mine:
            if runs and i == sum(runs[-1]):
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((i, 1))
        out.append(Placed(picture, tuple(runs)))
    return out


def feed(session: Session, placed: Placed, rows: np.ndarray) -> np.ndarray:
    """Append rows of a picture to what the session holds; the logits after them.

    Some models place all rows of a picture at once, in rows and columns: their session has `feed_grid`.
    """
    if not placed.seen.views.rule.get("placed"):
        return session.feed_embeddings(rows)
    feed_grid = getattr(session, "feed_grid", None)
    if feed_grid is None:
        raise UsageError("this model places pictures in rows and columns, which this runtime does not do")
    found: np.ndarray = feed_grid(rows, placed.seen.views.grid)
    return found


def fitted(
    template: ChatTemplate, messages: Sequence[Message], placeholder: str = "", mark: str = ""
) -> list[dict[str, Any]]:
    """The messages as this template wants them: some take text alone, some lists of parts alone, most take both.

    For a template without parts, a picture becomes `mark` and a new line in the text.
    """
    likes_text, likes_parts = tastes(template, placeholder)
    out = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, (list, tuple)):
            parts = [_plain(p) for p in content]
            if likes_parts and (not likes_text or any(p["type"] == "image" for p in parts)):
                content = parts
            else:
                content = "".join(f"{mark}\n" if p["type"] == "image" else p["text"] for p in parts)
        elif isinstance(content, str) and not likes_text and likes_parts:
            content = [{"type": "text", "text": content}]
        out.append({**message, "content": content})
    return out


@functools.lru_cache(maxsize=16)
def tastes(template: ChatTemplate, placeholder: str) -> tuple[bool, bool]:
    """Whether the template takes content that is text, and content that is parts with pictures; found by trying."""

    def shows(content: Any, *words: str) -> bool:
        try:
            text = template.render([{"role": "user", "content": content}])
        except EdgeError:
            return False
        return all(w in text for w in words) and "'type'" not in text

    parts = [{"type": "image"}, {"type": "text", "text": _PROBE}]
    wanted = (_PROBE, placeholder) if placeholder else (_PROBE,)
    return shows(_PROBE, _PROBE), shows(parts, *wanted)


def _plain(part: Any) -> dict[str, Any]:
    """A part as templates know it: its kind, and its words."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("image", "image_url"):
        return {"type": "image"}
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    raise UsageError(f"a message has a part of the kind {kind!r}", hint="there are: text, image, image_url")


def source_of(part: Mapping[str, Any]) -> str | Path | bytes:
    """Where a part's picture is."""
    url = part.get("image_url")
    if isinstance(url, Mapping):
        url = url.get("url")
    found = next((part[k] for k in ("path", "data", "image", "url") if part.get(k) is not None), url)
    if isinstance(found, str) and found.startswith(("http://", "https://")):
        raise UsageError(
            "a picture was given by its web address; edge works offline", hint="download it, give its path"
        )
    if not isinstance(found, (str, Path, bytes)):
        raise UsageError("a picture needs a path, its bytes, or a data: URI")
    return found
