"""From a checkpoint to a bundle. The package is also the verb: `edge.export("smollm2")`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """A package that can be called: the verb and its room share the name `edge.export`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from edge.export.pipeline import export

        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _Verb
