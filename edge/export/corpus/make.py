"""Write `calibration.jsonl` and `held_out.jsonl`: python -m edge.export.corpus.make BUNDLE

The bundle is SmolLM2-135M-Instruct at full precision; the seed of each answer is its line number.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import edge
from edge.export.corpus import prompts
from edge.runtimes.session import Sampling


def main(folder: str) -> None:
    """Answer every prompt and write the conversations beside this file."""
    with edge.open(folder) as model:
        for name, questions in (("calibration", prompts.CALIBRATION), ("held_out", prompts.HELD_OUT)):
            lines = []
            for seed, question in enumerate(questions):
                sampling = Sampling(temperature=0.7, top_p=0.95, seed=seed, max_tokens=160)
                answer = "".join(piece.text for piece in model.generate(question, sampling)).strip()
                lines.append(
                    {"messages": [dict(role="user", content=question), dict(role="assistant", content=answer)]}
                )
            path = Path(__file__).with_name(f"{name}.jsonl")
            path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
