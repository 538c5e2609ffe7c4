"""A house that is not there, for `act_suite`: its devices are `house.json` beside this file, which is copied there."""

from __future__ import annotations

import json
from pathlib import Path


def set_blinds(room: str, position: str) -> str:
    return _set(f"blinds of the {room}", position)


def set_heating(room: str, degrees: int) -> str:
    return _set(f"heating of the {room}", degrees)


def lock_door(door: str) -> str:
    return _set(door, "locked")


def play_music(what: str, room: str) -> str:
    return _set(f"music in the {room}", what)


def start_vacuum(room: str) -> str:
    return _set("vacuum", f"in the {room}")


def water_bed(bed: str, minutes: int) -> str:
    return _set(f"water on the {bed}", minutes)


def preheat_oven(degrees: int) -> str:
    return _set("oven", degrees)


def add_item(list: str, item: str) -> str:
    return _set(f"{item} on the list {list}", 1)


def charge_car(percent: int) -> str:
    return _set("car", percent)


def record_film(title: str) -> str:
    return _set(f"recording of {title}", "planned")


def arm_alarm(mode: str) -> str:
    return _set("alarm system", mode)


def start_machine(machine: str) -> str:
    return _set(machine, "running")


def reserve_room(room: str, time: str) -> str:
    return _set(room, time)


def order_supplies(what: str, amount: int) -> str:
    return _set(f"order of {what}", amount)


def set_status(status: str) -> str:
    return _set("status", status)


def send_message(to: str, text: str) -> str:
    return _set(f"message to {to}", text)


def make_coffee(strength: str) -> str:
    return _set("coffee", strength)


def set_projector(input: str) -> str:
    return _set("projector", input)


def _set(thing: str, state: str | int) -> str:
    path = Path(__file__).with_name("house.json")
    house = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**house, thing: state}), encoding="utf-8")
    return json.dumps({"ok": True})
