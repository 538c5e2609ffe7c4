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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.devices import install
from edge.devices.device import Device
from edge.errors import EdgeError
from edge.find import names
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling
from tests import parity
from tests.rigs import machines

RESULTS = Path(__file__).parents[1] / "docs/reference/devices.json"
FORMATS = names("edge.export.formats")
# Family -> the type of tests/checkpoints that stands for it.
FAMILIES = {"llm": "llama_3_2", "slm": "smollm2", "vlm": "llava", "moe": "mixtral", "lam": "smollm2"}
DEVICES = {"laptop": "laptop", "pi": "Raspberry Pi", "android": "Android"}
CONTEXT_LENGTH = 256
N_NEW = 8
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
    "picture if it sees, with a tool if it acts. The cell says how many of its first greedy tokens are those of the",
    "same bundle on this machine.",
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
    """What one family in one format did on one device. `refused` are the product's words when it did not run."""

    checkpoint: str
    family: str = ""  # as the manifest has it
    quantization: str = ""
    runs_with: str = ""
    same: int = 0
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
    except EdgeError as err:
        return Cell(name, bundle.family, bundle.quantization, refused=err.message)
    picture = _picture(work) if bundle.image else None
    with open_bundle(folder, threads=1, check=False) as model:
        prompt = model.prompt(_question(picture), tools=[TOOL] if family == "lam" else None)
        here = said_by(model, prompt)
    there = said_there(device, folder, prompt, [picture.read_bytes()] if picture else ())
    same = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))
    return Cell(
        name, bundle.family, bundle.quantization, done.how, same, max(len(here), len(there)), done.facts.emulated
    )


def _question(picture: Path | None) -> list[dict[str, Any]]:
    words = {"type": "text", "text": "Turn the light on, please."}
    content = [{"type": "image", "path": str(picture)}, words] if picture else words["text"]
    return [{"role": "user", "content": content}]


def _picture(work: Path) -> Path:
    from PIL import Image

    path = work / "picture.png"
    Image.radial_gradient("L").resize((50, 40)).convert("RGB").save(path)
    return path


def said_by(model: Any, prompt: Sequence[int], n: int = N_NEW) -> list[int]:
    """The first `n` greedy tokens of a model that is open here."""
    return [p.token_id for p in model.generate_ids(prompt, Sampling(max_tokens=n)) if p.token_id is not None]


def said_there(
    device: Device, folder: Path, ids: Sequence[int], pictures: Sequence[bytes] = (), n: int = N_NEW
) -> list[int]:
    """Those of the worker of what was flashed."""
    stream = device.open(["sh", f"{device.root}/refs/{bundles.read(folder).id}.start", "serve"])

    def ask(**request: Any) -> dict[str, Any]:
        stream.write(json.dumps(request).encode() + b"\n")
        return hear()

    def hear() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(stream.readline(timeout_s=600))
        return found

    opened = ask(do="open", threads=1)
    assert opened.get("bundle") == bundles.read(folder).id, opened
    shown = [base64.b64encode(picture).decode() for picture in pictures]
    answer = [ask(do="generate", ids=list(ids), pictures=shown, sampling={"max_tokens": n})]
    while "id" in answer[-1] or "read" in answer[-1]:
        answer.append(hear())
    assert "stats" in answer[-1], answer[-1]
    stream.finish(60)
    return [line["id"] for line in answer if "id" in line]


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
            yield f"| {family.upper()} | {words} | {format_name} | {said} |"
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
    return f"{cell.same} of {cell.compared}" + (", emulated" if cell.emulated else "")


def main(families: Sequence[str], formats: Sequence[str], kinds: Sequence[str]) -> None:
    work = Path(tempfile.mkdtemp(prefix="edge-cells-"))
    try:
        # Families last: bundles of one format share a runtime pack, which is sent once.
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
