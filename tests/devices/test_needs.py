"""What this machine needs to reach devices, as edge doctor says it."""

import json

import pytest

from edge.cli import main
from edge.commands import doctor
from edge.devices import needs


def program(folder, name, says):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)


def test_everybody_who_needs_a_program_is_asked():
    found = {program for need in needs.every() for program in need.programs}
    building = {"aarch64-linux-gnu-g++", "cmake", "ninja", "apt-get"}
    assert {"adb", "ssh", "debugfs", "e2fsck", "resize2fs", "dumpe2fs", *building} == found
    assert len({need.name for need in needs.every()}) == len(needs.every())


@pytest.mark.parametrize(
    ("says", "version"),
    [("echo; echo one 2.1; echo more", "one 2.1"), ("echo two >&2", "two"), ("exit 3", None)],
    ids=["on stdout", "on stderr", "nothing"],
)
def test_versions_are_what_the_program_says(tmp_path, monkeypatch, says, version):
    program(tmp_path, "one", says)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert needs.Need("x", ("one",), "-v", "line").record() == {"version": version, "missing": [], "install": None}


def test_a_program_that_hangs_says_no_version(tmp_path, monkeypatch):
    program(tmp_path, "one", "exec sleep 20")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(needs, "_ASK_S", 0.2)
    assert needs.Need("x", ("one",), "-v", "line").record()["version"] is None


def test_doctor_names_what_is_missing_and_the_line_that_installs_it(tmp_path, monkeypatch, capsys):
    program(tmp_path, "ssh", "echo OpenSSH_9.9 >&2")
    program(tmp_path, "cmake", "echo cmake 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_runtime", lambda name: {"build": {name: "1"}, "error": None})
    main(["doctor"])
    said = capsys.readouterr().out
    assert "ok       devices over ssh          OpenSSH_9.9\n" in said
    assert "missing  Android devices           adb\n           install with: apt-get install adb" in said
    assert "missing  GGUF on arm64 devices     aarch64-linux-gnu-g++, ninja\n" in said
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["devices"]["Android devices"]["missing"] == ["adb"]
