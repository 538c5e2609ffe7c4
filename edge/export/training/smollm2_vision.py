"""Train the zoo's smollm2-vision, stage by stage; each goes on where it was stopped.

    python -m edge.export.training.smollm2_vision FOLDER see      # tower and projector, no language model
    python -m edge.export.training.smollm2_vision FOLDER speak    # the decoder's adapters
    python -m edge.export.training.smollm2_vision FOLDER pack     # what was learned -> the zoo's adapter
    python -m edge.export.training.smollm2_vision FOLDER score    # the zoo's model -> score.json

FOLDER keeps state and logs. Pictures, questions and their order follow from the step, the first weights from SEED.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from edge.export.zoo._assemble import ADAPTERS

ADAPTER = ADAPTERS / "smollm2-vision"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage", choices=("see", "speak", "pack", "score"))
    parser.add_argument("--steps", type=int, help="default: those that the zoo's adapter was trained for")
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)

    import torch

    from edge.export.training import _vision_see, _vision_speak

    if args.stage == "score":
        _score()
        return
    torch.manual_seed(_vision_speak.SEED)
    log = _log(args.folder / f"{args.stage}.log")
    model, tokenizer = new_model()
    see, speak = args.folder / "see.pt", args.folder / "speak.pt"
    if args.stage == "see":
        _vision_see.train(model, tokenizer, steps=args.steps or _vision_see.STEPS, state=see, log=log)
        return
    _vision_see.parts(model).load_state_dict(torch.load(see)["parts"])
    if args.stage == "speak":
        model.eval()
        steps = args.steps or _vision_speak.STEPS
        _vision_speak.train(model, tokenizer, steps=steps, state=speak, log=log)
        return
    _pack(model, speak)


def new_model() -> tuple[Any, Any]:
    """SmolLM2 in LLaVA's layout with a tower and a projector that know nothing, and the tokenizer."""
    import torch
    from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

    from edge.export.reference import load_model, load_tokenizer
    from edge.export.source import open_source
    from edge.export.training._vision_speak import SEED
    from edge.export.zoo.smollm2_vision import LLAVA_CONFIG

    checkpoint = open_source("smollm2")
    text = load_model(checkpoint)
    config = LlavaConfig(**LLAVA_CONFIG, text_config=AutoConfig.from_pretrained(checkpoint.folder))
    torch.manual_seed(SEED)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.tie_weights()
    return model, load_tokenizer(checkpoint)


def _pack(model: Any, speak: Path) -> None:
    """Write adapter.safetensors in float16, and note the hash of the weights that come of it."""
    import tempfile

    import torch
    from safetensors.torch import load_file, save_file

    from edge.export.source import open_source
    from edge.export.training import lora
    from edge.export.zoo import _assemble, smollm2_vision

    kept = {
        name.removeprefix("model."): value.half().contiguous()
        for name, value in model.state_dict().items()
        if name.startswith(("model.vision_tower.", "model.multi_modal_projector."))
    }
    decoder = lora.learned(torch.load(speak)["trained"])
    adapter = ADAPTER / "adapter.safetensors"
    save_file(kept | {f"language_model.model.{name}": value for name, value in decoder.items()}, adapter)
    adapter.chmod(0o644)
    base = open_source("smollm2")
    learned = {name: value.numpy() for name, value in load_file(adapter).items()}
    with tempfile.TemporaryDirectory() as work:
        digest = _assemble.write(smollm2_vision.tensors(base, learned), smollm2_vision.files(base), Path(work))
    _note({"weights_sha256": digest})


def _score() -> None:
    from edge.export.reference import load_model, load_tokenizer
    from edge.export.source import open_source
    from edge.export.training import _vision_score

    checkpoint = open_source("smollm2-vision")
    base = load_model(open_source("smollm2"))
    _note(_vision_score.score(load_model(checkpoint), load_tokenizer(checkpoint), base))


def _note(facts: dict[str, Any]) -> None:
    """Into score.json, beside what it says already."""
    path = ADAPTER / "score.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(known | facts, indent=2) + "\n", encoding="utf-8")


def _log(path: Path) -> Any:
    def log(line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    return log


if __name__ == "__main__":
    main()
