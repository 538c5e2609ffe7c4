"""A server on a real socket, around echo bundles: every answer is known before it is asked for."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from edge.runtimes.engines.echo import EchoSession
from edge.serve import app, door, guard
from edge.serve.body import Bodies
from edge.serve.house import House
from edge.serve.metrics import Metrics
from edge.serve.turns import Turns
from tests.tiny_bundle import tiny_bundle

SLOW_S = 0.005
# One for all: to read the system's certificates for each takes longer than most tests.
HTTP = httpx.Client(verify=False, timeout=30, limits=httpx.Limits(max_connections=None))


class Running:
    """A server at `url`, its house, and `stop`, as SIGTERM does it."""

    def __init__(self, folders, *, waiting=64, grace_s=5.0, bodies=None, guarded=None, **options):
        metrics = Metrics()
        self.house = House(Turns(waiting=waiting, ended=metrics.answer))
        metrics.watch(self.house.turns)
        self.house.open(folders, **options)
        inner = app.application(self.house, metrics, Bodies(**(bodies or {})))
        ready = threading.Event()
        listener = door.listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = door.Server(
            guard.Guard(inner, **{"loopback": True, **(guarded or {})}),
            self.house.turns,
            grace_s=grace_s,
            ready=ready.set,
        )
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[listener])))
        self._thread.start()
        assert ready.wait(60)

    def until(self, true, within_s=60.0):
        end_s = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < end_s
            time.sleep(0.005)

    def stop(self):
        self.server.should_exit = True

    def wait(self):
        self._thread.join(60)
        assert not self._thread.is_alive()

    def close(self):
        self.stop()
        self.wait()
        self.house.close()


@contextmanager
def serving(*folders, **options):
    running = Running(folders, **options)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(tiny):
    with serving(tiny) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=20, verify=False) as made:
        yield made


@pytest.fixture
def slow(monkeypatch):
    """Every token takes a few milliseconds, as those of real models do."""
    feed = EchoSession.feed

    def slowly(self, tokens):
        time.sleep(SLOW_S)
        return feed(self, tokens)

    monkeypatch.setattr(EchoSession, "feed", slowly)


class Held:
    """Holds every token back until `release`."""

    def __init__(self):
        self._go = threading.Event()
        self.release = self._go.set

    def wait(self):
        assert self._go.wait(60)


@pytest.fixture
def held(monkeypatch):
    """Nothing is computed until the test says so: who waits does not depend on how fast this machine is."""
    feed, made = EchoSession.feed, Held()

    def later(self, tokens):
        made.wait()
        return feed(self, tokens)

    monkeypatch.setattr(EchoSession, "feed", later)
    yield made
    made.release()


def ask(text, **more):
    return {"model": "", "messages": [{"role": "user", "content": text}], **more}
