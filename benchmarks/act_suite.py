"""How often a bundle brings about what was asked: tasks of one to three steps, judged by the state they end in.

python -m benchmarks.act_suite out/smollm2-act-gguf-q4_k_m -o benchmarks/results/act_suite_gguf.jsonl

Each task is carried out in a world of its own by `edge.runtimes.act`, with somebody who says yes to every question and
answers none. A second world is brought to the state that is right, by the task's own calls. A task is done when both
worlds are alike to the last file and row, and everything was read that was to be read. Texts are not judged.

`--split dev` is what the program was tuned on; the default, `test`, has other tools and words (`act_tasks`). Lines are
kept as they come; a run that was stopped goes on. `--table FILE...` only counts what is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from edge.runtimes.act import manifest
from edge.runtimes.act.hands import Hands, Planned
from edge.runtimes.act.intent import Reader
from edge.runtimes.act.mind import Mind, Report
from edge.runtimes.act.policy import Policy
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.tool_calls import ToolCall

HERE = Path(__file__).parent
_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # worlds are small and short-lived
PINS = {"lamp": 17, "fan": 18, "pump": 22, "heater": 27}
_ROOMS = {"enum": ["study", "attic", "nursery", "guest room", "kitchen", "cellar"]}
_DOORS = {"enum": ["front door", "garage", "balcony door", "gate"]}
_WORDS = {"type": "string"}
HOUSE = {
    "set_blinds": ("Move the blinds of a room up or down.", {"room": _ROOMS, "position": {"enum": ["up", "down"]}}),
    "set_heating": ("Set the temperature of a room.", {"room": _ROOMS, "degrees": {"type": "integer"}}),
    "lock_door": ("Lock a door.", {"door": _DOORS}),
    "play_music": ("Play music in a room.", {"what": _WORDS, "room": _ROOMS}),
    "start_vacuum": ("Let the robot vacuum a room.", {"room": _ROOMS}),
}

_COUNT = {"type": "integer"}
GARDEN = {
    "water_bed": ("Water a bed of the garden.", {"bed": _WORDS, "minutes": _COUNT}),
    "preheat_oven": ("Heat up the oven.", {"degrees": _COUNT}),
    "add_item": ("Add something to a list.", {"list": {"enum": ["shopping", "hardware", "holiday"]}, "item": _WORDS}),
    "charge_car": ("Charge the car.", {"percent": _COUNT}),
    "record_film": ("Record a film on television.", {"title": _WORDS}),
    "arm_alarm": ("Arm the alarm system of the house.", {"mode": {"enum": ["home", "away", "night"]}}),
    "start_machine": ("Start a machine.", {"machine": {"enum": ["dishwasher", "washing machine", "dryer"]}}),
}
SIMULATED = {"house": HOUSE, "garden": GARDEN}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th task, for a first look")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--show", action="store_true", help="what went wrong")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE")
    args = parser.parse_args()
    if args.table:
        for path in args.table:
            _table([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        return
    rows = [json.loads(line) for line in (HERE / "act_tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [r for r in rows if r["split"] == args.split][:: args.every]
    kept = []
    if args.output and args.output.is_file():
        kept = [json.loads(line) for line in args.output.read_text(encoding="utf-8").splitlines()]
    known = {r["id"] for r in kept}
    readers: dict[tuple[str, ...], Reader] = {}
    with open_bundle(args.bundle, threads=args.threads) as model:
        for row in rows:
            if row["id"] in known:
                continue
            names = tuple(row["tools"])
            if names not in readers:
                readers[names] = Reader(model, _manifest(HERE, names).functions())
            record = {**_tried(row, model, readers[names]), "bundle": model.bundle.name, "bundle_id": model.bundle.id}
            kept.append(record)
            if args.show and not record["done"]:
                print(
                    row["request"],
                    "\n   wanted",
                    row["calls"],
                    "\n   found ",
                    record["calls"],
                    record["why"],
                    flush=True,
                )
            if args.output:
                with args.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    _table(kept)


def _tried(row: dict[str, Any], model: Model, reader: Reader) -> dict[str, Any]:
    """One task in its world, beside the world as it should be."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder:
        worlds = [Path(folder, name) for name in ("found", "wanted")]
        for world in worlds:
            _make(world, row["world"])
        with _hands(worlds[1], row) as hands:
            _bring_about(hands, row["calls"])
        began = time.perf_counter()
        report, why = Report(row["request"]), ""
        with _hands(worlds[0], row) as hands:
            try:
                report = Mind(model, hands, reader=reader).act(row["request"])
            except EdgeError as err:
                why = str(err)
        took_s = time.perf_counter() - began
        reads = _reads(row, worlds[0])
        done = [[d.step.tool, dict(d.outcome.arguments)] for d in report.steps if d.outcome and d.status == "done"]
        same = _state(worlds[0]) == _state(worlds[1])
    return {
        "id": row["id"], "split": row["split"], "steps": row["steps"], "linked": row["linked"],
        "done": same and all(call in done for call in reads),
        "calls": done, "why": why or report.answer[:300], "tokens": report.tokens, "took_s": took_s,
        "stages_ms": report.stages_ms,
    }  # fmt: skip


def _make(world: Path, about: dict[str, Any]) -> None:
    (world / "files").mkdir(parents=True)
    for name, text in about.get("files", {}).items():
        (world / "files" / name).write_text(text, encoding="utf-8")
    shutil.copy(HERE / "act_house.py", world)
    with Hands(_manifest(world, ("notes", "calendar")), Policy(), ask=lambda q: True, state=world / "state") as hands:
        _bring_about(hands, [
            ["list_notes", {}], ["list_events", {}],
            *(["add_note", {"text": text}] for text in about.get("notes", ())),
            *(["add_event", {"title": title, "start": start}] for title, start in about.get("events", ())),
        ])  # fmt: skip


def _bring_about(hands: Hands, calls: list[Any]) -> None:
    """Do all of `calls`, each with what the one before it found in the place of @result."""
    hands.plan([Planned(n, {k: v for k, v in a.items() if v != "@result"}, tuple(k for k in a if a[k] == "@result"))
                for n, a in calls])  # fmt: skip
    found = ""
    for name, arguments in calls:
        call = ToolCall(name, {k: found if v == "@result" else v for k, v in arguments.items()})
        outcome = hands.perform(call, origin="user")
        assert outcome.status == "done", (call, outcome)
        found = outcome.text


def _hands(world: Path, row: dict[str, Any]) -> Hands:
    rules = Policy(frozenset({"read"}))
    return Hands(_manifest(world, row["tools"]), rules, ask=lambda question: True, state=world / "state")


def _manifest(world: Path, names: Any) -> manifest.Manifest:
    settings = {
        "files": {"folder": str(world / "files")},
        "notes": {"database": str(world / "notes.db")}, "calendar": {"database": str(world / "calendar.db")},
    }  # fmt: skip
    data: dict[str, Any] = {"toolsets": {name: settings[name] for name in names if name in settings}}
    if "gpio" in names:
        data["tools"] = {
            "set_device": {
                "description": "Switch a device on or off.", "risk": "write", "idempotent": True,
                "builtin": {"function": "gpio.set_pin", "pins": PINS},
                "parameters": {
                    "properties": {"pin": {"enum": list(PINS)}, "state": {"enum": ["on", "off"]}},
                    "required": ["pin", "state"],
                },
            }
        }  # fmt: skip
    for simulated in set(names) & SIMULATED.keys():
        data["tools"] = {
            name: {
                "description": about, "risk": "write", "idempotent": True, "python": f"act_house:{name}",
                "paths": {"write": ["."]}, "parameters": {"properties": properties, "required": list(properties)},
            }
            for name, (about, properties) in SIMULATED[simulated].items()
        }  # fmt: skip
    return manifest.parse(data, folder=world, where="the suite")


def _reads(row: dict[str, Any], world: Path) -> list[Any]:
    tools = _manifest(world, row["tools"]).tools
    return [call for call in row["calls"] if tools[call[0]].risk == "read"]


def _state(world: Path) -> dict[str, Any]:
    """Everything that tools can change, without the times at which it was changed."""
    folders = sorted(str(p.relative_to(world)) for p in (world / "files").rglob("*") if p.is_dir())
    files = {str(p.relative_to(world)): p.read_text() for p in (world / "files").rglob("*") if p.is_file()}
    found: dict[str, Any] = {"folders": folders, "files": files}
    for name, sql in (("notes", "SELECT id, text FROM notes"), ("calendar", "SELECT * FROM events")):
        with sqlite3.connect(world / f"{name}.db") as db:
            found[name] = sorted(db.execute(sql))
        db.close()
    for path in (world / "house.json", world / "state" / "pins.json"):
        found[path.name] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _table(records: list[dict[str, Any]]) -> None:
    for name in sorted({r["bundle"] for r in records}):
        mine = [r for r in records if r["bundle"] == name]
        shares = []
        for steps in (1, 2, 3):
            some = [r["done"] for r in mine if r["steps"] == steps]
            shares.append(f"{steps}: {sum(some)}/{len(some)} ({100 * sum(some) / max(1, len(some)):.1f} %)")
        linked = [r["done"] for r in mine if r["linked"]]
        print(f"{name}  steps {'  '.join(shares)}  using a result: {sum(linked)}/{len(linked)}  all: "
              f"{sum(r['done'] for r in mine)}/{len(mine)}")  # fmt: skip


if __name__ == "__main__":
    main()
