"""Does a type of checkpoint survive conversion? One tiny random checkpoint, one format, through the product itself.

    python -m tests.parity                 every type in every format -> docs/reference/architectures.json
    python -m tests.parity gemma_3 mixtral those types only, the others as they were
    python -m tests.parity gemma_3 --format gguf,onnx

Each file in `tests/checkpoints` makes the checkpoint of one type. It is exported at full precision
and in 8 bits with the gate on, and its greedy tokens after a long prompt are compared with
those of `transformers`. What the product refuses is written down in its own words.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edge
from edge import bundle
from edge.errors import EdgeError
from edge.export.checkpoint import Checkpoint
from edge.export.formats import tflite
from edge.export.gate import pictures
from edge.export.reference import load_model
from edge.export.source import open_source
from edge.find import load, names
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling, Session, generate
from edge.runtimes.tokenizer import Tokenizer

FOLDER = Path(__file__).with_name("checkpoints")
RESULTS = Path(__file__).parents[1] / "docs/reference/architectures.json"
FORMATS = names("edge.export.formats")
CONTEXT_LENGTH = 256
N_GREEDY = 12
# Random weights tell nothing about rounding activations, which TFLite's own choice does.
_EIGHT_BITS = {"tflite": "int8-weights"}
N_GREEDY_SEEING = 6  # features 5e-4 away, as llama.cpp's are, let a random model's words part some day
_INTRODUCTION = (
    "Generated from test results (`python -m tests.parity`). A tiny random checkpoint of each type, with what is",
    "particular about the type, is exported at full precision and in 8 bits (in TFLite `int8-weights`) through the",
    "[gate](../guides/gate.md), on the runtime that ships, and its greedy tokens after a long prompt are compared with",
    "those of `transformers`. The figures are the error of its logits (NMSE) at full precision and in 8 bits. Random",
    "weights show that a type is converted faithfully; they say nothing about how much quality a trained model keeps.",
    "",
    "Of models that see, logits and tokens are those after pictures, and a third figure is how far the features of",
    "pictures are away from the source's, relative to their size. CI repeats GGUF and ONNX of all text models and all",
    "refusals, and of the rest one type of each family.",
)
_LONG = "The quick brown fox jumps over the lazy dog. 12345 times it did so, and then it slept in the sun. "


@dataclass(frozen=True)
class Result:
    """What one type does in one format.

    `refused` are the product's words when it converts nothing; `limit` when it refuses the asked
    context and converts a shorter one, `context_length`. `nmse` is that of logits at full
    precision, `nmse_8bit` in 8 bits; `greedy` how many of the first tokens are the source's.
    """

    context_length: int = CONTEXT_LENGTH
    refused: str = ""
    limit: str = ""
    nmse: float | None = None
    nmse_8bit: float | None = None
    features: float | None = None
    greedy: str = ""

    @property
    def status(self) -> tuple[str, str]:
        """What must not change unnoticed."""
        return self.refused, self.limit


def makers() -> tuple[str, ...]:
    """Names of all types, from the folder."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_")))


def about(maker: str) -> tuple[str, str]:
    """The type's own name and what is particular about it, without importing its file."""
    constants, doc = _head(maker)
    return constants["NAME"], doc.partition(": ")[2].rstrip(".")


def family(maker: str) -> str:
    """Which family the type belongs to: `dense` unless its file says otherwise."""
    return _head(maker)[0].get("FAMILY", "dense")


def _head(maker: str) -> tuple[dict[str, str], str]:
    """The file's constants, and the first line of its docstring."""
    tree = ast.parse((FOLDER / f"{maker}.py").read_text(encoding="utf-8"))
    constants = {
        t.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for t in node.targets
        if isinstance(t, ast.Name)
    }
    return constants, (ast.get_docstring(tree) or "").splitlines()[0]


def make(maker: str, folder: Path) -> Path:
    """The checkpoint of that type, in `folder`."""
    target = folder / maker
    target.mkdir(parents=True)
    importlib.import_module(f"tests.checkpoints.{maker}").make(target)
    return target


def convert(checkpoint: Path, format_name: str, work: Path) -> Result:
    """Export to one format and compare; what the product refuses is a result, not an error."""
    length, limit = CONTEXT_LENGTH, ""
    try:
        exported = _export(checkpoint, format_name, "32bit", length, work)
    except EdgeError as err:
        shorter = _offered(err)
        if not shorter:
            return Result(refused=err.message)
        length, limit = shorter, err.message
        exported = _export(checkpoint, format_name, "32bit", length, work)
    small = _export(checkpoint, format_name, _EIGHT_BITS.get(format_name, "8bit"), length, work, gate=False)
    source = open_source(checkpoint)
    model, record = load_model(source), exported.verdict.record
    if source.family == "vlm":
        features = _rounded(record["pictures"]["features"]["relative_rms"])
        nmse, (same, n) = record["pictures"]["logits"]["nmse"], _greedy_seeing(source, model, exported.folder)
        nmse_8bit = nmse_seeing(source, model, small.folder)
    else:
        features, nmse = None, record["logits"]["nmse"]
        same, n = _greedy(model, exported.folder, length)
        nmse_8bit = logits_nmse(model, small.folder, length)
    return Result(
        context_length=length,
        limit=limit,
        nmse=_rounded(nmse),
        nmse_8bit=_rounded(nmse_8bit),
        features=features,
        greedy=f"{same} of {n}",
    )


def _export(
    checkpoint: Path, format_name: str, quantization: str, length: int, work: Path, *, gate: bool = True
) -> Any:
    # One size of prefill: a second one shows nothing new, and costs most of the time.
    before, tflite.PREFILLS = tflite.PREFILLS, (16,)
    try:
        [done] = edge.export(
            checkpoint,
            work,
            formats=[format_name],
            quantization=quantization,
            context_length=length,
            gate=gate,
            replace_existing=True,
        )
    finally:
        tflite.PREFILLS = before
    return done


def _offered(err: EdgeError) -> int:
    """The shorter context that a refusal offers, 0 for none."""
    words = (err.hint or "").partition("--context ")[2]
    digits = words.split(";")[0].strip()
    return int(digits) if digits.isdigit() else 0


def logits_nmse(model: Any, folder: Path, length: int) -> float:
    """The error of one text's logits. Random weights have no clear favourites, so top tokens are not judged."""
    import numpy as np
    import torch

    ids = Tokenizer.load(folder).encode(_LONG * 20)[: length // 2]
    with _session(folder) as session:
        found = session.feed_all(ids)
    with torch.inference_mode():
        wanted = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()
    found = found[:, : wanted.shape[1]]
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


@contextmanager
def _session(folder: Path) -> Iterator[Session]:
    manifest = bundle.read(folder)
    session = load("edge.runtimes.engines", manifest.format).load(folder, manifest)
    try:
        yield session
    finally:
        session.close()


def _greedy(model: Any, folder: Path, length: int) -> tuple[int, int]:
    """How many greedy tokens after a prompt that nearly fills the context are the source's, and of how many."""
    import torch

    prompt = Tokenizer.load(folder).encode(_LONG * 20)[: length - 2 * N_GREEDY]
    with _session(folder) as session:
        found = [t.id for t in generate(session, prompt, Sampling(max_tokens=N_GREEDY))]
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(N_GREEDY):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    wanted = ids[len(prompt) :]
    same = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), len(found))
    return same, N_GREEDY


def nmse_seeing(checkpoint: Checkpoint, model: Any, folder: Path) -> float:
    """The error of logits of words after pictures."""
    import numpy as np

    error = energy = 0.0
    with open_bundle(folder) as export:
        shown = pictures.Windows(checkpoint, model, export, pictures.questions(export)[:2])
        for window in shown.windows:
            words = np.array(window) >= 0
            wanted = shown.source(window)[words]
            found = shown.export(window)[words][:, : wanted.shape[1]]
            error += float(np.square(found - wanted).sum())
            energy += float(np.square(wanted).sum())
    return error / energy


def _greedy_seeing(checkpoint: Checkpoint, model: Any, folder: Path) -> tuple[int, int]:
    """The fewest first tokens of an answer about a picture that are the source's, and of how many."""
    fewest = N_GREEDY_SEEING
    with open_bundle(folder) as export:
        asked = pictures.questions(export)[:3]
        for found, wanted in zip(
            pictures.replies(export, asked, ()), pictures.source_replies(checkpoint, model, asked, ()), strict=True
        ):
            pairs = zip(wanted.ids[:N_GREEDY_SEEING], found, strict=False)
            fewest = min(fewest, next((i for i, (a, b) in enumerate(pairs) if a != b), N_GREEDY_SEEING))
    return fewest, N_GREEDY_SEEING


def _rounded(value: float) -> float:
    """One digit: more differs between machines."""
    return float(f"{value:.0e}")


def read() -> dict[str, dict[str, Result]]:
    """The committed results: type -> format -> result."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {maker: {f: Result(**row) for f, row in row_of.items()} for maker, row_of in rows.items()}


def page(results: dict[str, dict[str, Result]]) -> str:
    """docs/reference/architectures.md."""
    lines = list(_page(results))
    return "\n".join(lines) + "\n"


def _page(results: dict[str, dict[str, Result]]) -> Iterator[str]:
    yield "# What converts to what"
    yield ""
    yield from _INTRODUCTION
    yield ""
    yield f"| type | {' | '.join(FORMATS)} | what is particular |"
    yield "| --- |" + " --- |" * (len(FORMATS) + 1)
    notes: list[str] = []
    for maker in makers():
        name, words = about(maker)
        cells = [_cell(results.get(maker, {}).get(f), notes) for f in FORMATS]
        yield f"| {name} | {' | '.join(cells)} | {words} |"
    if notes:
        yield ""
        for n, note in enumerate(notes, 1):
            yield f"{n}. {note}"


def _cell(result: Result | None, notes: list[str]) -> str:
    if result is None:
        return "not run yet"
    said = result.refused or result.limit
    if said and said not in notes:
        notes.append(said)
    mark = f" ({notes.index(said) + 1})" if said else ""
    if result.refused:
        return f"refused{mark}"
    figures = [f"{f:.0e}" for f in (result.nmse, result.nmse_8bit, result.features) if f is not None]
    return f"{', '.join(figures)}{mark}"


def main(chosen: Sequence[str], formats: Sequence[str]) -> None:
    for maker in chosen or makers():
        with tempfile.TemporaryDirectory() as work:
            checkpoint = make(maker, Path(work))
            for name in formats:
                found = asdict(convert(checkpoint, name, Path(work, "out")))
                print(maker, name, json.dumps(found), flush=True)
                # Read again: another run may have written meanwhile.
                results = {m: {f: asdict(r) for f, r in row.items()} for m, row in read().items()}
                results.setdefault(maker, {})[name] = found
                kept = {m: dict(sorted(results[m].items())) for m in makers() if m in results}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", choices=[[], *makers()], metavar="TYPE")
    parser.add_argument("--format", default=",".join(FORMATS), help="formats, with commas between them")
    asked = parser.parse_args()
    main(asked.types, asked.format.split(","))
