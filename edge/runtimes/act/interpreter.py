"""How this Python is started once more, for what has to run in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def argv() -> list[str]:
    """The words that start it. In a runtime pack that is the loader beside it: the system may have none, or another.

    The interpreter by its own name, not where a link of it leads: a virtual environment is found by that.
    """
    executable = os.path.abspath(sys.executable)
    folder = Path(executable).parents[1]
    loaders = sorted((folder / "lib").glob("ld-linux-*.so.*")) if (folder / "pack.json").is_file() else []
    if loaders:
        return [str(loaders[0]), "--library-path", str(folder / "lib"), executable]
    return [executable]
