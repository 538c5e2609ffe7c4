"""Models that act: those whose chat template shows them tools.

Acting is no architecture of its own, so there is no model type here: a dense decoder whose template
writes the names of the tools it is given is one (`dense.label` asks). Mixtures of experts and models
that see keep their own family, and are held to their tool calls all the same.
"""

from __future__ import annotations

from typing import Any

from edge.errors import EdgeError
from edge.export import reference
from edge.export.checkpoint import Checkpoint
from edge.runtimes.chat_template import ChatTemplate

MODEL_TYPES: tuple[str, ...] = ()

_PROBE = {
    "type": "function",
    "function": {
        "name": "edge_probe",
        "description": "Nothing.",
        "parameters": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
    },
}


def acts(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's chat template shows the tools it is given; one that fails on them does not."""
    try:
        template = ChatTemplate.load(checkpoint.folder)
        return template is not None and shows_tools(template)
    except EdgeError:
        return False


def shows_tools(template: ChatTemplate) -> bool:
    """Whether a tool's name stands in what the template writes.

    >>> shows_tools(ChatTemplate("{{ tools }}")), shows_tools(ChatTemplate("{{ messages }}"))
    (True, False)
    """
    try:
        return "edge_probe" in template.render([{"role": "user", "content": "Hi"}], tools=[_PROBE])
    except EdgeError:
        return False


def label(checkpoint: Checkpoint) -> str:
    return "lam"


def load_reference(checkpoint: Checkpoint) -> Any:
    return reference.causal_lm(checkpoint)


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"active_parameters": checkpoint.n_parameters}
