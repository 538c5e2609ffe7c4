import io

from edge.chat import line


def test_bytes_that_are_no_text_do_not_end_a_conversation(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"h\xffi\nthere\n"), encoding="utf-8"))
    read, _ = line.reader((), None)
    assert (read("> "), read("> ")) == ("h\ufffdi", "there")
    assert capsys.readouterr().err == "> > "
