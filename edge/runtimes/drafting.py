"""Have a smaller bundle guess ahead for a model, where that pays on this machine.

Whether it does is tried once for each pair of bundles, in some seconds, and remembered.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge import bundle as bundles
from edge.errors import UsageError
from edge.find import load
from edge.runtimes import noted
from edge.runtimes.draft import Draft, Tried, trial
from edge.runtimes.model import Model, open_bundle

# Tokens in the time of one that a trial must promise. It takes some seconds, of a machine that does other things too:
# the same two bundles were promised 0.70, 0.90, 1.07 and 1.13.
PAYS = 1.15
_ASKED = (
    "Why do leaves turn yellow in autumn?",
    "Summarize this text.\n\nThe bridge was closed on Friday because its piers are cracked. Until it is mended, buses "
    "go over the old road, which takes half an hour longer. The town expects that the work ends in June.",
    "Write a letter to a neighbour who plays the drums at night.",
)


def guess_for(model: Model, folder: str | Path, *, check: bool = True) -> str:
    """Have the bundle in `folder` guess ahead for `model`; what came of it, in a sentence.

    Answers stay what they are. Raises `UsageError` when `model` cannot check guesses, or the two have other words, and
    what `open_bundle` raises.
    """
    folder = Path(folder).expanduser()
    bundle = bundles.read(folder)
    if not model.ways:
        raise UsageError(
            f"nothing can guess for {model.bundle.name}: its runtime computes several tokens otherwise than one",
            hint="export it with --kv 8bit" if model.bundle.format != "tflite" else "export it in int8 or int4-mixed",
        )
    build = load("edge.runtimes.engines", bundle.format).build()
    note = noted.path("draft", model.bundle, threads=model.threads, draft=bundle.id, build=build)
    tried = Tried.of(noted.read(note))
    if tried is not None and (gain := model.gain_of_drafts(tried)) < PAYS:
        return _says(bundle.name, gain)
    length = min(model.context_length, bundle.context_length)
    guesser = open_bundle(folder, threads=model.threads, context_length=length, check=check)
    try:
        draft = Draft.between(guesser.session, guesser.tokenizer, model.tokenizer)
        if tried is None:
            if sys.stderr.isatty():
                sys.stderr.write(f"trying what {bundle.name} guesses, once for these bundles on this machine ...\n")
            prompts = [model.prompt(question) for question in _ASKED]
            tried = trial(model.peeking, draft, prompts, model.known, model.bundle.stop_ids)
            model.note_ways()
            noted.write(note, tried.told())
        gain = model.gain_of_drafts(tried)
    except UsageError as err:
        guesser.close()
        raise UsageError(f"{bundle.name} cannot guess for {model.bundle.name}: {err.message}", hint=err.hint) from None
    except BaseException:
        guesser.close()
        raise
    if gain < PAYS:
        guesser.close()
    else:
        model.draft_with(guesser, draft, tried)
    return _says(bundle.name, gain)


def _says(name: str, gain: float) -> str:
    given = f"{gain:.2f} tokens in the time of one, as tried on this machine"
    if gain >= PAYS:
        return f"{name} guesses ahead: {given}"
    return f"{name} is not used: its guesses would give {given}, and should give {PAYS}"
