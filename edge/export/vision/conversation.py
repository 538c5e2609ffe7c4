"""Conversations with pictures as the source itself takes them: its own processor, tower, projector and decoder.

What its text part is fed with there is what calibration measures: rows of a picture are embeddings that no word has,
and some models place them in three dimensions, or let them see each other. So the whole source runs, and
`text_part` gives the modules in it the names that the text part has alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, UsageError
from edge.export.checkpoint import Checkpoint
from edge.export.reference import load_model, load_processor
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.image import open_image
from edge.runtimes.sight import fitted

if TYPE_CHECKING:
    import torch

LONGEST = 4096  # tokens; attention over more takes gigabytes


class Conversation(tuple[int, ...]):
    """Its ids, `token_id` for each row of a picture; with its rendered `text` and the files of its `pictures`."""

    text: str
    pictures: tuple[bytes, ...]
    token_id: int

    def __new__(cls, ids: Sequence[int], text: str, pictures: Sequence[bytes], token_id: int) -> Conversation:
        made = super().__new__(cls, ids)
        made.text, made.pictures, made.token_id = text, tuple(pictures), token_id
        return made

    @property
    def n_rows(self) -> int:
        return self.count(self.token_id)

    @property
    def read(self) -> list[int]:
        """Positions after which a word comes: what is predicted within a picture, nobody reads."""
        return [i for i, after in enumerate((*self[1:], -1)) if after != self.token_id]


class Eyes:
    """The source's processor with its chat template: from messages with pictures to conversations."""

    def __init__(self, checkpoint: Checkpoint, rule: Mapping[str, Any]) -> None:
        self.checkpoint = checkpoint
        self._template = ChatTemplate.load(checkpoint.folder)
        self._processor = load_processor(checkpoint)
        self._placeholder, self._token_id = str(rule["placeholder"]), int(rule["token_id"])

    def take(self, messages: Sequence[Mapping[str, Any]], pictures: Sequence[bytes], where: str) -> Conversation:
        """`messages` whose image parts are `pictures`, in order; what comes after `LONGEST` tokens is left out.

        Raises `InputError` for a picture that cannot be read or a template that leaves one out, `UsageError` for a
        model without template, or when the pictures alone are too long.
        """
        if self._template is None:
            raise UsageError(
                f"{where} shows a picture, but {self.checkpoint.name} has no chat template to show it in",
                hint="give it text alone",
            )
        shaped = fitted(self._template, messages, self._placeholder, self._placeholder)
        text = self._template.render(shaped, add_generation_prompt=False)
        if (n := text.count(self._placeholder)) != len(pictures):
            raise InputError(
                f"{where} has {len(pictures)} pictures, and {n} places for them once the chat template wrote it",
                hint=f"words must not spell {self._placeholder!r}, and pictures belong into the user's messages",
            )
        inputs = _inputs(self._processor, text, pictures)
        ids = tuple(inputs["input_ids"][0].tolist())
        if self._token_id in ids[LONGEST:]:
            raise UsageError(
                f"{where} takes more than {LONGEST:,} tokens before its last picture ends",
                hint="show fewer pictures in one conversation",
            )
        return Conversation(ids[:LONGEST], text, pictures, self._token_id)


def text_part(checkpoint: Checkpoint) -> Any:
    """The text part of the source that sees, with the names that it has alone; called, the whole source runs."""
    import torch

    whole = load_model(checkpoint).requires_grad_(False)
    processor = load_processor(checkpoint)
    inner = whole.model

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = inner.text_model if hasattr(inner, "text_model") else inner.language_model
            self.lm_head = whole.lm_head
            self.config = whole.config.get_text_config()

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return whole(*args, **kwargs)

        def inputs(self, shown: Conversation) -> dict[str, Any]:
            """Of each token as many as `ids`, which may have been cut, and the pixels."""
            made = _inputs(processor, shown.text, shown.pictures)
            n = made["input_ids"].shape[1]
            return {k: v[:, : len(shown)] if tuple(v.shape[:2]) == (1, n) else v for k, v in made.items()}

    return Text().eval()


def run(model: Any, passage: Sequence[int]) -> torch.Tensor:
    """Logits `(tokens, vocabulary)` of a passage."""
    import torch

    if isinstance(passage, Conversation):
        return model(**model.inputs(passage), use_cache=False).logits[0]  # type: ignore[no-any-return]
    return model(torch.tensor([list(passage)]), use_cache=False).logits[0]  # type: ignore[no-any-return]


def predicted(model: Any, passage: Sequence[int]) -> torch.Tensor:
    """Logits of a passage where they are read: everywhere in a text, of a conversation where words follow."""
    found = run(model, passage)
    return found[passage.read] if isinstance(passage, Conversation) else found


def n_predicted(passage: Sequence[int]) -> int:
    """How many those are."""
    return len(passage.read) if isinstance(passage, Conversation) else len(passage)


def _inputs(processor: Any, text: str, pictures: Sequence[bytes]) -> dict[str, Any]:
    from PIL import Image

    images = [Image.fromarray(open_image(data).rgb) for data in pictures]
    return dict(processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=False))
