"""Write the tasks of the suite: python -m benchmarks.act_tasks

Each line of `act_tasks.jsonl` is a request, the tools it is said to, what there is before, and the calls that lead to
the right state. The split `dev` is what the program was tuned on; `test` has other words, other ways to say things and
mostly other tools. A first test set was tuned on and is in `dev` now (`HOUSE`). Of this one no failure was read while
tuning; but its first sixteen tasks were counted (eight were done), and the program was changed once more after that.
Later the failures of one half of it were read (`half`), those of the other half not. `fresh` has other words and other
tools again, was written while the program was changed for what that half showed, and not run until that was done;
then failures of its own half `read` were read.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASKS = Path(__file__).with_suffix(".jsonl")


@dataclass(frozen=True)
class Wish:
    """One step: ways to say it, a tool, its arguments; `{name}` is a value, `@result` what the step before found."""

    says: tuple[str, ...]
    tool: str
    arguments: dict[str, Any]


# What the worlds hold before; requests speak of it.
DEV_WORLD = {"files": {
    "todo.txt": "buy stamps\n", "draft.txt": "Dear Mr Hill\n", "list.txt": "rice\nsoap\n", "old.log": "started\n",
    "letter.txt": "Best wishes\n", "plan.md": "paint the fence\n", "budget.csv": "rent,700\n",
    "joke.txt": "knock knock\n",
}}  # fmt: skip
HOUSE_WORLD = {
    "notes": ["the spare key hangs in the shed", "passport expires in May", "try the lentil soup of Nadia"],
    "events": [["Dentist", "tomorrow 9:30"], ["Choir practice", "tomorrow 18:00"], ["Budget review", "friday 14:00"]],
}
_NEW = ("ideas.txt", "report.md", "copy.txt", "archive.log", "final.txt", "names.csv")
_OLD = tuple(DEV_WORLD["files"])
_LINES = ("water the plants", "call the bank", "fix the bike", "ask Lena", "pay the rent", "two lemons")
DEV: tuple[tuple[int, Wish], ...] = (
    (2, Wish(("read the file {old}", "show me {old}", "what does {old} say"), "read_file", {"path": "{old}"})),
    (3, Wish(('add "{line}" to {old}', 'append the line "{line}" to the file {old}'), "append_file",
             {"path": "{old}", "text": "{line}"})),
    (3, Wish(("delete {old}", "remove the file {old}", "please delete the file {old}"), "delete_file",
             {"path": "{old}"})),
    (3, Wish(("move {old} to {new}", "rename {old} to {new}"), "move_file", {"path": "{old}", "to": "{new}"})),
    (2, Wish(('write "{line}" to the file {new}', 'create a file {new} that says "{line}"'), "write_file",
             {"path": "{new}", "text": "{line}"})),
    (2, Wish(("make a folder called {folder}", "create the folder {folder}"), "make_folder", {"path": "{folder}"})),
    (3, Wish(("switch the {pin} {state}", "turn {state} the {pin}", "{pin} {state}"), "set_device",
             {"pin": "{pin}", "state": "{state}"})),
)  # fmt: skip
DEV_PAIRS: tuple[tuple[Wish, Wish], ...] = (
    (DEV[0][1], Wish(("append it to {new}", "add it to the file {new}"), "append_file",
                     {"path": "{new}", "text": "@result"})),
    (DEV[0][1], Wish(("delete it", "remove it"), "delete_file", {"path": "{old}"})),
    (DEV[0][1], Wish(("write the result to {new}", "save it as {new}"), "write_file",
                     {"path": "{new}", "text": "@result"})),
    (DEV[4][1], Wish(("move it to {new2}",), "move_file", {"path": "{new}", "to": "{new2}"})),
)  # fmt: skip
DEV_JOINTS = (" and ", " and then ", ", then ", ". Then ", "; ")
DEV_VALUES = {
    "old": _OLD, "new": _NEW[:4], "new2": _NEW[4:], "line": _LINES, "folder": ("photos", "taxes", "recipes"),
    "pin": ("lamp", "fan", "pump", "heater"), "state": ("on", "off"),
}  # fmt: skip
HOUSE: tuple[tuple[int, Wish], ...] = (
    (3, Wish(('note down "{thought}"', 'make a note that says "{thought}"', 'please write the note "{thought}"',
              "take a note: {thought}"), "add_note", {"text": "{thought}"})),
    (2, Wish(("delete note {note}", "get rid of note number {note}", "remove the note {note}"), "delete_note",
             {"id": "{note}"})),
    (2, Wish(('change note {note} to "{thought}"', 'note {note} should now say "{thought}"'), "edit_note",
             {"id": "{note}", "text": "{thought}"})),
    (1, Wish(("find my notes about {topic}", "search the notes for {topic}"), "find_notes", {"text": "{topic}"})),
    (2, Wish(("what is on my calendar {day}", "list the appointments of {day}", "show my appointments for {day}"),
             "list_events", {"on": "{day}"})),
    (3, Wish(("add the appointment {title} {moment}", "put {title} on the calendar for {moment}",
              'schedule "{title}" for {moment}'), "add_event", {"title": "{title}", "start": "{moment}"})),
    (2, Wish(("cancel appointment {event}", "delete the appointment number {event}"), "delete_event",
             {"id": "{event}"})),
    (2, Wish(("move appointment {event} to {moment}", "reschedule appointment {event} to {moment}"), "move_event",
             {"id": "{event}", "start": "{moment}"})),
    (3, Wish(("pull the blinds of the {place} {way}", "I would like the blinds in the {place} {way}"), "set_blinds",
             {"room": "{place}", "position": "{way}"})),
    (3, Wish(("heat the {place} to {degrees} degrees", "{degrees} degrees in the {place} please",
              "set the heating of the {place} to {degrees}"), "set_heating",
             {"room": "{place}", "degrees": "{degrees}"})),
    (3, Wish(("lock the {door}", "please lock the {door}", "make sure the {door} is locked"), "lock_door",
             {"door": "{door}"})),
    (2, Wish(("play {music} in the {place}", "put on {music} in the {place}"), "play_music",
             {"what": "{music}", "room": "{place}"})),
    (2, Wish(("vacuum the {place}", "send the robot to vacuum the {place}"), "start_vacuum", {"room": "{place}"})),
)  # fmt: skip
HOUSE_PAIRS: tuple[tuple[Wish, Wish], ...] = (
    (HOUSE[4][1], Wish(("write it down as a note", "put that in a note"), "add_note", {"text": "@result"})),
    (HOUSE[3][1], Wish(("add a new note with the result",), "add_note", {"text": "@result"})),
)
HOUSE_JOINTS = (" and ", ", and then ", "; after that ", ". Also, ", ". Then ")
HOUSE_VALUES = {
    "thought": ("the boiler hums at night", "Omar owes me twelve euros", "tulips need shade", "printer ink is low",
                "the code of the gate is 4711", "read the book on bees"),
    "note": ("1", "2", "3"), "topic": ("passport", "soup", "key"), "day": ("today", "tomorrow", "friday"),
    "title": ("Yoga", "Piano lesson", "Vet visit", "Team lunch", "Car wash", "Parents evening"),
    "moment": ("tomorrow 10:15", "friday 16:00", "saturday 11:30", "monday 8:00", "tomorrow 20:45"),
    "event": ("1", "2", "3"), "place": ("study", "attic", "nursery", "guest room", "kitchen", "cellar"),
    "way": ("up", "down"), "degrees": ("17", "19", "21", "23"),
    "door": ("front door", "garage", "balcony door", "gate"),
    "music": ("jazz", "the radio", "piano music", "whale songs"),
}  # fmt: skip


TEST_WORLD = {
    "notes": ["ladder is with the Kowalskis", "wifi name is blue heron", "buy felt for the piano"],
    "events": [["Haircut", "tomorrow 11:00"], ["Book club", "saturday 19:30"], ["Tax appointment", "monday 8:15"]],
}  # fmt: skip
TEST: tuple[tuple[int, Wish], ...] = (
    (3, Wish(('jot down "{thought}"', 'keep this as a note: {thought}', 'I need a note saying "{thought}"'), "add_note",
             {"text": "{thought}"})),
    (2, Wish(("throw away note {note}", "note {note} can be deleted", "erase note {note}"), "delete_note",
             {"id": "{note}"})),
    (1, Wish(('look for "{topic}" in my notes', "which of my notes mention {topic}"), "find_notes",
             {"text": "{topic}"})),
    (2, Wish(("what have I got on {day}", "tell me the appointments on {day}", "which events are on {day}"),
             "list_events", {"on": "{day}"})),
    (3, Wish(('create an event called "{title}" for {moment}', 'book "{title}" in my calendar at {moment}',
              'new appointment "{title}" {moment}'), "add_event", {"title": "{title}", "start": "{moment}"})),
    (2, Wish(("drop event {event} from the calendar", "remove appointment {event}", "scrap the appointment {event}"),
             "delete_event", {"id": "{event}"})),
    (2, Wish(("shift appointment {event} to {moment}", "appointment {event} moves to {moment}"), "move_event",
             {"id": "{event}", "start": "{moment}"})),
    (3, Wish(("water the {bed} for {minutes} minutes", "give the {bed} {minutes} minutes of water"), "water_bed",
             {"bed": "{bed}", "minutes": "{minutes}"})),
    (2, Wish(("preheat the oven to {degrees} degrees", "oven at {degrees} degrees please"), "preheat_oven",
             {"degrees": "{degrees}"})),
    (3, Wish(("put {item} on the {list} list", "add {item} to my {list} list"), "add_item",
             {"list": "{list}", "item": "{item}"})),
    (2, Wish(("charge the car up to {percent} percent", "I want the car charged to {percent}%"), "charge_car",
             {"percent": "{percent}"})),
    (2, Wish(("record the film {film}", 'please record "{film}" on tv'), "record_film", {"title": "{film}"})),
    (2, Wish(("arm the alarm system in {mode} mode", "set the alarm system to {mode}"), "arm_alarm",
             {"mode": "{mode}"})),
    (2, Wish(("run the {machine}", "start the {machine} now", "could you start the {machine}"), "start_machine",
             {"machine": "{machine}"})),
)  # fmt: skip
TEST_PAIRS: tuple[tuple[Wish, Wish], ...] = (
    (TEST[3][1], Wish(("save that as a note", "make a note of it"), "add_note", {"text": "@result"})),
    (TEST[2][1], Wish(("write the result into a new note",), "add_note", {"text": "@result"})),
)
TEST_JOINTS = (" and ", " and also ", ", then ", "; then ", ". After that ", ". Please also ")
TEST_VALUES = {
    "thought": ("the cellar lamp flickers", "Ines likes dark chocolate", "shelf needs four screws",
                "gate squeaks when it rains", "the parcel is at number nine", "try the bakery in Mill Lane"),
    "note": ("1", "2", "3"), "topic": ("ladder", "wifi", "piano"), "day": ("today", "tomorrow", "saturday", "monday"),
    "title": ("Eye test", "Swimming", "Roof repair", "Dinner with Jo", "School concert", "Blood donation"),
    "moment": ("tomorrow 14:00", "monday 9:30", "thursday 17:15", "sunday 12:00", "tomorrow 7:45"),
    "event": ("1", "2", "3"), "bed": ("roses", "lawn", "tomatoes", "herbs"), "minutes": ("5", "10", "15", "25"),
    "degrees": ("160", "180", "200", "220"), "item": ("paprika", "candles", "oat milk", "a new hose", "batteries"),
    "list": ("shopping", "hardware", "holiday"), "percent": ("60", "75", "80", "95"),
    "film": ("The Third Man", "Paper Moon", "Roman Holiday"), "mode": ("home", "away", "night"),
    "machine": ("dishwasher", "washing machine", "dryer"),
}  # fmt: skip


# Written when the failures of one half of `test` had been read, and before anything was run on it.
FRESH_WORLD = {
    "files": {
        "agenda.txt": "welcome, figures, lunch\n", "prices.csv": "desk,240\n", "speech.md": "Dear colleagues\n",
        "keys.txt": "locker 12\n", "menu.txt": "lentils and rice\n",
    },
    "events": [["Interview", "tomorrow 10:00"], ["Fire drill", "thursday 15:30"], ["Staff party", "friday 18:00"]],
}  # fmt: skip
FRESH: tuple[tuple[int, Wish], ...] = (
    (2, Wish(("open the file {old}", "read me {old}", "what is written in {old}"), "read_file", {"path": "{old}"})),
    (1, Wish(("put the line {line} at the end of {old}", 'append "{line}" to {old}'), "append_file",
             {"path": "{old}", "text": "{line}"})),
    (1, Wish(("get rid of the file {old}", "delete {old}"), "delete_file", {"path": "{old}"})),
    (2, Wish(("give {old} the new name {new}", "rename {old} to {new}"), "move_file",
             {"path": "{old}", "to": "{new}"})),
    (1, Wish(("make me a folder {folder}", "create a folder called {folder}"), "make_folder", {"path": "{folder}"})),
    (2, Wish(("what is planned for {day}", "list my appointments for {day}", "which appointments do I have on {day}"),
             "list_events", {"on": "{day}"})),
    (2, Wish(("search my appointments for {topic}", 'find the appointment with the word "{topic}"'), "find_events",
             {"text": "{topic}"})),
    (2, Wish(('put "{title}" into the calendar, {moment}', 'schedule "{title}" for {moment}'), "add_event",
             {"title": "{title}", "start": "{moment}"})),
    (2, Wish(("cancel appointment {event}", "delete appointment number {event}"), "delete_event", {"id": "{event}"})),
    (2, Wish(("reserve the {hall} for {moment}", "I would like the {hall} reserved for {moment}"), "reserve_room",
             {"room": "{hall}", "time": "{moment}"})),
    (2, Wish(("order {amount} {goods}", "we need {amount} {goods}, order them"), "order_supplies",
             {"what": "{goods}", "amount": "{amount}"})),
    (2, Wish(("set my status to {status}", "show me as {status}"), "set_status", {"status": "{status}"})),
    (3, Wish(('tell {who} "{message}"', 'send {who} the message "{message}"', "message {who} that {message}"),
             "send_message", {"to": "{who}", "text": "{message}"})),
    (2, Wish(("make {strength} coffee", "I want a {strength} coffee"), "make_coffee", {"strength": "{strength}"})),
    (2, Wish(("set the projector to {input}", "switch the projector to {input}"), "set_projector",
             {"input": "{input}"})),
)  # fmt: skip
_SEND_IT = Wish(("send it to {who}", "send the result to {who}", "message it to {who}"), "send_message",
                {"to": "{who}", "text": "@result"})  # fmt: skip
FRESH_PAIRS: tuple[tuple[Wish, Wish], ...] = (
    (FRESH[0][1], _SEND_IT),
    (FRESH[5][1], _SEND_IT),
    (FRESH[5][1], Wish(("write that to {new}", "save the list as {new}"), "write_file",
                       {"path": "{new}", "text": "@result"})),
    (FRESH[6][1], Wish(("add the answer to {old}", "append what you found to {old}"), "append_file",
                       {"path": "{old}", "text": "@result"})),
    (FRESH[0][1], Wish(("rename it to {new}",), "move_file", {"path": "{old}", "to": "{new}"})),
)  # fmt: skip
FRESH_JOINTS = (" and ", " and then ", ", then ", "; ", ". Then please ", ". And ")
FRESH_VALUES = {
    "old": tuple(FRESH_WORLD["files"]), "new": ("week.txt", "final.md", "note.txt"), "folder": ("invoices", "travel"),
    "line": ("ask for a quote", "check the toner"), "day": ("tomorrow", "thursday", "friday"),
    "topic": ("interview", "drill", "party"), "title": ("Board call", "Training", "Lift inspection", "Lunch with Ada"),
    "moment": ("tomorrow 13:00", "thursday 9:15", "friday 11:45", "monday 16:00"), "event": ("1", "2", "3"),
    "hall": ("blue room", "lecture hall", "library"), "amount": ("3", "12", "40"),
    "goods": ("pens", "folders", "lamps", "envelopes"), "status": ("available", "busy", "away"),
    "who": ("Mira", "Tomas", "Yusuf"), "strength": ("mild", "strong"), "input": ("laptop", "camera", "television"),
    "message": ("the parcel has come", "lunch is at one", "I am running late", "the printer works again"),
}  # fmt: skip


@dataclass(frozen=True)
class Corner:
    """Tools of one kind, and what is said to them."""

    tools: tuple[str, ...]
    world: dict[str, Any]
    wishes: tuple[tuple[int, Wish], ...]
    pairs: tuple[tuple[Wish, Wish], ...]
    joints: tuple[str, ...]
    values: dict[str, tuple[str, ...]]


DESK = Corner(("files", "gpio"), DEV_WORLD, DEV, DEV_PAIRS, DEV_JOINTS, DEV_VALUES)
HOME = Corner(("notes", "calendar", "house"), HOUSE_WORLD, HOUSE, HOUSE_PAIRS, HOUSE_JOINTS, HOUSE_VALUES)
GARDEN = Corner(("notes", "calendar", "garden"), TEST_WORLD, TEST, TEST_PAIRS, TEST_JOINTS, TEST_VALUES)
OFFICE = Corner(("files", "calendar", "office"), FRESH_WORLD, FRESH, FRESH_PAIRS, FRESH_JOINTS, FRESH_VALUES)

_COUNTS = ("{amount}", "{note}", "{event}", "{degrees}", "{minutes}", "{percent}")


def half(identity: str) -> str:
    """In which half of its split a task is: `read`, whose failures were read, or `kept` from that."""
    return ("read", "kept")[hashlib.sha256(identity.encode()).digest()[0] % 2]


def main() -> None:
    """Always the same bytes."""
    rows = [
        *_split("dev", DESK, (10, 25, 15), 3),
        *_split("dev", HOME, (15, 30, 15), 11),
        *_split("test", GARDEN, (50, 120, 60), 23),
        *_split("fresh", OFFICE, (20, 60, 20), 41),
    ]
    TASKS.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _split(split: str, corner: Corner, counts: tuple[int, int, int], seed: int) -> list[dict[str, Any]]:
    rng = random.Random(f"{split} {seed}")
    made: dict[str, dict[str, Any]] = {}
    for steps, count in enumerate(counts, 1):
        wanted = len(made) + count
        while len(made) < wanted:
            row = _task(corner, steps, rng)
            made.setdefault(row["request"], {"id": f"{split}-{corner.tools[-1]}-{len(made)}", "split": split, **row})
    rows = list(made.values())
    rng.shuffle(rows)  # a run that was stopped has seen some of each
    return rows


def _task(corner: Corner, steps: int, rng: random.Random) -> dict[str, Any]:
    wishes = [w for n, w in corner.wishes for _ in range(n)]
    pairs = corner.pairs
    values = {name: list(some) for name, some in corner.values.items()}
    for some in values.values():
        rng.shuffle(some)  # each value once, so that no step undoes or hinders another
    chosen: list[Wish] = []
    linked = steps > 1 and rng.random() < 0.25
    if linked:
        chosen += rng.choice(pairs)
    while len(chosen) < steps:
        other = rng.choice(wishes)
        if sum(w.tool == other.tool for w in chosen) == 0 and not (
            linked and other.tool in ("move_file", "write_file")
        ):
            chosen.append(other)
    said, calls, before = [], [], {}
    for at, wish in enumerate(chosen):
        kept = before if linked and at == 1 else {}
        drawn = {name: kept.get(name) or values[name].pop() for name in _names(wish) if kept.get(name) or values[name]}
        before = drawn
        said.append(rng.choice(wish.says).format_map(drawn))
        calls.append([wish.tool, {k: _value(v, drawn) for k, v in wish.arguments.items()}])
    request = said[0]
    for text in said[1:]:
        joint = rng.choice(corner.joints)
        request += joint + (text[0].upper() + text[1:] if joint == ". " else text)
    return {
        "steps": steps,
        "linked": linked,
        "request": request[0].upper() + request[1:] if rng.random() < 0.5 else request,
        "tools": corner.tools,
        "world": corner.world,
        "calls": calls,
    }


def _names(wish: Wish) -> list[str]:
    """The values that its words and arguments name, in order."""
    found: list[str] = []
    text = "".join(wish.says) + json.dumps(wish.arguments)
    for part in text.split("{")[1:]:
        name = part.split("}")[0]
        if name.isidentifier() and name not in found:
            found.append(name)
    return found


def _value(pattern: Any, drawn: dict[str, str]) -> Any:
    if not isinstance(pattern, str) or "{" not in pattern:
        return pattern
    text = pattern.format_map(drawn)
    return int(text) if pattern in _COUNTS else text


if __name__ == "__main__":
    main()
