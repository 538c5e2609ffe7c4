"""Every family in every format on every kind of device: exported, flashed, asked there, compared with this machine.

    python -m tests.cells                                     every cell -> docs/reference/devices.json
    python -m tests.cells moe lam --format gguf --device pi   those only, the others as they were

The Raspberry Pi and the phone are arm64 systems under qemu-user: what is shown is that a bundle gets there, runs
there and says the same, not how fast. A tiny random checkpoint stands for each family.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.devices import install
from edge.devices.device import Device, LinkLost
from edge.errors import EdgeError
from edge.find import names
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling
from edge.runtimes.sight import Prompt
from tests import parity
from tests.rigs import machines

RESULTS = Path(__file__).parents[1] / "docs/reference/devices.json"
FORMATS = names("edge.export.formats")
# Family -> the type of tests/checkpoints that stands for it.
FAMILIES = {"llm": "llama_3_2", "slm": "smollm2", "moe": "mixtral", "lam": "smollm2", "vlm": "llava"}
_NAMES = {"moe": "MoE"}
DEVICES = {"laptop": "laptop", "pi": "Raspberry Pi", "android": "Android"}
CONTEXT_LENGTH = 256
N_NEW = 8
# The likeliest tokens that were not there before: else a random model says one again and again, whatever it is asked.
CHOSEN: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 100.0}
# Of the spread of logits. The error that the gate allows 8 bits is 4.5 % (an NMSE of 2e-3).
NEAR = 0.03
TOOL = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Turn a light on or off.",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}
_SHOWS_TOOLS = "{% for tool in tools or [] %}{{ tool.function.name }}: {{ tool.function.description }}\n{% endfor %}"
_INTRODUCTION = (
    "Generated from test results (`python -m tests.cells`). A tiny random checkpoint of each family is exported in 8",
    "bits, [flashed](../guides/flashing.md) to each kind of device, and asked there by its own chat template: about a",
    "picture if it sees, with a tool if it acts. The cell says how many of 8 tokens (each the likeliest",
    "that was not there before) are those of the same bundle on this machine; tied are those where another one was as",
    "likely, so that rounding decides.",
    "",
    "Laptop is the machine that ran the tests (x86_64, with its own Python). The Raspberry Pi (arm64 Debian over ssh)",
    "and the Android device (bare arm64 over adb) are **emulated** with qemu-user and run the",
    "[runtime pack](../guides/android.md). That shows that a bundle gets there, starts, and computes the same; nothing",
    "of speed, heat, a phone's own kernel or its SELinux. **No real board or phone has run this yet.** A tiny one says",
    "that the operators of the family run there, not that a large one fits. CI repeats a few cells,",
    "`EDGE_EVERY_CELL=1 pytest tests/devices/test_cells.py -m rig` all.",
)


@dataclass(frozen=True)
class Cell:
    """What one family in one format did on one device. `refused` are the product's words when it did not run.

    Of `compared` tokens `same` are those said here, and `ties` others that were as likely here.
    """

    checkpoint: str
    family: str = ""  # as the manifest has it
    quantization: str = ""
    runs_with: str = ""
    same: int = 0
    ties: int = 0
    compared: int = 0
    emulated: bool = False
    refused: str = ""


def export(family: str, format_name: str, work: Path) -> Path:
    """The bundle of that family's checkpoint, below `work`."""
    place = work / "checkpoints" / family
    if not place.exists():
        made = parity.make(FAMILIES[family], place)
        if family == "lam":
            template = made / "chat_template.jinja"
            template.write_text(_SHOWS_TOOLS + template.read_text(encoding="utf-8"), encoding="utf-8")
    folder: Path = parity._export(
        place / FAMILIES[family], format_name, "8bit", CONTEXT_LENGTH, work / family, gate=False
    ).folder
    return folder


def run(family: str, folder: Path, device: Device, work: Path) -> Cell:
    """Flash `folder` and ask it; what the product refuses is a result, not an error."""
    name = parity.about(FAMILIES[family])[0]
    bundle = bundles.read(folder)
    try:
        done = install.flash(folder, device)
    except LinkLost:
        raise  # of the link, not of the cell
    except EdgeError as err:
        return Cell(name, bundle.family, bundle.quantization, refused=err.message)
    picture = _picture(work) if bundle.image else None
    with open_bundle(folder, threads=1, check=False) as model:
        prompt = model.prompt(_question(picture), tools=[TOOL] if family == "lam" else None)
        with worker(device, folder) as ask:
            same, ties, compared = compare(model, prompt, ask, [picture.read_bytes()] if picture else [])
    return Cell(name, bundle.family, bundle.quantization, done.how, same, ties, compared, done.facts.emulated)


def compare(model: Any, prompt: Prompt, ask: Any, pictures: Sequence[bytes] = ()) -> tuple[int, int, int]:
    """How many tokens are the same, how many tied, and of how many; after a tie both go on with the one from here."""
    same = ties = 0
    while True:
        left, seen = N_NEW - same - ties, []
        here, there = said_by(model, prompt, left, seen), ask(prompt, pictures, left)
        at = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))
        same += at
        if at == len(here) == len(there):
            return same, ties, same + ties
        if at in (len(here), len(there)) or not _tied(seen[at], here[at], there[at]):
            return same, ties, same + ties + len(here) - at
        ties += 1
        if at + 1 == left:
            return same, ties, same + ties
        prompt = Prompt([*prompt, *here[: at + 1]], prompt.pictures)


def _tied(logits: Any, chosen: int, other: int) -> bool:
    """Whether rounding decides between the two: they are nearer than activations in 8 bits move them (`NEAR`)."""
    gap = float(logits[chosen] - logits[other])
    return 0 <= gap <= NEAR * float(logits.std())


def _question(picture: Path | None) -> list[dict[str, Any]]:
    words = {"type": "text", "text": "Turn the light on, please."}
    content = [{"type": "image", "path": str(picture)}, words] if picture else words["text"]
    return [{"role": "user", "content": content}]


def _picture(work: Path) -> Path:
    from PIL import Image

    path = work / "picture.png"
    Image.radial_gradient("L").resize((50, 40)).convert("RGB").save(path)
    return path


def said_by(model: Any, prompt: Sequence[int], n: int = N_NEW, seen: list[Any] | None = None) -> list[int]:
    """The first `n` tokens of a model that is open here; `seen` takes the logits that each was chosen from."""

    def look(logits: Any, _ids: Any) -> Any:
        if seen is not None:
            seen.append(logits.copy())
        return logits

    chosen = model.generate_ids(prompt, Sampling(max_tokens=n, **CHOSEN), mask=look)
    return [piece.token_id for piece in chosen if piece.token_id is not None]


@contextmanager
def worker(device: Device, folder: Path) -> Iterator[Any]:
    """What was flashed, at work: `ask(ids, pictures, n)` gives the first `n` tokens that it says."""
    stream = device.open(["sh", f"{device.root}/refs/{bundles.read(folder).id}.start", "serve"])

    def hear(**request: Any) -> dict[str, Any]:
        if request:
            stream.write(json.dumps(request).encode() + b"\n")
        found: dict[str, Any] = json.loads(stream.readline(timeout_s=600))
        return found

    def ask(ids: Sequence[int], pictures: Sequence[bytes] = (), n: int = N_NEW) -> list[int]:
        shown = [base64.b64encode(picture).decode() for picture in pictures]
        answer = [hear(do="generate", ids=list(ids), pictures=shown, sampling={"max_tokens": n, **CHOSEN})]
        while "id" in answer[-1] or "read" in answer[-1]:
            answer.append(hear())
        assert "stats" in answer[-1], answer[-1]
        return [line["id"] for line in answer if "id" in line]

    opened = hear(do="open", threads=1)
    assert opened.get("bundle") == bundles.read(folder).id, opened
    try:
        yield ask
    finally:
        stream.finish(60)


def read() -> dict[str, dict[str, dict[str, Cell]]]:
    """The committed results: family -> format -> device -> cell."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return {f: {k: {d: Cell(**c) for d, c in at.items()} for k, at in row.items()} for f, row in rows.items()}


def write(found: Mapping[tuple[str, str, str], Cell]) -> None:
    """Add to the committed results."""
    rows = {f: {k: {d: asdict(c) for d, c in at.items()} for k, at in row.items()} for f, row in read().items()}
    for (family, format_name, kind), cell in found.items():
        rows.setdefault(family, {}).setdefault(format_name, {})[kind] = asdict(cell)
    RESULTS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def page(results: Mapping[str, Mapping[str, Mapping[str, Cell]]]) -> str:
    """docs/reference/devices.md."""
    return "\n".join(_page(results)) + "\n"


def _page(results: Mapping[str, Mapping[str, Mapping[str, Cell]]]) -> Iterator[str]:
    yield "# What runs on which device"
    yield ""
    yield from _INTRODUCTION
    yield ""
    yield f"| family | checkpoint | format | {' | '.join(DEVICES.values())} |"
    yield "| --- |" + " --- |" * (len(DEVICES) + 2)
    notes: list[str] = []
    for family, maker in FAMILIES.items():
        for format_name in FORMATS:
            cells = results.get(family, {}).get(format_name, {})
            said = " | ".join(_said(cells.get(kind), notes) for kind in DEVICES)
            words = parity.about(maker)[0] + (" with tools" if family == "lam" else "")
            yield f"| {_NAMES.get(family, family.upper())} | {words} | {format_name} | {said} |"
    for n, note in enumerate(notes, 1):
        yield ""
        yield f"{n}. {note}"


def _said(cell: Cell | None, notes: list[str]) -> str:
    if cell is None:
        return "not run"
    if cell.refused:
        if cell.refused not in notes:
            notes.append(cell.refused)
        return f"refused ({notes.index(cell.refused) + 1})"
    tied = f" ({cell.ties} tied)" if cell.ties else ""
    return f"{cell.same} of {cell.compared}{tied}" + (", emulated" if cell.emulated else "")


def main(families: Sequence[str], formats: Sequence[str], kinds: Sequence[str]) -> None:
    work = Path(tempfile.mkdtemp(prefix="edge-cells-"))
    try:
        # Bundles of one format share a runtime pack, which is sent once; only one that sees needs more.
        made = {(f, k): export(f, k, work) for k in formats for f in families}
        for kind in kinds:
            if reason := machines.missing(kind):
                print(f"{kind}: not run: {reason}")
                continue
            with machines.KINDS[kind](work / kind) as device:
                for (family, format_name), folder in made.items():
                    cell = run(family, folder, device, work)
                    print(kind, format_name, family, json.dumps(asdict(cell)), flush=True)
                    write({(family, format_name, kind): cell})
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=[[], *FAMILIES], metavar="FAMILY")
    parser.add_argument("--format", default=",".join(FORMATS), help="formats, with commas between them")
    parser.add_argument("--device", default=",".join(DEVICES), help="devices, with commas between them")
    asked = parser.parse_args()
    main(asked.families or list(FAMILIES), asked.format.split(","), asked.device.split(","))
