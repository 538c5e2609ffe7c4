"""Models that see: the same pixels, the same features, the same logits, the same answers.

In this order, because the first that fails explains those after it. Logits alone would not tell:
a projector whose features are 70 % off can leave the most likely word what it was.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.export import cache
from edge.export.checkpoint import Checkpoint
from edge.export.corpus import picture_questions
from edge.export.corpus.pictures import draw
from edge.export.gate import answers, logits
from edge.export.gate.limits import Limits
from edge.export.gate.replies import Reply
from edge.export.reference import load_processor
from edge.export.vision.tower import features as source_features
from edge.export.vision.tower import patched
from edge.progress import Progress
from edge.runtimes.image import open_image
from edge.runtimes.pixels import views
from edge.runtimes.session import Sampling, Session, generate
from edge.runtimes.sight import feed

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.model import Model
    from edge.runtimes.sight import Prompt

MAX_TOKENS = 24
_PICTURES = 12  # whose features are compared
_PROMPTS = 24  # whose logits are compared
_QUESTIONS = 48
_PIXELS = 1e-3  # of a normalized value; 8-bit steps are 0.004 and more
# Relative RMS and least cosine of features, by the bits of the vision part. llama.cpp computes GELU by
# tanh from a table of 16 bits, which costs 5e-4 where the source uses the error function.
_FEATURES = {32: (1e-3, 0.9999), 16: (3e-3, 0.999)}


@dataclass(frozen=True)
class Shown(answers.Question):
    """A question about a picture; the whole answer must be one of those that count as right."""

    kind: str = ""
    picture: bytes = b""

    def accepts(self, reply: str) -> bool:
        return picture_questions.Question(self.kind, self.text, self.answers).is_right(reply)

    @property
    def messages(self) -> list[dict[str, Any]]:
        words = {"type": "text", "text": self.text}
        return [{"role": "user", "content": [{"type": "image", "data": self.picture}, words]}]


def questions(model: Model) -> tuple[Shown, ...]:
    """Questions about drawn pictures, of every kind in turn, with their prompts for this model."""
    out = []
    for scene, asked in picture_questions.held_out(_QUESTIONS):
        file = io.BytesIO()
        draw(scene).save(file, "PNG")
        question = asked[scene.seed % len(asked)]
        shown = Shown(question.text, (), question.answers, question.kind, file.getvalue())
        out.append(Shown(**{**vars(shown), "prompt": model.prompt(shown.messages)}))
    return tuple(out)


def pixels(checkpoint: Checkpoint, draft: Bundle) -> tuple[dict[str, Any], list[str]]:
    """Our pixels against the source's processor, on pictures of many sizes, modes and files."""
    import numpy as np

    processor = load_processor(checkpoint).image_processor
    worst, different, refused, failures = 0.0, 0, [], []
    for name, data in stress():
        wanted = _or_none(lambda d=data: _source_pixels(processor, d))
        try:
            found = views(open_image(data), draft.image).values
            if draft.image["kind"] == "patches":
                found = patched(found, *(draft.image[k] for k in ("patch", "merge", "frames")))[0]
        except EdgeError as err:
            refused.append(f"{name}: {err.message}")
            if wanted is not None:
                failures.append(f"the picture {name} is refused, the source takes it: {err.message}")
            continue
        if wanted is None:
            continue
        if wanted.size != found.size:
            failures.append(f"the picture {name} becomes {found.shape}, the source makes {wanted.shape} of it")
            continue
        off = float(np.abs(wanted.reshape(found.shape) - found).max())
        worst, different = max(worst, off), different + (off > 0)
        if off > _PIXELS:
            failures.append(f"the pixels of {name} are up to {off:.2g} away from the source's, at most {_PIXELS}")
    record = {"pictures": len(list(stress())), "different": different, "max_abs": worst, "refused": refused}
    return record, failures[:3]


def features(source: Any, model: Model, asked: Sequence[Shown], bits: int) -> tuple[dict[str, Any], list[str]]:
    """What the encoder that ships makes of pictures, against the source's tower and projector on the same pixels."""
    import numpy as np

    rms: list[float] = []
    cosine: list[float] = []
    for question in asked[:_PICTURES]:
        seen = _prompt(question).pictures[0].seen
        wanted = source_features(source, seen.views.values)
        found = model.sight.features(seen)
        if found.shape != wanted.shape:
            return {}, [f"the encoder gives features of shape {found.shape}, the source's are {wanted.shape}"]
        rms.append(float(np.linalg.norm(found - wanted) / max(float(np.linalg.norm(wanted)), 1e-30)))
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        cosine.append(float(((found * wanted).sum(1) / np.maximum(norms, 1e-30)).min()))
    most, least = _FEATURES[bits]
    record = {
        "pictures": len(rms),
        "relative_rms": max(rms),
        "min_cosine": min(cosine),
        "limits": {"relative_rms": most, "min_cosine": least},
        "bits": bits,
    }
    failures = []
    if not max(rms) <= most or not min(cosine) >= least:
        failures.append(
            f"features of pictures are {max(rms):.2g} of their size away from the source's (at most {most}), "
            f"least cosine {min(cosine):.5f} (at least {least})"
        )
    return record, failures


def prompts(checkpoint: Checkpoint, asked: Sequence[Shown]) -> list[str]:
    """Whether the source's processor makes the same ids of the same question and picture."""
    processor = load_processor(checkpoint)
    for question in asked[:3]:
        wanted = _inputs(processor, question)["input_ids"][0].tolist()
        if wanted != list(question.prompt):
            at = next((i for i, (a, b) in enumerate(zip(wanted, question.prompt, strict=False)) if a != b), len(wanted))
            return [
                f"a question with a picture becomes {len(question.prompt)} ids, the source makes {len(wanted)}; "
                f"they part at {at}"
            ]
    return []


def look(
    checkpoint: Checkpoint,
    source: Any,
    model: Model,
    asked: Sequence[Shown],
    judge: Callable[[logits.Comparison], list[str]],
    bound: Limits,
    progress: Progress,
) -> tuple[dict[str, Any], list[str]]:
    """Every check in order; those after one that makes them meaningless are left out, and said so."""
    draft = model.bundle
    record: dict[str, Any] = {"limits": vars(bound)}
    answers_kept = bound.answers_kept
    progress.start("comparing pixels and features of pictures")
    record["pixels"], failures = pixels(checkpoint, draft)
    failures += prompts(checkpoint, asked)
    bits = 32 if str(draft.plan.get("vision", {}).get("type", "")).endswith("32") else 16
    record["features"], wrong = features(source, model, asked, bits)
    failures += wrong
    if failures:
        record["logits"] = record["answers"] = "not compared: pixels, prompts or features are wrong"
        return record, failures
    shown = Windows(checkpoint, source, model, asked)
    progress.start("comparing logits after pictures", len(shown.windows))
    compared = logits.compare(
        shown.source,
        shown.export,
        shown.windows,
        vocab_size=min(draft.vocab_size, model.session.vocab_size),
        at_least=1 << 30,
    )
    record["logits"] = vars(compared)
    failures += [f"after pictures: {words}" for words in judge(compared)]
    progress.start("asking about pictures", len(asked))
    wanted = source_replies(checkpoint, source, asked, draft.stop_ids)
    kept = answers.compare(asked, wanted, replies(model, asked, draft.stop_ids), model.tokenizer, progress.advance)
    record["answers"] = kept
    if kept["share_kept"] is not None and kept["share_kept"] < answers_kept:
        lost = kept["lost"][0]
        failures.append(
            f"of the questions about pictures that the source answers rightly {kept['share_kept']:.0%} are still "
            f"answered ({answers_kept:.0%} must be): {lost['question']!r} gives {lost['reply']!r:.70}"
        )
    return record, failures


class Windows:
    """Prompts with pictures, as windows that `logits.compare` takes: a picture's rows are ids below zero."""

    def __init__(self, checkpoint: Checkpoint, source: Any, model: Model, asked: Sequence[Shown]) -> None:
        self._source, self._model = source, model
        self._processor = load_processor(checkpoint)
        self._asked = {tuple(_prompt(q).identity): q for q in asked[:_PROMPTS]}

    @property
    def windows(self) -> list[tuple[int, ...]]:
        return list(self._asked)

    def source(self, window: Sequence[int]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            inputs = _inputs(self._processor, self._asked[tuple(window)])
            out: np.ndarray = self._source(**inputs, use_cache=False).logits[0].float().numpy()
        return out

    def export(self, window: Sequence[int]) -> np.ndarray:
        """Every position's logits; rows of a picture are zero but for its last."""
        import numpy as np

        session, prompt = self._model.session, _prompt(self._asked[tuple(window)])
        session.rewind(0)
        out = np.zeros((len(prompt), session.vocab_size), np.float32)
        for begin, end, placed, row in prompt.segments(0):
            if placed is None:
                out[begin:end] = session.feed_all(prompt[begin:end])
            else:
                rows = self._model.sight.features(placed.seen)[row : row + end - begin]
                out[end - 1] = feed(session, placed, rows)
        return out


def source_replies(
    checkpoint: Checkpoint, source: Any, asked: Sequence[Shown], stop_ids: Sequence[int]
) -> tuple[Reply, ...]:
    """Greedy replies of the source, kept in the cache."""
    import hashlib

    shown = [[list(q.prompt), hashlib.sha256(q.picture).hexdigest()] for q in asked]
    key = cache.key(checkpoint=checkpoint.id, shown=shown, stop=sorted(stop_ids), code=cache.code_of(__name__))
    folder = cache.find("picture-replies", key)
    if folder is None:
        processor = load_processor(checkpoint)
        made = [_reply(source, _inputs(processor, q), stop_ids) for q in asked]
        with cache.building("picture-replies", key) as work:
            (work / "replies.json").write_text(json.dumps([vars(r) for r in made]))
        folder = cache.root() / "picture-replies" / key
    rows = json.loads((folder / "replies.json").read_text())
    return tuple(Reply(tuple(row["ids"]), tuple(row["margins"])) for row in rows)


def replies(model: Model, asked: Sequence[Shown], stop_ids: Sequence[int]) -> Iterator[list[int]]:
    """Greedy replies of the export."""
    session: Session = model.session
    for question in asked:
        session.rewind(0)
        prompt = _prompt(question)
        *front, (begin, end, _, _) = prompt.segments(0)
        for first, last, placed, row in front:
            if placed is None:
                session.feed(prompt[first:last])
            else:
                feed(session, placed, model.sight.features(placed.seen)[row : row + last - first])
        sampling = Sampling(max_tokens=MAX_TOKENS)
        yield [t.id for t in generate(session, prompt[begin:end], sampling, stop_ids=stop_ids)]


def stress() -> Iterator[tuple[str, bytes]]:
    """Names and files of pictures on which processors differ: sizes, shapes, modes, orientation."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(7)

    def noise(width: int, height: int) -> Any:
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(x / (3 + i) + i) * np.cos(y / (5 + i)) * 100 + 128 for i in range(3)]
        return Image.fromarray(
            np.clip(np.stack(waves, -1) + rng.normal(0, 20, (height, width, 3)), 0, 255).astype("u1")
        )

    def file(image: Any, kind: str = "PNG", **options: Any) -> bytes:
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    for width, height in ((1, 1), (2, 3), (31, 17), (64, 64), (96, 96), (224, 224), (97, 95), (130, 80), (80, 130),
                          (337, 335), (640, 480), (480, 641), (300, 40), (40, 300)):  # fmt: skip
        yield f"{width} x {height}", file(noise(width, height))
    yield "grey", file(noise(70, 50).convert("L"))
    yield "black and white", file(noise(70, 50).convert("1"))
    yield "palette", file(noise(70, 50).quantize(16))
    yield "transparent", file(noise(70, 50).convert("RGBA"))
    yield "JPEG", file(noise(120, 90), "JPEG", quality=80)
    yield "CMYK", file(noise(70, 50).convert("CMYK"), "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "turned by EXIF", file(noise(70, 50), "JPEG", exif=turned)
    yield "animated", file(noise(40, 30), "GIF", save_all=True, append_images=[noise(40, 30)])


def _prompt(question: Shown) -> Prompt:
    from edge.runtimes.sight import Prompt

    prompt = question.prompt
    assert isinstance(prompt, Prompt)
    return prompt


def _source_image(data: bytes) -> Any:
    """As `transformers` loads a picture."""
    from PIL import Image, ImageOps

    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def _source_pixels(processor: Any, data: bytes) -> np.ndarray:
    import numpy as np

    return np.asarray(processor(_source_image(data), return_tensors="np")["pixel_values"])


def _or_none(make: Any) -> Any:
    # What a processor raises for a picture that it cannot take is its own business; it refused.
    try:
        return make()
    except Exception:  # noqa: BLE001
        return None


def _inputs(processor: Any, question: Shown) -> dict[str, Any]:
    """The source's own inputs for this question: ids and pixels."""
    parts = [{"type": "image"}, {"type": "text", "text": question.text}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
    )
    found = processor(
        text=[text], images=[[_source_image(question.picture)]], return_tensors="pt", add_special_tokens=False
    )
    return dict(found)


def _reply(source: Any, inputs: dict[str, Any], stop_ids: Sequence[int]) -> Reply:
    import torch

    with torch.inference_mode():
        made = source.generate(
            **inputs,
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    ids = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    best = [row[0].float().log_softmax(-1).topk(2).values for row in made.logits]
    margins = [round(float(top[0] - top[1]), 4) for top in best]
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return Reply(tuple(ids[:end]), tuple(margins[: end + 1]))
