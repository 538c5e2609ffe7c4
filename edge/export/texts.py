"""What an export calibrates with, what it is judged by, and whether the model understands it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.export import calibrate as given
from edge.export import preflight
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.progress import Progress
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edge.export.order import Order, Sight
    from edge.export.vision.conversation import Eyes


@dataclass(frozen=True)
class Texts:
    """Text to calibrate with, unless that was declined, and text to judge by; the two never overlap."""

    calibration: Calibration | None
    held_out: Calibration


def texts_for(
    checkpoint: Checkpoint, calibration: Path | None, held_out: Path | None, calibrate: bool, sight: Sight | None
) -> Texts:
    """What to calibrate with, pictures too if there is `sight`, and what to judge by; the two never overlap."""
    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    eyes = _eyes(checkpoint, sight) if calibrate else None
    own = given.from_file(calibration, tokenizer, eyes=eyes) if calibration else None
    chosen = (own or given.default_calibration(tokenizer, template, eyes)) if calibrate else None
    judged = given.from_file(held_out, tokenizer) if held_out else given.held_out(tokenizer, template)
    if chosen is not None and (calibration or held_out):
        # Those that ship are disjoint, which tests hold; templates that explain tools at length would look shared.
        given.check_disjoint(chosen, judged)
    if own is not None and eyes is not None:
        chosen = given.completed(own, given.default_calibration(tokenizer, template, eyes))
    return Texts(chosen, judged)


def measured_on(order: Order) -> Calibration:
    """The text that sensitivities are measured on: that of calibration, also where nothing is calibrated with it."""
    if order.texts.calibration is not None:
        return order.texts.calibration
    folder = order.text.folder
    eyes = _eyes(order.checkpoint, order.sight)
    return given.default_calibration(Tokenizer.load(folder), ChatTemplate.load(folder), eyes)


def foreign_warning(checkpoint: Checkpoint, texts: Texts, progress: Progress) -> str:
    """A warning when the model hardly understands the text that it is calibrated with; empty if it does.

    A source that does not fit in memory is not asked.
    """
    if texts.calibration is None or not preflight.holds_source(checkpoint):
        return ""
    from edge.export import foreign

    progress.start("reading the text for calibration")
    usual = given.held_out(Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder))
    found, chat = (foreign.cost(checkpoint, one, progress) for one in (texts.calibration, usual))
    if words := foreign.warning(checkpoint, texts.calibration, found, chat):
        words += "; what matters to text that it never sees well is not what matters to its own"
        progress.say(f"note: {words}")
    return words


def _eyes(checkpoint: Checkpoint, sight: Sight | None) -> Eyes | None:
    if sight is None:
        return None
    from edge.export.vision.conversation import Eyes

    return Eyes(checkpoint, sight.rule)
