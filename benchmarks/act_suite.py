"""How often a bundle brings about what was asked: tasks of one to three steps, judged by the state they end in.

python -m benchmarks.act_suite out/smollm2-act-gguf-q4_k_m -o benchmarks/results/act_suite_gguf.jsonl

Each task is carried out in a world of its own by `edge.runtimes.act`, with somebody who says yes to every question and
answers none. A second world is brought to the state that is right, by the task's own calls. A task is done when both
worlds are alike to the last file and row, and everything was read that was to be read. Texts are not judged.

`--split dev` is what the program was tuned on; `test`, the default, and `fresh` have other tools and words
(`act_tasks`). Of `test` the half `read` was tuned on later, the half `kept` was not. Lines are kept as they come; a run
that was stopped goes on. `--table FILE...` only counts what is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.act_tasks import half
from edge.errors import EdgeError
from edge.runtimes.act import manifest
from edge.runtimes.act.hands import Hands, Planned
from edge.runtimes.act.intent import Budget, Meaning, Reader
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
OFFICE = {
    "reserve_room": ("Reserve a room.", {"room": {"enum": ["blue room", "lecture hall", "library"]}, "time": _WORDS}),
    "order_supplies": ("Order supplies for the office.", {"what": _WORDS, "amount": _COUNT}),
    "set_status": ("Set the status that colleagues see.", {"status": {"enum": ["available", "busy", "away"]}}),
    "send_message": ("Send a message to a colleague.", {"to": {"enum": ["Mira", "Tomas", "Yusuf"]}, "text": _WORDS}),
    "make_coffee": ("Make coffee.", {"strength": {"enum": ["mild", "strong"]}}),
    "set_projector": ("Choose what the projector shows.", {"input": {"enum": ["laptop", "camera", "television"]}}),
}
SIMULATED = {"house": HOUSE, "garden": GARDEN, "office": OFFICE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--split", default="test", choices=("dev", "test", "fresh"))
    parser.add_argument("--half", choices=("read", "kept"), help="only this half of the split")
    parser.add_argument("--steps", type=int, choices=(1, 2, 3), help="only tasks of so many steps")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th task, for a first look")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--show", action="store_true", help="what went wrong")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE")
    args = parser.parse_args()
    if args.table:
        for path in args.table:
            print(table(_kept(path)), end="")
        return
    rows = [json.loads(line) for line in (HERE / "act_tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [r for r in rows if r["split"] == args.split][:: args.every]
    if args.half:
        rows = [r for r in rows if half(r["id"]) == args.half]
    if args.steps:
        rows = [r for r in rows if r["steps"] == args.steps]
    kept = _kept(args.output) if args.output and args.output.is_file() else []
    known = {r["id"] for r in kept}
    readers: dict[tuple[str, ...], Reader] = {}
    with open_bundle(args.bundle, threads=args.threads) as model:
        for row in rows:
            if row["id"] in known:
                continue
            names = tuple(row["tools"])
            if names not in readers:
                readers[names] = _Once(model, _manifest(HERE, names).functions())
            bundle = model.bundle
            about = {"bundle_id": bundle.id, "format": bundle.format, "quantization": bundle.quantization}
            record = {**_tried(row, model, readers[names]), "bundle": bundle.name, **about}
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
    print(table(kept), end="")


def _kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class _Once(Reader):
    """Reads each wish once: many tasks share wishes, the model is greedy, and sees only wish and tools."""

    def __init__(self, model: Model, functions: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(model, functions)
        self._known: dict[tuple[Any, ...], tuple[Meaning, int]] = {}

    def read(self, wish: str, budget: Budget, *, told: Sequence[str] = (), without: Sequence[str] = ()) -> Meaning:
        key = (wish, *told, "without", *without)
        if key not in self._known:
            spent = budget.spent
            found = super().read(wish, budget, told=told, without=without)
            self._known[key] = found, budget.spent - spent
            return found
        found, spent = self._known[key]
        budget.spent += spent
        return found


def _tried(row: dict[str, Any], model: Model, reader: Reader) -> dict[str, Any]:
    """One task in its world, beside the world as it should be. `took_s` is short where wishes were read before."""
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


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """How many tasks were done, by bundle, split and steps; the halves of `test` in rows of their own."""
    heads = ("bundle", "tasks", "one step", "two steps", "three steps", "using a result", "all")
    rows = [heads, ("---",) * len(heads)]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        name = f"{record['format']} `{record['quantization']}`"
        groups.setdefault((name, record["split"]), []).append(record)
        if record["split"] == "test":
            groups.setdefault((name, f"test, half {half(record['id'])}"), []).append(record)
    for (name, tasks), some in sorted(groups.items()):
        counted = [[r["done"] for r in some if r["steps"] == steps] for steps in (1, 2, 3)]
        counted += [[r["done"] for r in some if r["linked"]], [r["done"] for r in some]]
        rows.append((name, tasks, *(_share(done) for done in counted)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _share(done: Sequence[bool]) -> str:
    return f"{sum(done)} of {len(done)} ({100 * sum(done) / len(done):.0f} %)" if done else ""


if __name__ == "__main__":
    main()
