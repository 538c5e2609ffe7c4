"""The gate: does the file that ships, on the runtime that ships, behave like its source?

The only module of `export` that runs sessions. Checks stand in `edge/export/gate/`, one per
file; this one puts them in order and reaches the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.export import artifact as artifacts
from edge.export import experts, streamed
from edge.export.artifact import Artifact, Quantization, portable
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.families.lam import shows_tools
from edge.export.gate import answers, coverage, held_calls, logits, pictures, routing, text, tool_calls
from edge.export.gate.limits import CLASSES, Limits, limits
from edge.export.gate.replies import source_replies
from edge.export.reference import load_model
from edge.find import load
from edge.progress import Progress, Silent
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.engines.echo import EchoSession
from edge.runtimes.model import Model
from edge.runtimes.session import Sampling, Session, generate
from edge.runtimes.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

POSITIONS = 2_000
_SELFTEST_TOKENS = 16
_NEEDS_SOUND_TEXT = "not compared: the tokenizer or the tensors are wrong"


@dataclass(frozen=True)
class Verdict:
    """What the gate found. `record` goes into the manifest, `selftest` is what a device must repeat.

    `failures` are sentences, worst first; `suggestions` are quantizations of the same format
    that keep more.
    """

    passed: bool
    record: dict[str, Any]
    failures: tuple[str, ...]
    suggestions: tuple[str, ...]
    selftest: dict[str, Any] | None

    def table(self) -> str:
        """The record for people: one line per thing that was judged."""
        return table(self.record)


def to_json(verdict: Verdict) -> str:
    """The verdict as text, for the cache."""
    return json.dumps(vars(verdict), indent=1)


def from_json(text: str) -> Verdict:
    """What `to_json` wrote."""
    data = json.loads(text)
    return Verdict(**{**data, "failures": tuple(data["failures"]), "suggestions": tuple(data["suggestions"])})


def verify(
    checkpoint: Checkpoint,
    folder: Path,
    draft: Bundle,
    artifact: Artifact,
    *,
    held_out: Calibration,
    progress: Progress | None = None,
) -> Verdict:
    """Run every check on the packed `folder`; nothing is published or changed.

    Raises `EdgeError` only when a check cannot be carried out; what a check finds is in the verdict.
    """
    progress = progress or Silent()
    module = load("edge.export.formats", artifact.format)
    asked = artifacts.kind(module, artifact)
    # A cache of 8 bits is no more exact than weights of 8 bits are.
    class_bits = min(asked.bits, 8) if "kv_cache" in draft.plan else asked.bits
    bound = limits(class_bits, checkpoint.n_parameters)
    record: dict[str, Any] = {"class_bits": class_bits, "held_out": held_out.source, "limits": vars(bound)}
    failures: list[str] = []

    progress.start("checking tensors, tokenizer and chat template")
    for name, check in (
        ("tensors", lambda: coverage.coverage(checkpoint, artifact, asked)),
        ("tokenizer", lambda: text.tokenizer(checkpoint, folder, _embedded(module, folder / draft.model_file))),
        ("template", lambda: text.template(checkpoint, folder)),
    ):
        record[name], wrong = check()
        failures += wrong
    selftest = None
    if failures:
        record["logits"] = record["answers"] = _NEEDS_SOUND_TEXT
    else:
        found = _behaviour(checkpoint, folder, draft, held_out, class_bits, progress, module)
        failures += found.failures
        record.update(found.record)
        selftest = found.selftest
        if failures and (worst := _worst_tensor(module, checkpoint, artifact)):
            record["worst_tensor"] = worst
            failures.append(f"furthest from its source: {worst['tensor']} (relative error {worst['error']:.2g})")
    record["failures"] = failures
    record["passed"] = not failures
    return Verdict(
        passed=not failures,
        record=record,
        failures=tuple(failures),
        suggestions=_better(module, asked, checkpoint.family) if failures else (),
        selftest=selftest,
    )


def _behaviour(
    checkpoint: Checkpoint,
    folder: Path,
    draft: Bundle,
    held_out: Calibration,
    class_bits: int,
    progress: Progress,
    module: Any,
) -> _Found:
    """Logits, experts and answers on the runtime that ships."""
    bound = limits(class_bits, checkpoint.n_parameters)
    tokenizer, template = Tokenizer.load(folder), ChatTemplate.load(folder)
    questions = answers.questions(tokenizer, template)
    asked = tool_calls.cases(tokenizer, template) if template is not None and shows_tools(template) else None
    shown = pictures.questions(Model(folder, draft, EchoSession())) if draft.image else ()
    longest = max(
        *(len(w) for w in held_out.windows),
        *(len(q.prompt) + answers.MAX_TOKENS for q in (*questions, *shown)),
        *(len(c.prompt) + tool_calls.MAX_TOKENS for c in asked or ()),
    )
    windows = _fitting(held_out.windows, min(draft.context_length, longest))
    model = _Reference(checkpoint, windows)
    session: Session = load("edge.runtimes.engines", draft.format).load(
        folder, draft, context_length=min(draft.context_length, longest)
    )
    try:
        progress.start("comparing logits with the source", POSITIONS)
        compared = logits.compare(
            model.logits,
            _fresh(session),
            windows,
            vocab_size=min(draft.vocab_size, session.vocab_size),
            at_least=POSITIONS,
            advance=progress.advance,
        )
        failures = _judge(compared, bound)
        record: dict[str, Any] = {"logits": vars(compared)}
        if not compared.finite or compared.flat:
            return _Found(failures, {**record, "answers": None}, None)
        if experts.layers(checkpoint):
            progress.start("comparing the experts that are chosen")
            windows = routing.some(held_out.windows)
            method, chosen = module.router_choices(folder / draft.model_file, checkpoint, windows)
            record["routing"] = routing.compare(
                checkpoint,
                windows,
                lambda window: routing.source_choices(model.model, checkpoint, window),
                chosen,
                method=method,
            )
            failures += routing.judge(record["routing"], bound.same_top1)
        progress.start("asking questions", len(questions))
        wanted = source_replies(
            checkpoint, [q.prompt for q in questions], draft.stop_ids, answers.MAX_TOKENS, lambda: model.model
        )
        replies = _replies(session, questions, draft.stop_ids)
        record["answers"] = kept = answers.compare(questions, wanted, replies, tokenizer, progress.advance)
        if kept["share_kept"] is not None and kept["share_kept"] < bound.answers_kept:
            lost = kept["lost"][0]
            failures.append(
                f"of the questions that the source answers rightly {kept['share_kept']:.0%} are still answered "
                f"({bound.answers_kept:.0%} must be): {lost['question']!r} gives {lost['reply']!r:.70}"
            )
        if asked is not None:
            assert template is not None
            record["tool_calls"] = _tool_calls(checkpoint, asked, session, draft, tokenizer, template, model, progress)
            failures += tool_calls.judge(record["tool_calls"], bound.tool_calls_kept)
            failures += held_calls.judge(record["tool_calls"]["grammar"])
        if shown:
            seeing = Model(folder, draft, session)
            # A runtime that computes the vision part less exactly than the text part is held to what it can do.
            bits = min(CLASSES, key=lambda b: abs(b - min(class_bits, draft.plan["vision"].get("computed_bits", 32))))
            less = limits(bits, checkpoint.n_parameters)
            record["pictures"], wrong = pictures.look(
                checkpoint, model.model, seeing, shown, lambda c: _judge(c, less), less, progress
            )
            seeing.sight.close()
            failures += wrong
        session.rewind(0)
        first = [t.id for t in generate(session, questions[0].prompt, Sampling(max_tokens=_SELFTEST_TOKENS))]
        selftest = {"prompt": list(questions[0].prompt), "tokens": first}
        return _Found(failures, record, selftest)
    finally:
        session.close()


@dataclass(frozen=True)
class _Found:
    failures: list[str]
    record: dict[str, Any]
    selftest: dict[str, Any] | None


class _Reference:
    """The source model, loaded when it is first needed; a streamed one takes many of the `windows` in one pass."""

    def __init__(self, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]) -> None:
        self._checkpoint = checkpoint
        self._model: Any = None
        self._windows = [tuple(w) for w in windows]
        self._ready: dict[tuple[int, ...], np.ndarray] = {}

    @property
    def model(self) -> Any:
        if self._model is None:
            self._model = load_model(self._checkpoint)
        return self._model

    def logits(self, window: Sequence[int]) -> np.ndarray:
        import torch

        if streamed.is_streamed(self.model):
            return self._streamed(tuple(window))
        with torch.inference_mode():
            out: np.ndarray = self.model(torch.tensor([list(window)]), use_cache=False).logits[0].numpy()
        return out

    def _streamed(self, window: tuple[int, ...]) -> np.ndarray:
        import torch

        if window not in self._ready:
            at = self._windows.index(window)
            vocab_size = int(self._checkpoint.text_config["vocab_size"])
            group = self._windows[at : at + streamed.together(self.model, self._windows, vocab_size)]
            ids, mask = streamed.padded(group)
            with torch.inference_mode():
                out = self.model(ids, attention_mask=mask, use_cache=False).logits
            self._ready = {tokens: out[row, : len(tokens)].numpy() for row, tokens in enumerate(group)}
        return self._ready.pop(window)


def _fitting(windows: Sequence[Sequence[int]], length: int) -> list[Sequence[int]]:
    """Windows that are longer than the context are cut into pieces that fit."""
    return [w[i : i + length] for w in windows for i in range(0, len(w), length)]


def _fresh(session: Session) -> Callable[[Sequence[int]], np.ndarray]:
    def feed(window: Sequence[int]) -> np.ndarray:
        session.rewind(0)
        return session.feed_all(window)

    return feed


def _replies(
    session: Session, questions: Sequence[answers.Question], stop_ids: Sequence[int]
) -> Iterator[Sequence[int]]:
    for question in questions:
        session.rewind(0)
        sampling = Sampling(max_tokens=answers.MAX_TOKENS)
        yield [t.id for t in generate(session, question.prompt, sampling, stop_ids=stop_ids)]


def _tool_calls(
    checkpoint: Checkpoint,
    asked: Sequence[tool_calls.Case],
    session: Session,
    draft: Bundle,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    model: _Reference,
    progress: Progress,
) -> dict[str, Any]:
    """The source's calls and the export's; what a case shares with the one before it is not read again.

    With them, what both say under the grammar, and the plans of requests with two wishes.
    """
    fitting = [c for c in asked if len(c.prompt) + tool_calls.MAX_TOKENS <= session.context_length]
    progress.start("calling tools", len(fitting))
    prompts = [c.prompt for c in fitting]
    wanted = source_replies(checkpoint, prompts, draft.stop_ids, tool_calls.MAX_TOKENS, lambda: model.model)

    def replies() -> Iterator[Sequence[int]]:
        before: Sequence[int] = ()
        for prompt in prompts:
            pairs = zip(before, prompt, strict=False)
            shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(prompt) - 1))
            session.rewind(shared)
            sampling = Sampling(max_tokens=tool_calls.MAX_TOKENS)
            said.append([t.id for t in generate(session, prompt[shared:], sampling, stop_ids=draft.stop_ids)])
            yield said[-1]
            before = prompt

    said: list[list[int]] = []
    session.rewind(0)
    found = tool_calls.compare(fitting, wanted, replies(), tokenizer, progress.advance)
    ids = [r.ids for r in wanted]
    again = held_calls.Asking(session, draft.stop_ids)
    return found | held_calls.look(checkpoint, fitting, ids, said, tokenizer, template, again, lambda: model.model)


def _judge(found: logits.Comparison, bound: Limits) -> list[str]:
    if not found.finite:
        return ["the export returns logits that are not numbers"]
    if found.flat:
        return ["the export returns the same logit for every token: its output is empty"]
    failures = []
    if found.mean_kld > bound.mean_kld:
        failures.append(f"mean KLD {found.mean_kld:.3g}, at most {bound.mean_kld:.3g}")
    if found.same_top1 < bound.same_top1:
        failures.append(f"same top token at {found.same_top1:.1%} of positions, at least {bound.same_top1:.1%}")
    if bound.nmse is not None and found.nmse > bound.nmse:
        failures.append(f"NMSE of logits {found.nmse:.3g}, at most {bound.nmse:.3g}")
    return failures


def _embedded(module: Any, path: Path) -> Any:
    """The model file's own tokenizer, for formats that carry one."""
    ids = getattr(module, "tokenizer_ids", None)
    return None if ids is None else lambda strings: ids(path, strings)


def _worst_tensor(module: Any, checkpoint: Checkpoint, artifact: Artifact) -> dict[str, Any] | None:
    """The source tensor whose stored values are furthest from it, for formats that can tell."""
    errors = getattr(module, "weight_errors", None)
    if errors is None:
        return None
    try:
        found: list[tuple[str, float]] = list(errors(artifact, checkpoint))
    except EdgeError:
        return None
    name, error = max(found, key=lambda row: row[1], default=("", 0.0))
    return {"tensor": name, "error": error} if name else None


def _better(module: Any, tried: Quantization, family: str) -> tuple[str, ...]:
    """Quantizations of the same format: as many bits, calibrated and before it in the table; then those with more.

    Of both kinds the smallest first. Tables have the most exact first among those of as many bits.
    """
    have = tried.bits_per_weight
    known = list(module.QUANTIZATIONS)
    before = list(module.QUANTIZATIONS.values())[: known.index(tried.name) if tried.name in known else 0]
    calibrated = [q for q in before if q.calibrated and q.bits == tried.bits]
    usual = [module.QUANTIZATIONS[name] for name in portable(module, family).values()]
    more = sorted(
        (q for q in usual if q.bits_per_weight > have and q.bits > tried.bits), key=lambda q: q.bits_per_weight
    )
    calibrated.sort(key=lambda q: q.bits_per_weight)
    return tuple(dict.fromkeys(q.name for q in (*calibrated, *more)))


def _pictures(seen: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What was judged of a model that sees."""
    same, features, bound = seen["pixels"], seen["features"], seen["limits"]
    rows = [
        (
            "pixels of pictures",
            f"{same['different']} of {same['pictures']} differ",
            "",
            f"by at most {same['max_abs']:.2g}",
        )
    ]
    if features:
        most = features["limits"]["relative_rms"]
        rows.append(
            _row("features of pictures, relative RMS", features["relative_rms"], most, f"{features['bits']} bit")
        )
    if isinstance(seen["logits"], dict):
        got = seen["logits"]
        rows += [
            _row("mean KLD after pictures", got["mean_kld"], bound["mean_kld"], f"{got['positions']:,} positions"),
            _row("same top token after pictures", got["same_top1"], bound["same_top1"], ""),
        ]
    if isinstance(seen["answers"], dict):
        kept = seen["answers"]
        least = f">= {bound['answers_kept']:.0%}"
        rows.append(("right answers about pictures kept", f"{kept['kept']} of {kept['source_right']}", least, ""))
    return rows


def table(record: dict[str, Any]) -> str:
    """A quality record as aligned text: what was measured, what it may be, and whether it is."""
    bound = record["limits"]
    rows: list[tuple[str, str, str, str]] = []
    tensors = record["tensors"]
    rows.append(
        ("source tensors accounted for", f"{tensors.get('accounted')} of {tensors.get('source_tensors')}", "all", "")
    )
    rows.append(("bits per weight", f"{tensors.get('bits_per_weight')}", f"{tensors.get('bits_asked')} asked", ""))
    if isinstance(record["logits"], dict):
        got = record["logits"]
        rows += [
            _row(
                "mean KLD (nats)", got["mean_kld"], bound["mean_kld"], f"{got['kld_low']:.3g} to {got['kld_high']:.3g}"
            ),
            ("p99 and largest KLD", f"{got['p99_kld']:.3g}, {got['max_kld']:.3g}", "", ""),
            _row("same top token", got["same_top1"], bound["same_top1"], f"{got['near_ties']:.1%} more are near-ties"),
            _row("NMSE of logits", got["nmse"], bound["nmse"], f"{got['positions']:,} positions"),
            (
                "perplexity, source and export",
                f"{got['perplexity_source']:.3f}, {got['perplexity_export']:.3f}",
                "",
                "",
            ),
        ]
    if "routing" in record:
        chosen = record["routing"]
        rows.append(
            (
                "experts chosen alike",
                f"{chosen['overlap']:.1%}",
                f">= {bound['same_top1']:.1%}",
                f"{chosen['decisions']:,} decisions; by chance {chosen['by_chance']:.0%}",
            )
        )
    if "experts_kept" in record:
        fewer = record["experts_kept"]
        rows.append(
            (
                "experts kept, KLD to the whole model",
                f"{fewer['keep']} of {fewer['of']}, {fewer['mean_kld']:.3g}",
                "",
                f"the same top token {fewer['same_top1']:.1%}",
            )
        )
    if isinstance(record["answers"], dict):
        kept = record["answers"]
        rows.append(
            ("right answers kept", f"{kept['kept']} of {kept['source_right']}", f">= {bound['answers_kept']:.0%}", "")
        )
    if called := record.get("tool_calls"):
        rows += _tool_rows(called, bound)
    if seen := record.get("pictures"):
        rows += _pictures(seen)
    tokenizer = record["tokenizer"]
    different = sum(v for k, v in tokenizer.items() if k.endswith("_different"))
    rows.append(("tokenizer", f"{different} of {tokenizer.get('strings')} strings differ", "0", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows
    )


def _tool_rows(called: dict[str, Any], bound: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    source, export = called["source"], called["export"]
    names = {"tool": "right tool", "exact": "right call", "argument_f1": "F1 of arguments", "json": "sound JSON"}
    names["refusals"] = "no call where none is right"
    kept = (
        "tool calls kept",
        f"{called['kept']} of {called['source_right']}",
        f">= {bound['tool_calls_kept']:.0%}",
        "",
    )
    rows = [kept, *((text, f"{export[k]:.1%}", "", f"{source[k]:.1%} of the source") for k, text in names.items())]
    if held := called.get("grammar"):
        for key in ("exact", "json"):
            note = f"{held['source'][key]:.1%} of the source"
            rows.append((f"{names[key]}, under the grammar", f"{held['export'][key]:.1%}", "", note))
    if (plans := called.get("plans")) and plans["cases"]:
        rows.append(("both calls of two wishes", f"{plans['export']:.1%}", "", f"{plans['source']:.1%} of the source"))
    return rows


def _row(name: str, value: float, bound: float | None, note: str) -> tuple[str, str, str, str]:
    if name.startswith("same top token"):
        return name, f"{value:.1%}", f">= {bound:.1%}", note
    return name, f"{value:.3g}", "" if bound is None else f"<= {bound:.3g}", note
