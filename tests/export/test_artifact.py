from __future__ import annotations

from edge.export.artifact import Artifact, Entry, restore, save


def artifact(folder):
    entry = Entry(("a", "b"), ("ab",), "Q4_0", 64, 36, "pack", "why")
    return Artifact("gguf", "q4_0", folder, "m", ("m",), (entry,), 64, {"type": "q4_0"}, {"x": "1"}, ("careful",))


def test_what_was_saved_comes_back(tmp_path):
    (tmp_path / "m").write_bytes(b"12")
    save(artifact(tmp_path))
    assert restore(tmp_path) == artifact(tmp_path)


def test_a_missing_or_shortened_file_is_noticed(tmp_path):
    assert restore(tmp_path) is None
    (tmp_path / "m").write_bytes(b"12")
    save(artifact(tmp_path))
    (tmp_path / "m").write_bytes(b"1")
    assert restore(tmp_path) is None
    (tmp_path / "m").unlink()
    assert restore(tmp_path) is None
