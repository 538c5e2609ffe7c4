"""A sweep on a real Dask scheduler and workers on loopback; cells are stand-ins, but for one tiny checkpoint."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge.cli import main
from edge.errors import EdgeError
from edge.export.artifact import Need
from edge.progress import Silent
from edge.sweep import cluster
from edge.sweep import run as runs
from edge.sweep.cell import Cell
from edge.sweep.prepare import Task
from edge.sweep.results import Results, lines
from tests.sweep.dask_rig import Rig, stop
from tests.sweep.test_child import gone

pytestmark = pytest.mark.runtime


def task(name: str, *shares: str) -> Task:
    return Task(Cell(name, "gguf", "8bit"), name, "id", Need(1, 0, 0), tuple((s,) for s in shares))


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.close()


@pytest.fixture
def sweep(rig, tmp_path):
    """`sweep(tasks)` in a thread: `join()` gives the lines by key, `heard` what was said, `error` what was raised."""

    class Sweep(threading.Thread):
        def __init__(self, tasks, **more):
            super().__init__()
            self.tasks, self.more, self.heard, self.error = tasks, more, Heard(), None
            self.start()

        def run(self):
            results = Results(tmp_path / "out")
            try:
                crew = cluster.Cluster(rig.address, self.heard, **self.more)
                runs.run(self.tasks, results, crew, {}, {}, self.heard)
            except EdgeError as err:
                self.error = err
            finally:
                results.close()

        def lines(self):
            self.join(90)
            assert not self.is_alive()
            return lines(tmp_path / "out" / "results.jsonl")

    return Sweep


def test_cells_are_done_and_a_workers_death_costs_nothing(rig, sweep):
    first = rig.worker()
    going = sweep([task("slow"), task("a"), task("b")])
    [before] = rig.began("slow")
    second = rig.worker()
    rig.began("b")  # the second one, which came later, does what there is
    stop(first)
    assert gone(before)  # what the worker had started ended with it
    rig.began("slow", 2)
    rig.go()
    found = going.lines()
    assert {key: line["status"] for key, line in found.items()} == {"slow": "passed", "a": "passed", "b": "passed"}
    assert len({line["where"] for line in found.values()}) == 1
    assert any("is gone; slow gguf 8bit is done again elsewhere" in line for line in going.heard.lines)
    assert going.error is None
    assert second.poll() is None


def test_a_scheduler_that_goes_away_ends_the_sweep_and_keeps_its_lines(rig, sweep, capfd):
    rig.worker()
    going = sweep([task("a"), task("slow")])
    [pid] = rig.began("slow")
    stop(rig.scheduler)
    found = going.lines()
    assert set(found) == {"a"}
    assert "went away" in str(going.error)
    assert "results so far are kept" in str(going.error)
    assert gone(pid)
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_stopped_here_is_ended_there(rig, sweep, monkeypatch):
    """Ctrl-C: nobody wants the cell any more, and the worker stays for others."""
    worker = rig.worker()
    stopped = threading.Event()
    wait = cluster.Cluster.wait

    def interrupted(self, timeout_s):
        if stopped.is_set():
            raise EdgeError("stopped")
        return wait(self, timeout_s)

    monkeypatch.setattr(cluster.Cluster, "wait", interrupted)
    going = sweep([task("slow")])
    [pid] = rig.began("slow")
    stopped.set()
    assert going.lines() == {}
    assert gone(pid)
    assert worker.poll() is None


def test_a_sweep_that_is_killed_leaves_nothing_at_work(rig, tmp_path):
    rig.worker()
    script = tmp_path / "killed.py"
    script.write_text(
        "from tests.sweep.test_cluster import *\n"
        f"crew = cluster.Cluster({rig.address!r}, Silent())\n"
        f"runs.run([task('slow')], Results(Path({str(tmp_path / 'out')!r})), crew, {{}}, {{}}, Silent())\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    [pid] = rig.began("slow")
    stop(process)
    assert gone(pid)


def test_workers_that_cannot_do_it_are_said(rig, monkeypatch):
    with pytest.raises(EdgeError, match=r"has no worker that can be used\n  start one on each machine: dask worker"):
        cluster.Cluster(rig.address, Silent(), workers_s=0.5)
    rig.worker()
    monkeypatch.setattr(cluster, "edition", lambda: "another")
    with pytest.raises(
        EdgeError, match=r"its edge 0\.\S+ or a library, is another one than here(.|\n)*install the same"
    ):
        cluster.Cluster(rig.address, Silent())


def test_workers_that_all_go_end_the_sweep(rig, sweep):
    worker = rig.worker()
    going = sweep([task("slow")], workers_s=1.0)
    rig.began("slow")
    stop(worker)
    assert going.lines() == {}
    assert "have gone, and none came in 1 s" in str(going.error)


def test_two_workers_of_one_machine_share_its_cache_and_have_their_own_cores(rig, sweep):
    rig.worker()
    rig.worker()
    rig.go()
    crew = cluster.Cluster(rig.address, Silent())
    try:
        until = time.monotonic() + 30
        while len(places := crew.places()) < 2 and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        crew.close()
    assert len({place.cache for place in places}) == 1
    assert all(place.seats == 1 and len(place.cores) == 1 for place in places)
    if len(os.sched_getaffinity(0)) > 1:
        assert places[0].cores != places[1].cores


def test_no_scheduler_is_a_clear_error(monkeypatch):
    with pytest.raises(EdgeError, match=r"no scheduler answers at tcp://127.0.0.1:9: .*refused(.|\n)*dask scheduler"):
        cluster.Cluster("127.0.0.1:9", Silent())


@pytest.mark.parametrize(
    ("says", "reason"),
    [(b"", "timed out"), (b"SSH-2.0-OpenSSH_9.2\r\n", "what listens there is no scheduler"), (None, "no scheduler")],
)
def test_what_is_no_scheduler_is_not_waited_for(monkeypatch, says, reason):
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)

    def answer(listening: socket.socket) -> None:
        with listening.accept()[0] as connection:
            if says is not None:  # else it hangs up
                connection.sendall(says)
                with contextlib.suppress(ConnectionResetError):
                    connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=answer, args=(other,), daemon=True).start()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(EdgeError, match=f"no scheduler answers at {address}: .*{reason}"):
            cluster.Cluster(address, Silent())


def test_a_tiny_checkpoint_on_a_real_worker(rig, tmp_path, capsys):
    from tests.checkpoints import smollm2

    (tmp_path / "tiny").mkdir()
    smollm2.make(tmp_path / "tiny")
    (tmp_path / "sweep.toml").write_text('models = "tiny"\nquantizations = "8bit"\ndevices = "pi4"\ncontext = 128\n')
    rig.worker(real=True)
    assert main(["sweep", str(tmp_path / "sweep.toml"), "-o", str(tmp_path / "o"), "--cluster", rig.address]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'o' / 'results.jsonl'}\n"
    [line] = lines(tmp_path / "o" / "results.jsonl").values()
    assert (line["status"], line["gate"]) == ("passed", {"passed": True, "failures": []})
    assert line["predictions"]["pi4"]["tokens_per_s"]["expected"] > 0
    assert line["where"].startswith("tcp://127.0.0.1:")
