"""A scheduler and workers as processes on loopback, as people start them; and a stand-in for the process of a cell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

# Put before a worker's start: its cells are not exported, but say who made them; what is called "slow" takes its time.
PRELOAD = """
import sys
from edge.sweep import child
child.COMMAND = (sys.executable, {cell!r})
"""
CELL = """
import json, os, signal, sys, threading, time
from pathlib import Path

def end():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)

request = json.loads(sys.stdin.readline())
threading.Thread(target=end, daemon=True).start()
notes = Path(__file__).with_name("notes")
model = request["cell"]["model"]
(notes / f"{model}-{os.getpid()}").write_text(str(os.getppid()))
if model.startswith("slow"):
    while not (notes / "go").exists():
        time.sleep(0.05)
print(json.dumps({"outcome": {"status": "passed", "time_s": 0.1, "cores": request["cores"]}}))
"""


class Rig:
    """`address` is the scheduler's; `notes` says which process began which cell."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.notes.mkdir()
        (folder / "preload.py").write_text(PRELOAD.format(cell=str(folder / "cell.py")))
        (folder / "cell.py").write_text(CELL)
        self._started: list[subprocess.Popen] = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._said(self.scheduler, r"Scheduler at:\s+(tcp://\S+)")

    def worker(self, *, real: bool = False, cache: str = "cache", **environment: str) -> subprocess.Popen:
        """One more worker; a `real` one exports."""
        preload = () if real else ("--preload", str(self.folder / "preload.py"))
        made = self._start(
            "worker", self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny", "--host", "127.0.0.1",
            "--local-directory", str(self.folder), *preload,
            EDGE_CACHE=str(self.folder / cache) if not real else os.environ.get("EDGE_CACHE", ""), **environment,
        )  # fmt: skip
        self._said(made, r"Registered to:\s+(tcp://\S+)")
        return made

    def began(self, model: str, n: int = 1) -> list[int]:
        """The processes that began a cell of that model, as soon as there are `n`; `[pid, ...]` in no order."""
        until = time.monotonic() + 60
        while len(found := sorted(self.notes.glob(f"{model}-*"))) < n:
            assert time.monotonic() < until, f"{model} does not begin"
            time.sleep(0.05)
        return [int(path.name.rpartition("-")[2]) for path in found]

    def go(self) -> None:
        """What is slow may end."""
        (self.notes / "go").touch()

    def close(self) -> None:
        for process in self._started:
            process.kill()
        for process in self._started:
            process.wait()

    def _start(self, what: str, *argv: str, **environment: str) -> subprocess.Popen:
        own = {k: v for k, v in environment.items() if v}
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{what}", *argv], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **own},
            cwd=self.folder,
        )  # fmt: skip
        self._started.append(process)
        return process

    def _said(self, process: subprocess.Popen, pattern: str) -> str:
        """The first line that matches; what it says afterwards is read and forgotten, so that it can go on."""
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if found := re.search(pattern, line):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return found[1]
        raise AssertionError(f"it ended without {pattern!r}:\n{seen}")


def stop(process: subprocess.Popen) -> None:
    """Kill as the system does when memory runs out."""
    process.send_signal(signal.SIGKILL)
    process.wait()
