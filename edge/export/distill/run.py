"""The order of the steps from a teacher to a student.

    cut the vocabulary -> collect the text -> cut the rest -> ask the teacher -> train -> measure the distance

A trimmed teacher hardly knows common words in pieces. So it is the whole one that writes and that is asked; its answers
are put into the words that are left.

What is finished is kept in the cache under a hash of all it depends on. The student is a Hugging Face folder of its
own; what it cost stands beside it in `distilled.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.errors import UsageError, require
from edge.export import cache, calibrate, distance, foreign, sharded
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.distill import requests, taught, texts
from edge.export.distill.given import Given
from edge.export.distill.recipe import LOSSES, STUDENTS, Recipe, Step
from edge.export.distill.translate import Words
from edge.export.sources.folder import open_folder
from edge.find import load
from edge.progress import Progress, Silent
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

RECORD = "distilled.json"
_SAMPLE_TOKENS = 6_000
_HELD_TOKENS = 2_000
_SEEING = ("depth", "rounded")  # kinds of students that leave words and width as they are


@dataclass(frozen=True)
class Distilled:
    """A student, and the record of how it was made and how far it is from its teacher."""

    student: Checkpoint
    record: dict[str, Any]

    def table(self) -> str:
        """What was cut and what it costs, as aligned text."""
        return "\n".join(f"{name:<32}{value}" for name, value in rows(self.record))


def rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The record in words, a name and a value each."""
    found = []
    for step in record["steps"]:
        if step["kind"] == "vocabulary":
            found.append(("tokens of the vocabulary", f"{step['tokens']:,} of {step['of']:,}"))
            pair = f"{step['perplexity_source']:.2f} becomes {step['perplexity_export']:.2f}"
            found.append(("perplexity of held-out text", f"{pair}, for each token of the whole vocabulary"))
        elif step["kind"] == "depth":
            found.append(("layers", f"{step['layers']} of {step['of']}"))
        elif step["kind"] == "rounded":
            found.append(("rounded as by", step["to"]))
        else:
            found.append(("student", step["kind"]))
    if "parameters" in record:
        parts = record["parameters"]
        share = parts["student"] / parts["teacher"]
        found.append(("parameters", f"{parts['student']:,}, {share:.0%} of its teacher's"))
    if learned := record.get("training"):
        found.append(("learned from", f"{learned['tokens']:,} tokens in {learned['steps']:,} steps"))
        found.append(("nats from its teacher", f"{learned['before']:.3f} before, {learned['best']:.3f} at best"))
    if record.get("text_part"):
        found.append(("its vision part", "is its teacher's; figures are of the text part, on text alone"))
    if apart := record.get("distance"):
        if "mean_kld" in apart:
            found.append(
                (
                    "mean KLD to its teacher",
                    f"{apart['mean_kld']:.3f} nats, {apart['same_top1']:.1%} the same top token",
                )
            )
        pair = f"{apart['perplexity_source']:.2f} becomes {apart['perplexity_export']:.2f}"
        found.append(("and of the student" if "mean_kld" not in apart else "perplexity of held-out text", pair))
    return found


def distill(teacher: Checkpoint, recipe: Recipe, progress: Progress | None = None) -> Distilled:
    """The student of `recipe`, from the cache or made now; a run that was stopped goes on where it was.

    Raises `UsageError` for a recipe that does not fit the teacher, `InputError` for damaged text, and `EdgeError`
    when the disk has no room or the loss stays no number.
    """
    progress = progress or Silent()
    require("torch", extra="distill", purpose="making a student")
    if recipe.train is not None:
        require("accelerate", extra="distill", purpose="training a student")
    _check(teacher, recipe)
    folder = _made_of_text(teacher, recipe, progress) if teacher.family == "vlm" else _made(teacher, recipe, progress)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    made = open_folder(folder)
    identity = {**made.identity, f"teacher: {teacher.name}": teacher.id, "recipe": recipe.id}
    licence = _licence(teacher.licence, record)
    student = replace(made, name=f"{teacher.name}-{recipe.name}", identity=identity, licence=licence)
    return Distilled(student, record)


def _licence(teachers: str | None, record: dict[str, Any]) -> str | None:
    """The teacher's; with that of the checkpoint that the student was, where it was one; none where one is unknown."""
    own = [step.get("licence") for step in record["steps"] if step["kind"] == "checkpoint"]
    if not own or own[0] == teachers:
        return teachers
    return f"{own[0]} AND {teachers}" if own[0] and teachers else None


def _check(teacher: Checkpoint, recipe: Recipe) -> None:
    """What can be said before any work."""
    other = [step.kind for step in recipe.steps if step.kind not in _SEEING]
    if teacher.family == "vlm" and other:
        raise UsageError(
            f"{teacher.name} sees, and [student.{other[0]}] may change the words or the width of its pictures",
            hint=f"for a model that sees there are: {', '.join(_SEEING)}",
        )
    learns = [step.kind for step in recipe.steps if load(STUDENTS, step.kind).LEARNS]
    late = [s.kind for s in recipe.steps[len(recipe.steps) - len(learns) :] if s.kind not in learns]
    if late:
        raise UsageError(f"[student.{late[0]}] must come before [student.{learns[0]}] in the recipe")
    if recipe.train is None and any(map(_rounds, recipe.steps)):
        raise UsageError("[student.rounded] is the same model until it learns", hint="add [train]")
    hidden = any(load(LOSSES, one.kind).WANTS == "hidden" for one in recipe.losses)
    if hidden and [step.kind for step in recipe.steps] != ["depth"]:
        raise UsageError("[loss.hidden] compares layer with layer, so it needs [student.depth] and no other student")


@contextmanager
def _first() -> Iterator[None]:
    """Of the processes that `accelerate launch` started, the first does what is within; then the others find it done.

    Nothing within may need the others: training is outside.
    """
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def _made(teacher: Checkpoint, recipe: Recipe, progress: Progress) -> Path:
    code = cache.code_of(__name__)
    files = [_below(recipe, name) for name in (*recipe.text.files, recipe.text.held_out) if name]
    for path in files:
        if not path.is_file():
            raise UsageError(f"there is no text file {path}", hint="names under [text] are below the recipe's folder")
    asked = requests.read(recipe.text.requests, recipe.folder) if recipe.text.requests else ()
    kinds = [f"{STUDENTS}.{step.kind}" for step in recipe.steps] + [f"{LOSSES}.{loss.kind}" for loss in recipe.losses]
    key = cache.key(
        teacher=teacher.id,
        recipe=recipe.id,
        text=[*(cache.hash_of(path) for path in files), *asked],
        sources=[load(STUDENTS, s.kind).source(s.options, recipe.folder).id for s in recipe.steps if _opens(s)],
        code=[code, *(cache.code_of(kind.replace("-", "_")) for kind in kinds)],
    )
    if (found := cache.find("students", key)) is not None:
        return found
    work = cache.root() / "distilling" / key
    work.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"recipe": recipe.id, "teacher": teacher.name, "steps": []}
    learning = [step for step in recipe.steps if load(STUDENTS, step.kind).LEARNS]
    student = teacher
    for n, step in enumerate(s for s in recipe.steps if s not in learning):
        with _first():
            given = _given(student, recipe, None if not recipe.text.files else _text(student, recipe))
            student = _step(student, step, given, work / f"teacher-{n}", record, progress)
    if learning or recipe.train is not None:
        student = _learned(teacher, student, learning, recipe, work, record, progress)
    with _first():
        if cache.find("students", key) is None:
            with cache.building("students", key) as folder:
                for path in sorted(student.folder.iterdir()):
                    if path.is_file():
                        (folder / path.name).write_bytes(path.read_bytes())
                (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return cache.root() / "students" / key


def _made_of_text(teacher: Checkpoint, recipe: Recipe, progress: Progress) -> Path:
    """Of a model that sees: the student of its text part, put back."""
    from edge.export.vision import rejoin
    from edge.export.vision.split import split

    rejoin.check(teacher)
    parts = split(teacher)
    text = _made(parts.text, recipe, progress)
    record = json.loads((text / RECORD).read_text(encoding="utf-8"))
    record |= {"text_part": True, "teacher": teacher.name}
    key = cache.key(teacher=teacher.id, text=text.name, code=cache.code_of(rejoin.__name__))
    with _first():
        if cache.find("students", key) is None:
            with cache.building("students", key) as folder:
                rejoin.rejoin(teacher, parts, open_folder(text), folder)
                (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return cache.root() / "students" / key


def _opens(step: Step) -> bool:
    """Whether a kind of student is made from a checkpoint beside its teacher, which it then finds with `source`."""
    return hasattr(load(STUDENTS, step.kind), "source")


def _rounds(step: Step) -> bool:
    """Whether a kind of student is rounded while it learns, and no smaller than its teacher."""
    return hasattr(load(STUDENTS, step.kind), "rounding")


def _learned(
    teacher: Checkpoint, trimmed: Checkpoint, steps: Sequence[Step], recipe: Recipe, work: Path,
    record: dict[str, Any], progress: Progress,
) -> Checkpoint:  # fmt: skip
    """What is cut and, if the recipe says so, trained; the record gets its distance to its teacher.

    `trimmed` is the teacher of fewer words, or the teacher itself.
    """
    words = None
    if trimmed is not teacher:
        words = Words(Tokenizer.load(teacher.folder), Tokenizer.load(trimmed.folder))
    with _first():
        given = _given(teacher, recipe, _text(teacher, recipe) if recipe.text.files else None)
        if given.text is not None:
            record["text"] = {"source": given.text.source, "tokens": given.text.n_tokens}
            _warn_foreign(teacher, given.text, given.held_out, recipe, record, progress)
        elif recipe.train is not None:
            wanted = recipe.text
            asked = _requests(teacher, recipe, given.held_out)
            text = taught.own_words(
                teacher, n_tokens=wanted.tokens, seed=wanted.seed, progress=progress, requests=asked
            )
            text = texts.without(text, given.held_out)
            record["text"] = {"source": text.source, "tokens": text.n_tokens}
            given = replace(given, text=text, sample=_sample(text))
        student, in_words = trimmed, given
        if words is not None:
            held_out = words.calibration(given.held_out)
            in_words = replace(given, sample=words.calibration(given.sample), held_out=held_out)
        for n, step in enumerate(steps):
            student = _step(student, step, in_words, work / f"student-{n}", record, progress)
    if student.n_parameters >= teacher.n_parameters and not any(map(_rounds, steps)):
        raise UsageError(
            f"the student has {student.n_parameters:,} parameters and its teacher {teacher.n_parameters:,}",
            hint="a student is smaller than its teacher",
        )
    record["parameters"] = {"student": student.n_parameters, "teacher": teacher.n_parameters}
    if recipe.train is not None:
        student = _trained(teacher, student, words, given, recipe, work, record, progress)
    with _first():
        apart = work / "distance.json"
        if not apart.is_file():
            progress.start("measuring how far the student is from its teacher", distance.POSITIONS)
            if words is None:
                found = distance.between(teacher, student, given.held_out, progress)
            else:
                found = distance.of_words(teacher, student, given.held_out, progress)
            apart.write_text(json.dumps(found))
        record["distance"] = json.loads(apart.read_text())
    return student


def _trained(
    teacher: Checkpoint, student: Checkpoint, words: Words | None, given: Given, recipe: Recipe, work: Path,
    record: dict[str, Any], progress: Progress,
) -> Checkpoint:  # fmt: skip
    from edge.export.reference import library

    library()  # silent before anything else of its kind is imported
    from edge.export.distill import asking, train

    assert recipe.train is not None
    assert given.text is not None
    if not given.text.windows:
        raise UsageError(f"{given.text.source} holds no text to learn from", hint="give more under [text]")
    judged = texts.up_to(given.held_out.windows, _HELD_TOKENS)
    with _first():
        store, of = taught.answers(teacher, given.text.windows, recipe.train.top_k, progress)
        held = asking.ask(teacher, judged, work / "held-out", recipe.train.top_k, progress)
        if words is not None:
            store = words.answers(store, work / "answers-in-pieces", of)
            held = words.answers(held, work / "held-out-in-pieces", work / "held-out")
    kept = next((row["kept"] for row in reversed(record["steps"]) if row["kind"] == "depth"), ())
    rounding = next((load(STUDENTS, s.kind).rounding(s.options) for s in recipe.steps if _rounds(s)), None)
    found = train.train(
        student, store, held, recipe.losses, recipe.train, work, progress,
        teacher=teacher, layers=kept, rounding=rounding,
    )  # fmt: skip
    record["training"] = {**vars(found), "answers_bytes": store.n_bytes, "answers_tokens": store.n_tokens}
    with _first():
        return _with_weights(student, work / "best", work / "trained")


def _with_weights(student: Checkpoint, best: Path, folder: Path) -> Checkpoint:
    """The student's folder with the weights that were learned, under its own names and no others."""
    import shutil

    import torch
    from safetensors import safe_open

    if (folder / "model.safetensors.index.json").is_file():  # the last that is written
        return open_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sharded.copy_side_files(student.folder, folder)
    learned = open_folder_tensors(best)

    def tensors() -> Iterator[tuple[str, Any]]:
        for name in student.tensors:
            if name not in learned and name == "lm_head.weight" and student.config.get("tie_word_embeddings"):
                continue  # some files have the embedding twice
            with safe_open(best / learned[name], framework="pt") as file:
                yield name, file.get_tensor(name).to(torch.float32)

    sharded.save(tensors(), {**student.config, "torch_dtype": "float32"}, folder)
    return open_folder(folder)


def open_folder_tensors(folder: Path) -> dict[str, str]:
    """The file that each tensor below `folder` is in."""
    from edge.readers import safetensors

    return {
        name: path.name
        for path in sorted(folder.glob("*.safetensors"))
        for name in safetensors.read_header(path).tensors
    }


def _step(
    checkpoint: Checkpoint, step: Step, given: Given, folder: Path, record: dict[str, Any], progress: Progress
) -> Checkpoint:
    """One kind of student, made once: its folder gets its record when it is whole."""
    done = folder / RECORD
    if not done.is_file():
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        row = load(STUDENTS, step.kind).make(checkpoint, step.options, given, folder, progress)
        done.write_text(json.dumps({"kind": step.kind, **row}), encoding="utf-8")
    record["steps"].append(json.loads(done.read_text(encoding="utf-8")))
    return replace(open_folder(folder), name=checkpoint.name, licence=checkpoint.licence)


def _below(recipe: Recipe, name: str) -> Path:
    return (recipe.folder / Path(name).expanduser()).resolve()


def _text(checkpoint: Checkpoint, recipe: Recipe) -> Calibration:
    """The user's own text in the ids of the checkpoint, as much as was asked for."""
    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    found = [calibrate.from_file(_below(recipe, name), tokenizer, template) for name in recipe.text.files]
    windows = tuple(w for one in found for w in one.windows)
    return texts.of_windows(texts.up_to(windows, recipe.text.tokens), ", ".join(one.source for one in found))


def _requests(teacher: Checkpoint, recipe: Recipe, held_out: Calibration) -> tuple[str, ...]:
    if recipe.text.requests is None:
        return ()
    listed = requests.read(recipe.text.requests, recipe.folder)
    return requests.not_judged_by(listed, held_out, Tokenizer.load(teacher.folder))


def _given(checkpoint: Checkpoint, recipe: Recipe, text: Calibration | None) -> Given:
    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    held = (
        calibrate.from_file(_below(recipe, recipe.text.held_out), tokenizer, template)
        if recipe.text.held_out
        else calibrate.held_out(tokenizer, template)
    )
    if text is not None:
        calibrate.check_disjoint(text, held)
    sample = _sample(text) if text is not None else calibrate.default_calibration(tokenizer, template)
    return Given(text=text, sample=sample, held_out=held, folder=recipe.folder)


def _sample(text: Calibration) -> Calibration:
    return texts.of_windows(texts.up_to(text.windows, _SAMPLE_TOKENS), text.source)


def _warn_foreign(
    teacher: Checkpoint, text: Calibration, held_out: Calibration, recipe: Recipe, record: dict[str, Any],
    progress: Progress,
) -> None:  # fmt: skip
    """Say it when the teacher itself hardly understands the text: another language, or a kind it was not made for."""
    tokenizer, template = Tokenizer.load(teacher.folder), ChatTemplate.load(teacher.folder)
    usual = held_out if not recipe.text.held_out else calibrate.held_out(tokenizer, template)
    found, chat = (foreign.cost(teacher, one, progress) for one in (text, usual))
    record["text"]["perplexity"], record["text"]["perplexity_of_english_chat"] = found[0], chat[0]
    if words := foreign.warning(teacher, text, found, chat):
        record["warning"] = f"{words}; a student learns nothing from a teacher about a language it does not speak"
        progress.say(f"note: {record['warning']}")
