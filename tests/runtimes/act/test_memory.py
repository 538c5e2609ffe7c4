import sqlite3

import pytest

from edge.errors import EdgeError, InputError, UsageError
from edge.runtimes.act.memory import Memory


@pytest.fixture
def memory(tmp_path):
    made = Memory(tmp_path / "memory.db")
    yield made
    made.close()


def test_what_was_remembered_is_found_by_its_words(memory):
    memory.remember("Anna's birthday is on 3 May")
    memory.remember("The key is under the blue flower pot")
    memory.remember("Das Café öffnet um neun", origin="tool")
    assert [r.text for r in memory.recall("where is the key?", 1)] == ["The key is under the blue flower pot"]
    assert [r.text for r in memory.recall("cafe")] == ["Das Café öffnet um neun"]
    assert memory.recall("cafe")[0].origin == "tool"
    assert memory.recall("!?") == []
    assert memory.recall('" OR x NEAR( * birthday')[0].text.startswith("Anna")


def test_half_a_character_is_not_kept(memory):
    with pytest.raises(InputError, match="the memory keeps text, and that is none: it has half a character in it"):
        memory.remember("a \udcff")
    assert memory.list() == []


def test_the_same_words_are_kept_once(memory):
    assert memory.remember("a b") == memory.remember(" a b ") != memory.remember("a b", origin="file")
    assert len(memory.list()) == 2


def test_the_user_lists_edits_and_forgets(memory):
    one = memory.remember("the door code is 1234", origin="tool")
    two = memory.remember("milk")
    assert [r.id for r in memory.list()] == [two, one]
    memory.edit(one, "the door code is 9876")
    assert memory.recall("1234") == []
    assert memory.recall("9876")[0].origin == "user"
    memory.forget(one)
    assert memory.recall("9876") == []
    assert [r.id for r in memory.list(5)] == [two]
    assert b"9876" not in memory._db.path.read_bytes()
    with pytest.raises(UsageError, match=f"there is no memory {one}"):
        memory.forget(one)
    with pytest.raises(UsageError, match="there is no memory 77"):
        memory.edit(77, "x")
    assert memory.remember("x") > two  # numbers are not used again


@pytest.mark.parametrize("text", ["", "  ", "x" * 8001])
def test_a_memory_has_a_size(memory, text):
    with pytest.raises(UsageError, match="a memory has 1 to 8000 characters"):
        memory.remember(text)


def test_a_full_memory_loses_nothing(memory, tmp_path):
    memory.remember("kept")
    pages = memory._db.rows("PRAGMA page_count")[0][0]
    memory._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(EdgeError, match=r"the memory in .* is full: .*\n.*nothing in it was changed"):
        for n in range(100):
            memory.remember(f"{n} " + "word " * 1000)
    before = [r.text for r in memory.list()]
    assert "kept" in before
    memory.close()
    again = Memory(tmp_path / "memory.db")
    assert [r.text for r in again.list()] == before
    assert again.recall("kept")[0].text == "kept"
    again.remember("there is room again")
    again.close()


def test_a_damaged_memory_is_left_as_it_is(memory, tmp_path):
    for n in range(20):
        memory.remember(f"{n} words of all kinds {n * 7}")
    memory.close()
    path = tmp_path / "memory.db"
    data = bytearray(path.read_bytes())
    data[5000:9000] = b"\xff" * 4000
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"the memory in .* is damaged"):
        Memory(path)
    assert path.read_bytes() == data
    path.write_bytes(b"no database at all, but a text that somebody put there")
    with pytest.raises(InputError, match="is damaged"):
        Memory(path)


def test_a_memory_that_another_program_holds(memory, tmp_path, monkeypatch):
    other = sqlite3.connect(tmp_path / "memory.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    memory._db.connection.execute("PRAGMA busy_timeout = 50")
    with pytest.raises(EdgeError, match="is in use by another program"):
        memory.remember("x")
    other.execute("ROLLBACK")
    memory.remember("x")
    other.close()


def test_a_memory_where_nothing_can_be_written(tmp_path):
    (tmp_path / "memory.db").mkdir()
    with pytest.raises(EdgeError, match=r"the memory in .* cannot be written"):
        Memory(tmp_path / "memory.db")


def test_a_change_is_whole_or_not_there(memory):
    with pytest.raises(RuntimeError), memory._db as db:
        db.execute("INSERT INTO memories (text, origin, at) VALUES ('half', 'user', 0)")
        raise RuntimeError
    assert memory.list() == []
