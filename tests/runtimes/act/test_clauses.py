"""Where one wish ends and the next begins, and which tools it may mean."""

from __future__ import annotations

import pytest

from edge.runtimes.act import candidates, clauses


@pytest.mark.parametrize(
    ("request_", "wishes"),
    [
        ("turn on the lamp", ["turn on the lamp"]),
        ("turn on the lamp and open the blind", ["turn on the lamp", "open the blind"]),
        ("Read todo.txt, then delete draft.txt.", ["Read todo.txt", "delete draft.txt."]),
        ("add milk and eggs to my list", ["add milk and eggs to my list"]),
        ("set a timer for tea; also what is on today?", ["set a timer for tea", "what is on today?"]),
        ("Lock it. Then dim it, please switch off the tv", ["Lock it", "dim it", "please switch off the tv"]),
        ("write 'stop and go home' to a.txt", ["write 'stop and go home' to a.txt"]),
        ("make a note: call Ada and send the letter", ["make a note: call Ada and send the letter"]),
        ("wake me at 7:30 and play some jazz", ["wake me at 7:30", "play some jazz"]),
        ("Dim the hall. Please also lock the gate", ["Dim the hall", "Please lock the gate"]),
        ("Lock the gate. Could you then also dim it", ["Lock the gate", "Could you dim it"]),
        ("open a.b.txt and then", ["open a.b.txt and then"]),
        ("frobnicate the lamp and defrost the car", ["frobnicate the lamp and defrost the car"]),
    ],
)  # fmt: skip
def test_a_request_is_cut_where_a_wish_begins(request_: str, wishes: list[str]) -> None:
    assert [c.text for c in clauses.split(request_)] == wishes


def test_verbs_of_the_tools_begin_wishes_too() -> None:
    tools = [{"function": {"name": "defrost_car", "description": "Melt the ice.", "parameters": {}}}]
    found = clauses.split("dim the hall and defrost the car and melt the rest", candidates.verbs(tools))
    assert [c.text for c in found] == ["dim the hall", "defrost the car", "melt the rest"]


def test_what_was_cut_too_much_goes_back_together() -> None:
    found = clauses.split("remind me of milk and call Ada, then dim the hall")
    assert [(c.text, c.sure) for c in found] == [
        ("remind me of milk", True),
        ("call Ada", False),
        ("dim the hall", True),
    ]
    assert [c.text for c in clauses.merge(found, 1)] == ["remind me of milk and call Ada", "dim the hall"]


def test_the_likeliest_tools_come_first_and_none_is_left_out() -> None:
    named = [
        ("take_photo", "Take a photo."), ("list_events", "List the calendar."), ("set_light", "Switch a lamp."),
        ("add_note", "Keep a note."), ("delete_event", "Remove something from the calendar."),
    ]  # fmt: skip
    functions = [{"name": n, "description": d, "parameters": {"properties": {}}} for n, d in named]

    def ranked(request: str) -> list[str]:
        return [named[n][0] for n in candidates.rank(request, functions)]

    assert ranked("cancel my meeting")[0] == "delete_event"
    assert ranked("show me the meetings of today")[0] == "list_events"
    assert ranked("hallway lights off")[0] == "set_light"

    def kin(request: str, name: str) -> list[str]:
        return [named[n][0] for n in candidates.kin(request, functions, name, near=0.8)]

    assert kin("which meetings are there", "add_note") == ["list_events", "delete_event"]
    assert kin("xyz", "add_note") == []
    assert ranked('note "cancel my meeting"')[0] == "add_note"
    assert ranked("notes")[0] == "add_note"
    assert ranked("the meeting can be deleted")[0] == "delete_event"
    assert sorted(ranked("xyz")) == sorted(n for n, _ in named)
