"""Do pictures in the calibration make 4 bits of a model that sees more exact, and what do they cost its text?

The same bundle is made twice, calibrated with the text that ships and with text and pictures, and the gate judges both:
mean KLD to the source after its held-out pictures, and on its held-out text. Neither bundle is kept.

    python -m benchmarks.seen_calibration
    python -m benchmarks.seen_calibration gguf:q4_k_m tflite:int4-mixed
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import race
from benchmarks.race import Claim
from edge.export import calibrate, pipeline
from edge.export.order import Job, Order
from edge.export.pipeline import Exported
from edge.progress import Progress
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

_ASKED = ("gguf:q4_k_m", "onnx:int4")
_HARM = 1.05  # of the divergence on text, which shares what is left with the pictures


def main() -> int:
    parser = race.arguments(__doc__)
    parser.add_argument("asked", nargs="*", metavar="FORMAT:QUANTIZATION", default=_ASKED)
    args = parser.parse_args()
    done = race.Race(__doc__ or "", load_before=race.settled())
    claims = []
    for asked in args.asked:
        format_name, _, quantization = asked.partition(":")
        found = measured("smollm2-vision", format_name, quantization)
        ours, theirs = f"{asked}, text and pictures", f"{asked}, text alone"
        done.samples |= {ours: [found["both"]], theirs: [found["text"]]}
        claims += [
            Claim("pictures_kld", ours, theirs, at_most=1.0, says=f"mean KLD after pictures, {asked}"),
            Claim("text_kld", ours, theirs, at_most=_HARM, says=f"mean KLD on text, {asked}"),
        ]
    return race.keep("seen_calibration", done, race.judge(done, claims))


def measured(source: str, format_name: str, quantization: str) -> dict[str, dict[str, float]]:
    """What the gate says of the bundle by what it was calibrated with: `text`, or `both`."""
    found: dict[str, dict[str, float]] = {}

    def make(jobs: Sequence[Job], order: Order, progress: Progress) -> tuple[Exported, ...]:
        folder = order.checkpoint.folder
        text = calibrate.default_calibration(Tokenizer.load(folder), ChatTemplate.load(folder))
        for name, calibration in (("text", text), ("both", order.texts.calibration)):
            one = replace(order, texts=replace(order.texts, calibration=calibration), name=name)
            verdict = pipeline.attempt(jobs[0], one, progress).verdict
            assert verdict is not None
            found[name] = _sample(verdict.record)
            print(f"  {format_name}:{quantization}, {name}: {found[name]}", flush=True)
        return ()

    with tempfile.TemporaryDirectory() as out:
        pipeline.export(source, out, formats=[format_name], quantization=quantization, make=make)
    return found


def _sample(record: dict[str, Any]) -> dict[str, float]:
    seen = record["pictures"]
    return {
        "pictures_kld": seen["logits"]["mean_kld"],
        "pictures_same_top1": seen["logits"]["same_top1"],
        "answers_kept": seen["answers"]["share_kept"] or 0.0,
        "text_kld": record["logits"]["mean_kld"],
        "text_same_top1": record["logits"]["same_top1"],
    }


if __name__ == "__main__":
    sys.exit(main())
