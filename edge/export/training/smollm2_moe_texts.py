"""What the experts of `smollm2-moe` were trained on and are judged by: four kinds of text, disjoint halves.

- `chat`: answers that SmolLM2 itself writes to the prompts of `edge/export/corpus` (this project's licence).
- `code`: modules of CPython 3.11's standard library (PSF licence).
- `manual`: the manual pages of libcurl, in roff (Debian's libcurl4-doc; the curl licence).
- `data`: JSON, CSV, INI, SQL and log lines that `_record` draws (this project's licence).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sysconfig
from pathlib import Path
from typing import Any

DOMAINS = ("chat", "code", "manual", "data")
_CODE = (
    "argparse.py", "collections/__init__.py", "dataclasses.py", "tarfile.py", "zipfile.py", "shutil.py", "pathlib.py",
    "functools.py", "subprocess.py",
)  # fmt: skip
_CODE_HELD_OUT = ("difflib.py", "statistics.py")
_HELD_OUT_CHARACTERS = 7_000
_CITIES = ("Lisbon", "Oslo", "Quito", "Kyoto", "Accra", "Perth", "Turin", "Lima", "Ghent", "Nairobi")
_NAMES = ("Ada", "Boris", "Chen", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kira", "Luis")
_GOODS = ("lamp", "chair", "kettle", "cable", "drill", "tent", "clock", "mug", "radio", "scarf")
_STATES = ("active", "pending", "closed", "failed")
_LEVELS = ("INFO", "WARN", "ERROR", "DEBUG")


def code(held_out: bool) -> str:
    root = Path(sysconfig.get_path("stdlib"))
    return "\n\n".join((root / name).read_text() for name in (_CODE_HELD_OUT if held_out else _CODE))


def manual(pages: Path, held_out: bool) -> str:
    """Every twentieth page is held out; the copyright notice that all pages begin with is left out."""
    found = sorted(pages.glob("*.3.gz"))
    chosen = found[::20] if held_out else [p for i, p in enumerate(found) if i % 20]
    random.Random(1).shuffle(chosen)
    return "\n".join(_without_comments(gzip.decompress(p.read_bytes()).decode()) for p in chosen)


def _without_comments(page: str) -> str:
    return "".join(line for line in page.splitlines(keepends=True) if not line.startswith('.\\"'))


def data(n_documents: int, seed: int) -> str:
    draw = random.Random(seed)
    return "\n\n".join(_document(draw) for _ in range(n_documents))


def _record(draw: random.Random) -> dict[str, Any]:
    name = draw.choice(_NAMES)
    return {
        "id": draw.randrange(1000, 9999),
        "name": name,
        "email": f"{name.lower()}@example.org",
        "city": draw.choice(_CITIES),
        "item": draw.choice(_GOODS),
        "price": round(draw.uniform(1, 90), 2),
        "count": draw.randrange(1, 9),
        "status": draw.choice(_STATES),
    }


def _document(draw: random.Random) -> str:
    rows = [_record(draw) for _ in range(draw.randrange(2, 5))]
    kind = draw.choice(("json", "csv", "ini", "sql", "log"))
    if kind == "json":
        return json.dumps(rows, indent=draw.choice((2, 4)))
    if kind == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()
    if kind == "ini":
        return "\n".join(f"[order.{r['id']}]\n" + "\n".join(f"{k} = {v}" for k, v in r.items()) + "\n" for r in rows)
    if kind == "sql":
        columns = ", ".join(rows[0])
        values = ",\n".join("  (" + ", ".join(_sql(v) for v in r.values()) + ")" for r in rows)
        return f"INSERT INTO orders ({columns}) VALUES\n{values};"
    day = f"2024-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}"
    return "\n".join(
        f"{day} {draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02} {draw.choice(_LEVELS)} "
        f"orders.service id={r['id']} user={r['name'].lower()} item={r['item']} status={r['status']}"
        for r in rows
    )


def _sql(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def held_out(pages: Path, chat: str) -> dict[str, str]:
    """The text that each domain is judged by, cut to a few thousand characters each."""
    return {
        "chat": chat,
        "code": code(held_out=True)[:_HELD_OUT_CHARACTERS],
        "manual": manual(pages, held_out=True)[:_HELD_OUT_CHARACTERS],
        "data": data(12, seed=2)[:_HELD_OUT_CHARACTERS],
    }
