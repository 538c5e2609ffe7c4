import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.runtimes import noted, threads
from edge.runtimes.model import open_bundle
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))


def cores(tmp_path, monkeypatch, *speeds, physical=None):
    """A machine with cores of these speeds; `None` where the system does not tell."""
    for i, speed in enumerate(speeds):
        folder = tmp_path / "cpu" / f"cpu{i}"
        folder.mkdir(parents=True)
        if speed is not None:
            (folder / "cpu_capacity").write_text(f"{speed}\n")
    monkeypatch.setattr(noted, "allowed_cpus", lambda: list(range(len(speeds))))
    monkeypatch.setattr(threads, "physical_cores", lambda: physical or len(speeds))
    return threads.candidates(tmp_path / "cpu")


@pytest.mark.parametrize(
    ("speeds", "physical", "wanted"),
    [
        ((None,), None, (1,)),
        ((None, None), None, (2,)),  # a small machine is not worth a trial
        ((1024,) * 4, None, (4,)),  # Raspberry Pi
        ((None,) * 4, 2, (2, 4)),  # two threads in each core
        ((None,) * 16, None, (16, 8)),
        ((325,) * 4 + (870,) * 3 + (1024,), None, (8, 4)),  # a phone: one fastest core alone is never enough
        ((325,) * 4 + (1024,) * 2, None, (6, 2)),
    ],
)
def test_what_is_worth_trying(tmp_path, monkeypatch, speeds, physical, wanted):
    assert cores(tmp_path, monkeypatch, *speeds, physical=physical) == wanted


@pytest.mark.parametrize("context_length", [4, 8])
def test_a_bundle_that_holds_too_little_is_not_tried(tmp_path, monkeypatch, context_length):
    bundle = tiny_bundle(tmp_path / "tiny", context_length=context_length)
    monkeypatch.setattr(threads, "candidates", lambda *_: (2, 1))
    assert threads.worth_trying(bundle) == ()
    assert threads.once(tmp_path / "tiny") is None


def trial(times, load_s=0.1):
    asked = []

    def measure(n):
        asked.append(n)
        return times[n].pop(0) if isinstance(times[n], list) else times[n], load_s

    return threads.choose(tuple(times), measure), asked


def test_the_fastest_count_is_chosen_and_the_default_measured_before_and_after():
    found, asked = trial({8: [20.0, 19.0], 4: 12.0})
    assert found == threads.Trial(4, 8, {8: 19.0, 4: 12.0})
    assert asked == [8, 4, 8]


@pytest.mark.parametrize("other", [19.0, 20.0, 30.0])
def test_what_is_hardly_faster_is_not_chosen(other):
    assert trial({8: 20.0, 4: other})[0].threads == 8


def test_a_default_that_was_disturbed_once_is_not_left_for_it():
    assert trial({8: [30.0, 15.0], 4: 20.0})[0].threads == 8


def test_a_model_that_takes_long_to_load_keeps_the_default():
    found, asked = trial({8: 20.0, 4: 10.0}, load_s=9.0)
    assert (found.threads, asked) == (8, [8])


@pytest.fixture
def bundle(tmp_path):
    tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_it_is_tried_once_and_remembered_for_whoever_opens_the_bundle(bundle, monkeypatch, tmp_path):
    cores(tmp_path, monkeypatch, 300, 300, 1000, 1000)
    tried = []

    def measured(folder, _, n):
        tried.append(n)
        return {4: 10.0, 2: 5.0}[n], 0.0

    monkeypatch.setattr(threads, "_ms_per_token", measured)
    monkeypatch.setattr(threads, "candidates", lambda: (4, 2))
    assert threads.default(bundles.read(bundle)) == 4
    assert threads.once(bundle).threads == 2
    assert threads.once(bundle) is None
    assert tried == [4, 2, 4]
    assert threads.default(bundles.read(bundle)) == 2
    with open_bundle(bundle) as model:
        assert model.threads == 2
    with open_bundle(bundle, threads=3) as model:
        assert model.threads == 3


def test_a_damaged_or_foreign_note_is_no_note(bundle, monkeypatch):
    note = threads._note(bundles.read(bundle))
    note.parent.mkdir(parents=True)
    for text in ("", "[]", "{}", '{"threads": "2"}', '{"threads": 100000}', '{"threads": 0}'):
        note.write_text(text)
        assert threads.remembered(bundles.read(bundle)) is None


def test_chat_tries_before_its_first_answer_only(bundle, monkeypatch, capsys):
    times = {1: 10.0, 2: 5.0}
    tried = []
    monkeypatch.setattr(threads, "candidates", lambda: (1, 2))
    monkeypatch.setattr(noted, "allowed_cpus", lambda: [0, 1])
    monkeypatch.setattr(threads, "_ms_per_token", lambda *ask: (tried.append(ask[2]) or times[ask[2]], 0.0))
    assert main(["chat", str(bundle), "-p", "hello", "--max-tokens", "3", "--threads", "1"]) == 0
    assert not tried
    for _ in range(2):
        assert main(["chat", str(bundle), "-p", "hello", "--max-tokens", "3"]) == 0
    assert tried == [1, 2, 1]
    assert "trying" not in capsys.readouterr().err  # no terminal


def test_a_real_trial_answers_in_its_time(bundle):
    ms, load_s = threads._ms_per_token(bundle, bundles.read(bundle), 1)
    assert ms > 0
    assert 0 <= load_s < 60
