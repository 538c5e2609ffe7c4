"""The built-in tools, through the hands, judged by what is there afterwards."""

import json
import os
import re
import sqlite3
import stat
import time
from datetime import datetime, timedelta

import pytest

from edge.errors import EdgeError
from edge.runtimes.act import database, manifest, moments, timer_worker
from edge.runtimes.act.hands import Hands, Planned
from edge.runtimes.act.ran import ToolError
from edge.runtimes.act.toolsets import files
from edge.runtimes.act.toolsets import timers as toolset
from edge.runtimes.tool_calls import ToolCall

NOW = datetime(2026, 11, 25, 21, 0)  # a Wednesday


@pytest.fixture
def tools(tmp_path):
    """Opens a toolset, and gives what calls its tools as a user whose every call is allowed."""
    kept = []

    def make(name, now=NOW, **settings):
        made = manifest.parse({"toolsets": {name: settings}}, folder=tmp_path, where="x")
        hands = Hands(made, ask=lambda q: True, state=tmp_path / "state", now=(lambda: now) if now else datetime.now)
        hands.plan([Planned(tool) for tool in made.tools])
        kept.append(hands)
        return lambda tool, **arguments: hands.perform(ToolCall(tool, arguments), origin="user")

    yield make
    for hands in kept:
        hands.close()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program of that name in the PATH, which writes down its words and says something."""

    def make(name, says="", code=0, sleep=0):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "says").write_text(says)
        file = folder / name
        file.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" >> {folder}/words\ncut -d " " -f6 /proc/$$/stat > {folder}/session\n'
            f"sleep {sleep}\ncat {folder}/says\nexit {code}\n"
        )
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return folder / "words"

    return make


def test_files_are_written_found_moved_and_deleted(tools, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    call = tools("files", folder="home")
    assert call("make_folder", path="lists").text == "lists is there"
    assert call("make_folder", path="lists").status == "done"
    assert call("write_file", path="lists/shop.txt", text="milk\n").text == "wrote 5 bytes to lists/shop.txt"
    assert call("append_file", path="lists/shop.txt", text="bread").status == "done"
    assert (home / "lists/shop.txt").read_text() == "milk\nbread\n"
    assert call("read_file", path="lists/shop.txt").text == "milk\nbread"
    assert call("list_files").text == "lists/"
    assert call("list_files", folder="lists").text == "shop.txt"
    assert call("find_files", name="shop", text="BREAD").text == "lists/shop.txt"
    assert call("find_files", name="*.md").text == "no such file"
    assert call("move_file", path="lists/shop.txt", to="old.txt").status == "done"
    assert (home / "old.txt").read_text() == "milk\nbread\n"
    assert call("delete_file", path="old.txt").status == "done"
    assert sorted(path.name for path in home.rglob("*")) == ["lists"]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("read_file", {"path": "pipe"}, "'pipe' is no file"),
        ("read_file", {"path": "lists"}, "'lists' is no file"),
        ("read_file", {"path": "binary"}, "holds no text, but 3 bytes of something else"),
        ("append_file", {"path": "pipe", "text": "x"}, "no such device or address"),
        ("write_file", {"path": "link", "text": "x"}, "'link' is there, and no file"),
        ("write_file", {"path": "lists", "text": "x"}, "'lists' is there, and no file"),
        ("write_file", {"path": "", "text": "x"}, "is there, and no file"),
        ("make_folder", {"path": "a"}, "'a' is there already, and no folder"),
        ("move_file", {"path": "a", "to": "b"}, "'b' is there already"),
        ("move_file", {"path": "gone", "to": "c"}, "there is no file 'gone'"),
        ("move_file", {"path": "link", "to": "c"}, "'link' is there, and no file"),
        ("move_file", {"path": "a", "to": "n" * 300}, "was not moved: File name too long"),
        ("write_file", {"path": "n" * 300, "text": "x"}, "cannot be looked for: File name too long"),
        ("make_folder", {"path": "n" * 300}, "was not made: File name too long"),
        ("delete_file", {"path": "gone"}, "there is no file 'gone'"),
        ("delete_file", {"path": "lists"}, "'lists' is there, and no file"),
        ("list_files", {"folder": "a"}, "not a directory"),
    ],
)
def test_what_is_no_file_is_left_alone(tools, tmp_path, tool, arguments, words):
    home = tmp_path / "home"
    (home / "lists").mkdir(parents=True)
    (home / "a").write_text("a")
    (home / "b").write_text("b")
    (home / "binary").write_bytes(b"\xff\x00\xfe")
    os.mkfifo(home / "pipe")
    os.symlink("a", home / "link")
    outcome = tools("files", folder="home")(tool, **arguments)
    assert outcome.status == "failed"
    assert words in outcome.reason
    assert ((home / "a").read_text(), (home / "b").read_text()) == ("a", "b")
    assert len(list(home.iterdir())) == 6


def test_a_disk_that_is_full_keeps_the_old_file(tools, tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    call = tools("files", folder=".")

    def full(*about):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EdgeError, match="No space left"):
        call("write_file", path="a", text="new")  # the log cannot be written, so nothing is done
    monkeypatch.undo()
    monkeypatch.setattr("edge.runtimes.act.toolsets.files._put", full)
    outcome = call("write_file", path="a", text="new")
    assert outcome.reason == "'a' was not written: No space left on device"
    assert (tmp_path / "a").read_text() == "old"
    assert not list(tmp_path.glob(".*.part"))


def test_long_files_and_folders_are_cut(tools, tmp_path):
    (tmp_path / "long").write_text("é" * (1 << 20))
    for n in range(250):
        (tmp_path / f"f{n:03}").touch()
    call = tools("files", folder=".")
    assert "characters more" in call("read_file", path="long").text
    assert call("list_files").text.endswith("more")
    assert len(call("find_files", name="f*").text.splitlines()) == 200


def test_a_file_that_is_replaced_stays_as_private_as_it_was(tools, tmp_path):
    for name, mode in (("mine", 0o600), ("script", 0o755)):
        (tmp_path / name).write_text("old")
        (tmp_path / name).chmod(mode)
        assert tools("files", folder=".")("write_file", path=name, text="new").status == "done"
        assert ((tmp_path / name).read_text(), stat.S_IMODE((tmp_path / name).stat().st_mode)) == ("new", mode)


@pytest.mark.parametrize(
    ("tool", "what", "arguments", "words"),
    [
        ("write_file", "open", {"path": "a", "text": "new"}, "'a' was not written: Read-only file system"),
        ("make_folder", "mkdir", {"path": "b"}, "'b' was not made: Read-only file system"),
        ("move_file", "link", {"path": "a", "to": "b"}, "'a' was not moved: Read-only file system"),
        ("delete_file", "unlink", {"path": "a"}, "'a' was not deleted: Read-only file system"),
    ],
)
def test_what_the_system_refuses_has_changed_nothing_and_is_not_unknown(
    tmp_path, monkeypatch, tool, what, arguments, words
):
    (tmp_path / "a").write_text("old")
    real = getattr(os, what)

    def refused(path, *about, **more):
        if "dir_fd" in more or "src_dir_fd" in more or what == "mkdir":
            raise OSError(30, "Read-only file system")
        return real(path, *about, **more)

    monkeypatch.setattr(os, what, refused)
    with pytest.raises(ToolError, match=words):
        getattr(files, tool)(None, {"folder": str(tmp_path)}, **arguments)
    assert (tmp_path / "a").read_text() == "old"


def test_a_name_that_is_no_text_hides_no_others(tools, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/a.txt").touch()
    with open(os.fsencode(tmp_path) + b"/home/b\xff.txt", "w"):
        pass
    call = tools("files", folder="home")
    assert call("list_files").text == call("find_files").text == "a.txt\nb?.txt"


def test_a_long_text_is_not_cut_within_a_character(tools, tmp_path):
    for begin in ("", "a"):  # one of them has half a character at the limit of what a tool may say, and of what is read
        (tmp_path / "long").write_text(begin + "é" * (1 << 20))
        assert tools("files", folder=".")("read_file", path="long").text.startswith(f"{begin}éé")
    (tmp_path / "long").write_bytes("é".encode("latin-1") * (2 << 20))
    assert "holds no text" in tools("files", folder=".")("read_file", path="long").reason


def test_appointments(tools):
    call = tools("calendar")
    assert call("list_events", on="tomorrow").text == "nothing on 2026-11-26"
    added = call("add_event", title="Dentist", start="tomorrow at 9:30", minutes=30, where="Main St")
    assert added.text == "added 1: 2026-11-26 09:30 Dentist, 30 minutes, Main St"
    call("add_event", title="Breakfast", start="2026-11-26 08:00")
    first = call("list_events", on="tomorrow").text.splitlines()
    assert first == ["2: 2026-11-26 08:00 Breakfast, 60 minutes", "1: 2026-11-26 09:30 Dentist, 30 minutes, Main St"]
    assert call("find_events", text="dent%").text.startswith("1: ")
    assert call("move_event", id=1, start="friday 10:00").text == "moved appointment 1 to 2026-11-27 10:00"
    assert len(call("list_events", on="today", days=7).text.splitlines()) == 2
    assert call("delete_event", id=2).text == "deleted appointment 2"
    assert call("find_events", text="breakfast").text == "no such appointment"
    for outcome in (call("move_event", id=9, start="friday"), call("delete_event", id=9)):
        assert outcome.reason == "there is no appointment 9"
    assert call("add_event", title="x", start="soon").status == "failed"


def test_notes(tools):
    call = tools("notes")
    assert call("list_notes").text == "there are no notes"
    assert call("add_note", text="The WLAN password is on the router").text == "kept as note 1"
    call("add_note", text="Call Anna")
    assert call("list_notes", n=1).text == "2: Call Anna"
    assert call("find_notes", text="password rout").text == "1: The WLAN password is on the router"
    assert call("edit_note", id=2, text="Call Ben").status == "done"
    assert call("find_notes", text="anna").text == "no such note"
    assert call("delete_note", id=2).status == "done"
    assert call("find_notes", text="ben").text == "no such note"
    assert call("find_notes", text="?!").reason == "'?!' has no words to look for"
    for outcome in (call("edit_note", id=9, text="x"), call("delete_note", id=9)):
        assert outcome.reason == "there is no note 9"


def test_the_databases_are_where_the_manifest_says(tools, tmp_path):
    tools("notes", database="mine.db")("add_note", text="x")
    assert sqlite3.connect(tmp_path / "mine.db").execute("SELECT text FROM notes").fetchall() == [("x",)]


def test_the_machine_tells_of_itself_and_taints_nothing(tools, tmp_path):
    files = {
        "proc/meminfo": "MemTotal:  1024000 kB\nMemAvailable:  512000 kB\n", "proc/loadavg": "0.52 0.1 0.1 1/99 7\n",
        "proc/uptime": "93784.2 1\n", "proc/device-tree/model": "Raspberry Pi 5 Model B\0",
        "sys/class/thermal/thermal_zone0/temp": "48312\n", "sys/class/power_supply/BAT0/capacity": "81\n",
        "sys/class/power_supply/BAT0/status": "Charging\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    call = tools("system", root=str(tmp_path / "fs"))
    assert call("get_time").text == "2026-11-25 21:00, Wednesday"
    assert call("get_memory").text == "500 MiB of 1000 MiB are free"
    assert call("get_temperature").text == "48.3 °C"
    assert call("get_load").text.startswith("load 0.52 on ")
    assert call("get_load").text.endswith("up for 1 days 2 hours 3 minutes")
    assert call("get_battery").text == "81 %, charging"
    assert call("get_machine").text.startswith("Raspberry Pi 5 Model B, Linux")
    assert "GiB are free" in call("get_disk").text
    assert call("get_disk").origin == "user"
    (tmp_path / "fs/sys/class/thermal/thermal_zone0/temp").write_text("hot")
    (tmp_path / "fs/sys/class/power_supply/BAT0/capacity").write_text("some")
    (tmp_path / "fs/proc/meminfo").unlink()
    assert call("get_temperature").reason == "this machine does not tell its temperature"
    assert call("get_battery").reason == "this machine has no battery"
    assert call("get_memory").reason == "this machine does not tell: /proc/meminfo cannot be read"


def test_this_very_machine_tells_of_itself(tools):
    call = tools("system")
    for tool in ("get_memory", "get_disk", "get_load", "get_machine"):
        assert call(tool).status == "done"


def test_timers_ring_and_their_process_ends(tools, tmp_path):
    ring = ["/bin/sh", "-c", f'echo "$0" >> {tmp_path}/rung']
    call = tools("timers", now=None, ring=ring)
    assert call("set_timer", after="2 s", label="tea; $(x)").text == "timer 1, tea; $(x), rings in 2 s"
    call("set_timer", after="1 s", label="eggs")
    assert call("set_timer", after="3 hours", label="bread").status == "done"
    assert call("cancel_timer", id=3).text == "timer 3 is off"
    assert len(call("list_timers").text.splitlines()) == 2
    ends = time.monotonic() + 20
    while time.monotonic() < ends and not (tmp_path / "rung").is_file():
        time.sleep(0.1)
    while time.monotonic() < ends and len((tmp_path / "rung").read_text().splitlines()) < 2:
        time.sleep(0.1)
    assert (tmp_path / "rung").read_text() == "timer: eggs\ntimer: tea; $(x)\n"
    assert call("list_timers").text == "no timer is set"
    assert call("cancel_timer", id=1).reason == "no timer 1 is set"


def test_a_timer_that_was_due_while_the_power_was_off_rings_late(tools, tmp_path):
    ring = ["/bin/sh", "-c", f'echo "$0" >> {tmp_path}/rung']
    call = tools("timers", now=datetime.now() - timedelta(minutes=30), ring=ring)
    call("set_timer", after="10 minutes", label="tea")
    ends = time.monotonic() + 20
    while time.monotonic() < ends and not (tmp_path / "rung").is_file():
        time.sleep(0.1)
    assert re.fullmatch(r"timer: tea \(late by (19|20) minutes\)\n", (tmp_path / "rung").read_text())


def test_alarms_and_what_is_none(tools, monkeypatch):
    monkeypatch.setattr("edge.runtimes.act.toolsets.timers._wait", lambda *about: None)
    call = tools("timers")
    assert call("set_alarm", at="7:30").text == "timer 1, alarm, rings in 10 h 30 min"
    assert call("set_alarm", at="yesterday 7:30").reason == "2026-11-24 07:30 is over"


def test_what_rings_must_be_a_program(tools, tmp_path):
    assert "ring of the timers must be a list of words" in tools("timers", ring=[1])("set_timer", after="9 s").reason
    call = tools("timers", ring=["/no/bell"])
    assert call("set_timer", after="9 s").reason == "nothing would ring: the program /no/bell is not installed here"
    assert not (tmp_path / "state/timers.db").exists()  # what cannot ring was not set


def test_a_timer_that_is_set_while_the_process_is_about_to_end_rings(tmp_path, monkeypatch):
    path = tmp_path / "timers.db"
    db = database.opened(path, toolset.TABLES, "timers")
    put = "INSERT INTO timers (label, due) VALUES (?, ?)"
    db.execute(put, ("first", time.time()))
    rung = []

    def ring_all(db, terminal, ring):
        real(db, terminal, ring)
        if rung == ["first"]:  # nothing is set any more, and the lock is still held
            db.execute(put, ("second", time.time()))
            assert timer_worker.main([str(path), ""]) == 0  # finds the lock held
            assert rung == ["first"]

    real = timer_worker._ring_all
    monkeypatch.setattr(timer_worker, "_ring_all", ring_all)
    monkeypatch.setattr(timer_worker, "_ring", lambda label, *about: rung.append(label))
    assert timer_worker.main([str(path), ""]) == 0
    assert rung == ["first", "second"]
    db.close()


def test_pins_are_simulated_where_there_are_none_and_say_so(tools, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    call = tools("gpio", pins={"lamp": 17})
    assert call("read_pin", pin="lamp").text == "lamp is off (simulated: this machine has no pins)"
    assert call("set_pin", pin="lamp", state="on").text == "lamp is on (simulated: this machine has no pins)"
    assert call("read_pin", pin="lamp").text.startswith("lamp is on")
    assert json.loads((tmp_path / "state/pins.json").read_text()) == {"17": "on"}
    assert call("set_pin", pin="18", state="on").reason == "there is no pin '18'; there are: lamp"
    assert tools("gpio")("set_pin", pin="99", state="on").reason == "there is no pin '99'; there are: 0 to 27"
    assert "pins of gpio must be a table" in tools("gpio", pins={"lamp": 99})("read_pin", pin="lamp").reason


def test_pins_of_a_raspberry_pi_are_set_with_its_own_program(tools, program):
    words = program("pinctrl", "17: op -- pd | hi // GPIO17 = output\n")
    call = tools("gpio")
    assert call("set_pin", pin="17", state="on").text == "17 is on"
    assert call("read_pin", pin="17").text == "17 is on"
    assert words.read_text().split() == ["set", "17", "op", "dh", "get", "17"]


@pytest.mark.parametrize(("name", "tool"), [("pinctrl", "read_pin"), ("adb", "read_battery")])
def test_ctrl_c_reaches_no_program_in_its_middle(tools, program, name, tool):
    words = program(name, "17: op -- pd | hi // GPIO17 = output\n  level: 77\n")
    assert tools("gpio" if name == "pinctrl" else "android")(
        tool, **({"pin": "17"} if name == "pinctrl" else {})
    ).status
    assert int(words.with_name("session").read_text()) != os.getsid(0)


def test_pins_that_cannot_be_set(tools, program, monkeypatch):
    program("pinctrl", "no access", code=1)
    assert tools("gpio")("set_pin", pin="4", state="on").reason == "pinctrl failed: no access"
    program("pinctrl", "what?")
    assert tools("gpio")("read_pin", pin="4").reason == "pinctrl does not say what pin 4 is"
    program("pinctrl", sleep=5)
    monkeypatch.setattr("edge.runtimes.act.toolsets.gpio._RUN_S", 0.2)
    assert tools("gpio")("read_pin", pin="4").reason == "pinctrl does not end"


@pytest.mark.parametrize(
    ("tool", "arguments", "line"),
    [
        ("open_page", {"url": "https://example.org/?a=$(reboot);b='c'"},
         "am start -a android.intent.action.VIEW -d 'https://example.org/?a=$(reboot);b='\"'\"'c'\"'\"''"),
        ("dial_number", {"number": "+49 (30) 123-456"}, "am start -a android.intent.action.DIAL -d tel:+4930123456"),
        ("write_message", {"number": "12345", "text": "hi; reboot"},
         "am start -a android.intent.action.SENDTO -d smsto:12345 --es sms_body 'hi; reboot'"),
        ("phone_alarm", {"hour": 7, "minute": 30}, "android.intent.extra.alarm.MINUTES 30"),
        ("phone_timer", {"seconds": 90}, "android.intent.extra.alarm.LENGTH 90"),
        ("open_app", {"app": "org.example.app"}, "monkey -p org.example.app -c android.intent.category.LAUNCHER 1"),
        ("press_key", {"key": "next"}, "input keyevent 87"),
    ],
)  # fmt: skip
def test_intents_reach_the_phone_as_words(tools, program, tool, arguments, line):
    words = program("adb", "Starting: Intent\n")
    outcome = tools("android", serial="R5CT")(tool, **arguments)
    assert outcome.status == "done", outcome
    assert words.read_text().splitlines()[:3] == ["-s", "R5CT", "shell"]
    assert line in words.read_text()


@pytest.mark.parametrize(
    ("tool", "arguments", "says", "words"),
    [
        ("open_app", {"app": "a; reboot"}, "", "'a; reboot' is no package"),
        ("open_app", {"app": "org.gone"}, "No activities found to run", "the phone has no app org.gone"),
        ("open_page", {"url": "file:///data"}, "", "'file:///data' is no address of a web page"),
        ("open_page", {"url": "http://a"}, "Error: Activity not started", "the phone cannot do that: Error: Activity"),
        ("dial_number", {"number": "*#06#"}, "", "'*#06#' is no telephone number"),
        ("write_message", {"number": "x", "text": "x"}, "", "'x' is no telephone number"),
        ("read_battery", {}, "nothing", "the phone does not tell its charge"),
    ],
)
def test_what_the_phone_cannot_do(tools, program, tool, arguments, says, words):
    program("adb", says)
    assert words in tools("android")(tool, **arguments).reason


def test_a_phone_tells(tools, program):
    program("adb", "  level: 77\n")
    assert tools("android")("read_battery").text == "77 %"
    program("adb", "package:org.b\npackage:org.a\n")
    assert tools("android")("list_apps").text == "org.a\norg.b"


def test_a_phone_that_is_not_there(tools, program, monkeypatch, tmp_path):
    program("adb", "error: no devices/emulators found", code=1)
    assert "the phone did not do it: error: no devices" in tools("android")("read_battery").reason
    program("adb", sleep=5)
    monkeypatch.setattr("edge.runtimes.act.toolsets.android._RUN_S", 0.2)
    assert tools("android")("read_battery").reason == "the phone does not answer within 0.2 s"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools("android")("read_battery").reason.startswith("adb is not installed here")


def test_on_the_phone_itself_there_is_no_adb(tools, program, tmp_path, monkeypatch):
    words = program("am", "Starting")
    os.symlink("/bin/sh", tmp_path / "bin/sh")
    os.symlink("/bin/cat", tmp_path / "bin/cat")
    os.symlink("/bin/sleep", tmp_path / "bin/sleep")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert tools("android")("open_page", url="http://a/").status == "done"
    assert words.read_text().splitlines() == ["start", "-a", "android.intent.action.VIEW", "-d", "http://a/"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-11-26 09:30", "2026-11-26 09:30"), ("2026-11-26T09:30:00", "2026-11-26 09:30"),
        ("tomorrow at 9", "2026-11-26 09:00"), ("Tomorrow 9pm", "2026-11-26 21:00"),
        ("today 23.15", "2026-11-25 23:15"),
        ("friday", "2026-11-27 00:00"), ("on Wednesday at noon", "2026-12-02 12:00"),
        ("next monday at 8:05 am", "2026-11-30 08:05"), ("22:00", "2026-11-25 22:00"), ("9", "2026-11-26 09:00"),
        ("in 20 minutes", "2026-11-25 21:20"), ("in an hour and 5 minutes", "2026-11-25 22:05"),
        ("12 am", "2026-11-26 00:00"), ("midnight", "2026-11-26 00:00"),
        ("tomorrow at nine", "2026-11-26 09:00"), ("tomorrow at quarter to ten", "2026-11-26 09:45"),
        ("in half an hour", "2026-11-25 21:30"), ("in an hour and a half", "2026-11-25 22:30"),
    ],
)  # fmt: skip
def test_moments(text, found):
    assert moments.moment(text, NOW).strftime("%Y-%m-%d %H:%M") == found


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "13 pm", "tomorrow maybe", "9:75", "at", "five to 25", "half past"]
)
def test_what_is_no_moment(text):
    with pytest.raises(ToolError, match="is no time"):
        moments.moment(text, NOW)


@pytest.mark.parametrize(
    ("value", "said", "found"),
    [
        ("11:45", "reserve the hall for friday 11:45", "friday 11:45"),
        ("noon", "move it to next Friday at noon", "next Friday at noon"),
        ("11:45", "reserve the hall at 11:45 on friday", "friday 11:45"),
        ("9", "wake me tomorrow at 9", "tomorrow at 9"),
        ("9:30", "wake me at 9:30", "9:30"),
        ("friday 9:30", "wake me friday 9:30", "friday 9:30"),
        ("tea", "tomorrow tea", "tea"),
    ],
)
def test_a_time_has_the_day_beside_it(value, said, found):
    assert moments.with_day(value, said) == found


def test_days_and_spans():
    assert str(moments.day("", NOW)) == "2026-11-25"
    assert str(moments.day("tomorrow's first meeting", NOW)) == "2026-11-26"
    with pytest.raises(ToolError, match="'someday' is no day"):
        moments.day("someday", NOW)
    with pytest.raises(ToolError, match="'2026-02-30' is no day of the calendar"):
        moments.day("2026-02-30", NOW)
    assert moments.span_s("90") == 90
    assert moments.span_s("2h 5min") == 7500
    assert moments.span_s("ten minutes") == 600
    assert moments.span_s("one hour and twenty-five minutes") == 5100
    assert moments.span_s("a couple of minutes") == 120
    for text in ("", "soon", "3 bananas", "5 minutes or so", "x 5 minutes", "10 sheep"):
        with pytest.raises(ToolError, match="is no length of time"):
            moments.span_s(text)
    for text in ("0", "400 days"):
        with pytest.raises(ToolError, match="is not between a second and a year"):
            moments.span_s(text)


def test_what_is_kept_is_the_users_alone(tools, tmp_path):
    tools("notes")("add_note", text="x")
    for name in ("notes.db", "journal.db", "audit.jsonl"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600
