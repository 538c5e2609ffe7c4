import sys

from edge.runtimes.act import interpreter


def test_a_python_of_its_own_is_started_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python3"))
    (tmp_path / "lib").mkdir()
    loader = tmp_path / "lib/ld-linux-aarch64.so.1"
    loader.touch()  # as in /usr of a Raspberry Pi
    assert interpreter.argv() == [str(tmp_path / "bin/python3")]
    (tmp_path / "pack.json").touch()
    assert interpreter.argv() == [str(loader), "--library-path", str(tmp_path / "lib"), str(tmp_path / "bin/python3")]
