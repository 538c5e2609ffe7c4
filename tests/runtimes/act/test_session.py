"""Several requests to one pair of hands: what one of them heard binds the others in nothing."""

from edge.runtimes.act import manifest
from edge.runtimes.act.hands import Hands
from edge.runtimes.act.memory import Memory
from edge.runtimes.act.mind import Mind
from edge.runtimes.act.policy import Policy
from tests.runtimes.act.test_mind import DELETE, READ, Understands


def test_half_a_character_in_a_request_is_none_in_what_is_kept(tmp_path):
    tools = manifest.read(f"files:{tmp_path}")
    with Hands(tools, state=tmp_path / "state") as hands:
        memory = Memory(tmp_path / "memory.db")
        report = Mind(None, hands, reader=Understands(tools, {}), memory=memory).act(
            "remember that the door \udcff sticks"
        )
        assert report.answer == "I will remember that."
        assert [kept.text for kept in memory.list()] == ["the door ? sticks"]
        memory.close()


def test_a_second_request_may_choose_other_tools_than_the_first(tmp_path):
    (tmp_path / "todo.txt").write_text("milk")
    (tmp_path / "draft.txt").write_text("x")
    tools = manifest.read(f"files:{tmp_path}")
    reader = Understands(tools, {"read todo.txt": READ, "delete draft.txt": DELETE})
    with Hands(tools, Policy(frozenset({"read"})), ask=lambda q: True, state=tmp_path / "state") as hands:
        mind = Mind(None, hands, reader=reader)
        first = mind.act("read todo.txt")
        run = hands.run
        assert first.whole
        assert mind.act("delete draft.txt").whole
        assert hands.run != run
    assert not (tmp_path / "draft.txt").exists()
