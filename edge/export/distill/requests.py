"""What users ask, as a list of theirs or one that ships with edge: the teacher's answers are text to learn from."""

from __future__ import annotations

from pathlib import Path

from edge.errors import InputError, UsageError
from edge.export.calibrate import Calibration
from edge.runtimes.tokenizer import Tokenizer

_CORPUS = Path(__file__).parents[1] / "corpus"
_SUFFIX = "_requests.txt"
_MOST_BYTES = 16 << 20


def read(name: str, folder: Path) -> tuple[str, ...]:
    """The requests of a text file below `folder`, one a line, or of the list that ships with edge under this name.

    Raises `UsageError` when there is neither, `InputError` for a file that holds none.
    """
    path = (folder / Path(name).expanduser()).resolve()
    if not path.is_file():
        path = _CORPUS / f"{name}{_SUFFIX}"
        if "/" in name or not path.is_file():
            known = ", ".join(sorted(p.name.removesuffix(_SUFFIX) for p in _CORPUS.glob(f"*{_SUFFIX}")))
            raise UsageError(f"there are no requests {name!r}", hint=f"give a text file, or one of: {known}")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} is larger than {_MOST_BYTES >> 20} MiB, which no list of requests is")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8", hint="save it as UTF-8, one request a line") from None
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise InputError(f"{path} holds no request", hint="write one a line")
    return found


def not_judged_by(requests: tuple[str, ...], held_out: Calibration, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Those that the held-out text does not contain. Raises `UsageError` when none is left."""
    judged = "\n".join(tokenizer.decode(list(window)) for window in held_out.windows)
    kept = tuple(r for r in requests if r not in judged)
    if not kept:
        raise UsageError("all requests are in the text that the student is judged by", hint="give others under [text]")
    return kept
