"""Waiting for code of this process no longer than so long: a thread cannot be stopped, but it can be left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge.errors import EdgeError
from edge.runtimes.act.ran import Ran


def bounded(work: Callable[[], Ran], timeout_s: float) -> Ran:
    """What `work` gives, or says when it fails; whatever it is, it does not take the conversation with it."""
    made: list[Ran] = []

    def call() -> None:
        try:
            made.append(work())
        except EdgeError as err:
            made.append(Ran(False, b"", str(err)))
        except Exception as err:  # noqa: BLE001 - a tool that breaks is an answer
            made.append(Ran(False, b"", f"it broke: {type(err).__name__}: {err}", ended=False))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return made[0] if made else Ran(False, b"", f"it has not ended after {timeout_s:g} s", ended=False)
