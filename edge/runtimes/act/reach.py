"""Arguments that are paths (`format = "path"` in the schema): held to what the tool's manifest entry declares."""

from __future__ import annotations

import os
from typing import Any

from edge.runtimes.act.manifest import Tool
from edge.runtimes.act.ran import Arguments, ToolError


def settled(tool: Tool, arguments: Arguments) -> dict[str, Any]:
    """`arguments` with each path as the real one, without links. Raises `ToolError` for one outside.

    A link that is swapped after this check leads a program nowhere: what confines it resolves paths itself.
    """
    made = dict(arguments)
    allowed = [os.path.realpath(path) for path in (*tool.paths.read, *tool.paths.write)]
    for name, about in tool.parameters.get("properties", {}).items():
        if not isinstance(about, dict) or about.get("format") != "path" or name not in made:
            continue
        value = made[name]
        first = allowed[0] if allowed else "/nonexistent"
        real = os.path.realpath(os.path.join(first, value))
        if not any(real == path or real.startswith(path.rstrip("/") + "/") for path in allowed):
            raise ToolError(f"{name} leads to {real}, which is not beneath the tool's paths")
        made[name] = real
    return made
