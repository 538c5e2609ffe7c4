"""Starts llama.cpp's converter as a process, follows its progress, and explains its failure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import IO, Any

from edge.errors import EdgeError
from edge.export import cache, preflight
from edge.export.checkpoint import Checkpoint
from edge.export.stress import stress_corpus
from edge.progress import Progress

_PROGRESS = re.compile(rb"Writing: +(\d+)%")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# Strings on which pre-tokenizers differ: runs of digits, letters, marks and spaces, and contractions. A small
# vocabulary hides differences, so many random mixtures follow them. All composed, because llama.cpp never composes.
_N_STRESS = 500
_TELLING = (
    "1 12 123 1234 12345 1234567890 3.14159 1,000,000 10:30 0xFF 2nd",
    "I'm you're HE'S they'LL we've I'D don't 'tis rock'n'roll l'été",
    "  two   three    four\t\ttabs\n\nlines\r\nand\n \n mixed \n  indent",
    "def f(x):\n    return x**2 + y_1 - (z//3)  # comment!!!\n\n\n",
    "café naïve Ångström e\u0301 \u0915\u094d\u0937 \u0e01\u0e33 한국어 日本語テキスト 中文字符 русский العربية",
    "🚀🚀 👩‍👩‍👧 ❤️ 🇫🇷 ½ ² Ⅷ ٣ \u00a0nbsp\u200bzero width…“quotes”—dash",
    "CamelCase snake_case kebab-case ALLCAPS MiXeD a1b2c3 #hash @at $5.00 50%",
    "https://example.org/a?b=c&d=e#f user@host.tld C:\\path\\to\\file ~/.config",
    "!!!??? ...,,, ;;;::: ((())) [[[]]] {{{}}} <<<>>> === -> => != <= ++ -- && ||",
    " leading and trailing ",
)


def run_converter(
    sources: Path, checkpoint: Checkpoint, outfile: Path, progress: Progress, *, outtype: str = "f32", mmproj: str = ""
) -> dict[str, Any]:
    """Convert `checkpoint` to GGUF of `outtype` ("f32", "bf16") at `outfile`; the trace of `llama_cpp_convert`.

    With `mmproj` ("f32", "f16"), its vision part of that type instead of its text part.
    Raises `EdgeError` with the converter's own last words and the path of its log.
    """
    progress.start("converting to GGUF", 100)
    launcher = Path(__file__).with_name("llama_cpp_convert.py")
    with tempfile.TemporaryDirectory() as work:
        trace, request = Path(work, "trace.json"), Path(work, "request.json")
        wanted = {
            "model": str(checkpoint.folder.resolve()),
            "outfile": str(outfile.resolve()),
            "outtype": outtype,
            "name": checkpoint.name,
            "texts": [unicodedata.normalize("NFC", text) for text in (*_TELLING, *stress_corpus(_N_STRESS, seed=1))],
            "trace": str(trace),
            "mmproj": mmproj,
        }
        request.write_text(json.dumps(wanted), encoding="utf-8")
        log = Path(work, "log")
        with log.open("w+b") as out:
            rc = _follow([sys.executable, "-P", str(launcher), str(sources), str(request)], out, progress)
        if rc != 0 or not trace.is_file():
            preflight.refuse_full_disk(outfile.parent)
            outfile.unlink(missing_ok=True)
            text = log.read_text(errors="replace")
            kept = cache.root() / "logs" / f"convert-gguf-{checkpoint.id}.log"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text)
            raise EdgeError(
                f"llama.cpp cannot convert {checkpoint.name} ({checkpoint.model_type}): {last_words(text, rc)}",
                hint=f"its whole output is in {kept}",
            )
        return json.loads(trace.read_text(encoding="utf-8"))


def last_words(text: str, rc: int) -> str:
    """The line that names the cause: the exception of a traceback, or the last error logged."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    for line in reversed(lines):
        if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line) or line.startswith("ERROR"):
            return line.removeprefix("ERROR:hf-to-gguf:")
    if rc < 0:
        return f"it was killed by signal {-rc}"
    return lines[-1] if lines else f"it ended with code {rc} and said nothing"


def _follow(command: list[str], log: IO[bytes], progress: Progress) -> int:
    """Run to the end, copying its output into `log`; it dies with us."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **_OFFLINE},
    )
    assert process.stdout is not None
    try:
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            log.write(piece)
            if seen := _PROGRESS.findall(piece):
                progress.advance(float(seen[-1]))
        return process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
