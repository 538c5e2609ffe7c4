"""llama.cpp's log, kept instead of printed: quiet by default, at hand when something fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_WARNING, _ERROR, _CONTINUED = 2, 3, 5  # enum ggml_log_level
_LIMIT = 5000  # lines kept of one capture; a model has at most a few per tensor


class Log:
    """The lines of one capture, with their ggml levels."""

    def __init__(self, watch: Callable[[str], None] | None = None) -> None:
        self.lines: list[tuple[int, str]] = []
        self.watch = watch

    def add(self, level: int, text: str) -> None:
        if self.watch is not None:
            self.watch(text)
        if level == _CONTINUED and self.lines:
            last = self.lines[-1]
            self.lines[-1] = (last[0], last[1] + text)
        elif len(self.lines) < _LIMIT:
            self.lines.append((level, text))

    def text(self) -> str:
        return "".join(line if line.endswith("\n") else line + "\n" for _, line in self.lines)

    def reason(self) -> str:
        """The first error, which names the cause; the later ones only pass it on."""
        for wanted in (_ERROR, _WARNING):
            said = [" ".join(text.split()) for level, text in self.lines if level == wanted]
            said = [line for line in said if line.strip("=. ")]
            if said:
                return said[0]
        return "llama.cpp gave no reason"


_captures: list[Log] = []
_callback: Any = None
_mtmd = False


@contextmanager
def captured(watch: Callable[[str], None] | None = None, *, also_mtmd: bool = False) -> Iterator[Log]:
    """Collect what llama.cpp logs inside the block, showing it to `watch` as it comes.

    Outside of any block it is dropped. Its multimodal library has a log of its own: `also_mtmd`.
    """
    install()
    if also_mtmd:
        _install_mtmd()
    log = Log(watch)
    _captures.append(log)
    try:
        yield log
    finally:
        _captures.remove(log)


def install() -> None:
    """Take the log over from llama-cpp-python, which prints it; once per process."""
    global _callback  # noqa: PLW0603 - the C library has one callback, and so have we
    import llama_cpp

    if _callback is None:

        @llama_cpp.llama_log_callback
        def write(level: int, text: bytes | None, _user_data: Any) -> None:
            if _captures and text:
                _captures[-1].add(level, text.decode("utf-8", "replace"))

        _callback = write
        llama_cpp.llama_log_set(_callback, None)


def _install_mtmd() -> None:
    global _mtmd  # noqa: PLW0603 - as above
    from llama_cpp import mtmd_cpp

    if not _mtmd:
        mtmd_cpp.mtmd_log_set(_callback, None)
        mtmd_cpp.mtmd_helper_log_set(_callback, None)
        _mtmd = True
