"""What can go wrong, as a tree. Only `edge.cli` turns these into exit codes.

EdgeError            1  failed
|- UsageError        2  the command line or a recipe makes no sense
|- InputError        1  a model file, a bundle or a template is damaged or hostile
|- GateError         3  the export does not behave like its source
|- BudgetError       3  nothing fits what was asked for
|- DeviceError       4  the device cannot be reached, or is unfit
`- MissingError      1  a library that this step needs is not installed
"""

from __future__ import annotations

import importlib.util


class EdgeError(Exception):
    """A failure that a person can act on.

    `message` says what was wanted, what was found and which thing; `hint` says what to do
    next. Both are one sentence or two, without a trailing newline.

    >>> str(EdgeError("no such bundle: out/x", hint="make one with: edge export"))
    'no such bundle: out/x\\n  make one with: edge export'
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class UsageError(EdgeError):
    """The request itself makes no sense: an unknown name, options that exclude each other."""

    exit_code = 2


class InputError(EdgeError):
    """A file is damaged, hostile, or not what its name says."""


class GateError(EdgeError):
    """The export does not behave like its source closely enough; nothing was published."""

    exit_code = 3


class BudgetError(EdgeError):
    """Nothing that can be made fits the budget; nothing was published."""

    exit_code = 3


class DeviceError(EdgeError):
    """The device cannot be reached, or cannot hold or run what was asked."""

    exit_code = 4


class MissingError(EdgeError):
    """A library that this step needs is not installed."""


def require(module: str, *, extra: str, purpose: str) -> None:
    """Raise `MissingError` with the install line unless `module` can be imported.

    Looks the module up without importing it, so an error inside a library that *is*
    there is never mistaken for its absence.
    """
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise MissingError(
            f"{purpose} needs the Python package {module!r}, which is not installed",
            hint=f"install it with: pip install 'edge-deploy[{extra}]'",
        )
