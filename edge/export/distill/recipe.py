"""A recipe: how a student is made and what it learns from, as a TOML file or one of those that ship with edge.

[student.vocabulary]        # what is cut, in the order of the file; each table is a kind of student
tokens = 12_288
[student.depth]
layers = 16

[text]                      # without files the teacher writes its own
files = ["chats.jsonl"]

[loss.forward-kl]           # one or several, each with its weight
weight = 1.0

[train]                     # without it, nothing is trained: the student is what was cut
tokens = 1_000_000
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge.errors import InputError, UsageError
from edge.find import load, names

STUDENTS, LOSSES = "edge.export.distill.students", "edge.export.distill.losses"
SHIPPED = Path(__file__).with_name("recipes")
_LIMIT_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One thing that is done to the teacher: a kind of student (a file in `students/`) and its options."""

    kind: str
    options: Any


@dataclass(frozen=True)
class Loss:
    """A kind of loss (a file in `losses/`), its share of the whole, and its options."""

    kind: str
    weight: float
    options: Any


@dataclass(frozen=True)
class Text:
    """What is learned from. Without `files` the teacher writes `tokens` tokens itself; with them, at most so many are
    taken. `requests` is a list of what users ask, one a line, or one that ships with edge: half of what the teacher
    writes is answers to those. `held_out` is what the student is judged by; without it, what ships with edge."""

    files: tuple[str, ...] = ()
    requests: str | None = None
    held_out: str | None = None
    tokens: int = 500_000
    seed: int = 11

    def __post_init__(self) -> None:
        if self.files and self.requests:
            raise UsageError(
                "[text] has files, which are learned from as they are, and requests, which the teacher would answer",
                hint="leave one of them out",
            )


@dataclass(frozen=True)
class Train:
    """How long and how fast. `tokens` are those that are learned from, several times over if there are fewer.

    `batch` is in texts of at most 256 tokens; `warmup` is the share of the training in which the rate rises;
    `check_every` and `patience` are the steps between looks at the held-out text, and how many looks may pass without a
    better one.
    """

    tokens: int = 1_000_000
    rate: float = 8e-4
    batch: int = 16
    warmup: float = 0.05
    check_every: int = 50
    patience: int = 6
    top_k: int = 32
    seed: int = 7

    def __post_init__(self) -> None:
        if self.warmup >= 1:
            raise UsageError(f"[train] warmup: wanted a share of the training, below 1, found {self.warmup:g}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, beside the teacher and the texts themselves."""

    steps: tuple[Step, ...]
    losses: tuple[Loss, ...]
    text: Text = Text()
    train: Train | None = None
    name: str = "recipe"
    folder: Path = Path()

    @property
    def id(self) -> str:
        """Sixteen hex digits over all that the recipe says; not over where it lies."""
        data = dataclasses.asdict(dataclasses.replace(self, name="", folder=Path()))
        return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read(where: str | Path) -> Recipe:
    """The recipe in a file, or the one that ships with edge under this name.

    Raises `UsageError` for what it asks that makes no sense, naming the nearest key there is; `InputError` for a file
    that is no TOML.
    """
    path = Path(where)
    if not path.is_file():
        shipped = sorted(p.stem for p in SHIPPED.glob("*.toml"))
        if str(where) not in shipped:
            raise UsageError(
                f"there is no recipe {str(where)!r}",
                hint=f"give a file, or one of those that ship with edge: {', '.join(shipped)}",
            )
        path = SHIPPED / f"{where}.toml"
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} is larger than {_LIMIT_BYTES >> 20} MiB, which no recipe is")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise InputError(f"{path} is not sound TOML: {err}") from err
    return dataclasses.replace(parse(data), name=path.stem, folder=path.parent.resolve())


def parse(data: Mapping[str, Any]) -> Recipe:
    """A recipe from TOML's tables; raises as `read` does."""
    _check_keys(data, ("student", "text", "loss", "train"), "the recipe")
    steps = _kinds(data, "student", STUDENTS)
    if not steps:
        raise UsageError(
            "the recipe makes no student", hint=f"add a table [student.KIND]: {', '.join(names(STUDENTS))}"
        )
    losses = []
    for kind, table in _kinds(data, "loss", LOSSES):
        weight = table.pop("weight", 1.0)
        if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not 0 < weight < math.inf:
            raise UsageError(f"[loss.{kind}] weight: wanted a number above 0, found {weight!r}")
        losses.append(Loss(kind, float(weight), options(load(LOSSES, kind).Options, table, f"[loss.{kind}]")))
    trained = options(Train, data["train"], "[train]") if "train" in data else None
    if losses and trained is None:
        raise UsageError("the recipe has a loss and no [train], so nothing would learn from it", hint="add [train]")
    if trained is not None and not losses:
        losses = [Loss("forward-kl", 1.0, load(LOSSES, "forward-kl").Options())]
    return Recipe(
        steps=tuple(Step(k, options(load(STUDENTS, k).Options, table, f"[student.{k}]")) for k, table in steps),
        losses=tuple(losses),
        text=options(Text, data.get("text", {}), "[text]"),
        train=trained,
    )


def options(kind: type[T], table: Any, where: str) -> T:
    """A frozen value of the dataclass `kind` from a table; raises `UsageError` for a key or a type it does not have."""
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}: wanted a table, found {table!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _check_keys(table, fields, where)
    hints = typing.get_type_hints(kind)
    found = {key: _typed(value, hints[key], f"{where} {key}") for key, value in table.items()}
    missing = [
        n
        for n, f in fields.items()
        if n not in found and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{where} lacks {missing[0]}")
    return kind(**found)


def _kinds(data: Mapping[str, Any], word: str, package: str) -> list[tuple[str, dict[str, Any]]]:
    """The tables `[word.KIND]` in their order."""
    tables = data.get(word, {})
    if not isinstance(tables, Mapping) or not all(isinstance(t, Mapping) for t in tables.values()):
        raise UsageError(f"[{word}]: wanted tables [{word}.KIND], of {', '.join(names(package))}")
    for kind in tables:
        _check_keys({kind: None}, names(package), f"[{word}]")
    return [(kind, dict(table)) for kind, table in tables.items()]


def _check_keys(table: Mapping[str, Any], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"{where} has no {key!r}", hint=f"{hint}there are: {', '.join(known)}")


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """`value` as the field's type: numbers must be above 0, lists become tuples."""
    accepted = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for kind in accepted:
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
            return float(value)
        if kind is int and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        if kind in (str, bool) and isinstance(value, kind):
            return value
        if typing.get_origin(kind) is tuple and isinstance(value, list):
            inner = typing.get_args(kind)[0]
            if all(isinstance(v, inner) and not isinstance(v, bool) for v in value):
                return tuple(value)
    words = {int: "a whole number above 0", float: "a number above 0", str: "text", bool: "true or false"}
    asked = " or ".join(words.get(k, "a list") for k in accepted if k is not type(None))
    raise UsageError(f"{where}: wanted {asked}, found {value!r}")
