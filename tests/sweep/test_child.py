"""The process of a cell: what it answers, how it ends, and that nothing of it stays."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from edge.sweep import child

# Stands for edge.sweep.cell_worker: answers, dies, or starts a process of its own and waits.
WORKER = """
import json, os, signal, subprocess, sys, time
request = json.loads(sys.stdin.readline())
say = lambda **event: print(json.dumps(event), flush=True)
do = request["do"]
if do == "answer":
    say(step="one")
    print("cut sho", flush=True)
    say(outcome={"status": "passed", "threads": os.environ["OMP_NUM_THREADS"], "cores": request["cores"]})
elif do == "fail":
    print("what a library said", file=sys.stderr)
    say(outcome={"status": "failed", "why": "it broke"})
elif do == "die":
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), request["by"])
elif do == "leave":
    sys.exit(7)
else:
    other = subprocess.Popen(["sleep", "60"])
    say(pids=[os.getpid(), other.pid])
    time.sleep(60)
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(child, "COMMAND", (sys.executable, str(tmp_path / "worker.py")))

    def go(unwanted=lambda: False, told=lambda event: None, **request):
        return child.work(request, [3, 4], unwanted=unwanted, told=told)

    return go


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_it_is_told_its_cores_and_answers(work):
    events = []
    found = work(do="answer", told=events.append)
    assert found == {"status": "passed", "threads": "2", "cores": [3, 4]}
    assert events == [{"step": "one"}]


def test_a_failure_comes_with_what_was_printed(work):
    assert work(do="fail") == {"status": "failed", "why": "it broke", "log": "what a library said\n"}


def test_a_death_is_an_outcome(work):
    found = work(do="die", by=9)
    assert found["why"] == "its process was ended by SIGKILL"
    assert "memory" in found["hint"]
    assert found["log"] == "last words\n"
    assert work(do="die", by=11)["why"] == "its process was ended by SIGSEGV"
    assert work(do="leave")["why"] == "its process ended with code 7 and no result"


def test_what_nobody_wants_ends_with_all_it_started(work):
    pids, stop = [], threading.Event()

    def told(event):
        pids.extend(event["pids"])
        stop.set()

    with pytest.raises(child.Stopped):
        work(do="wait", unwanted=stop.is_set, told=told)
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_the_real_one_says_why_it_cannot(tmp_path):
    """A model that went meanwhile."""
    request = {"cell": {"model": str(tmp_path / "gone"), "format": "gguf", "quantization": "8bit"}, "source": "x"}
    found = child.work(request, [0], unwanted=lambda: False)
    assert found["status"] == "failed"
    assert "is no folder" in found["why"]
