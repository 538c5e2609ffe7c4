"""Tiny random checkpoints in the form of Qwen3-Embedding: a decoder, and how its states become one vector."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

from tests.checkpoints import qwen3

END = "<|endoftext|>"  # stands after every text, and its state is the vector


def write(folder: Path, pooling: str = "lasttoken", maker: ModuleType = qwen3) -> Path:
    """`pooling` as Sentence Transformers names it; `maker` writes the decoder."""
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, processors

    folder.mkdir(parents=True)
    maker.make(folder)
    # As published: the tensors of the model without its head, whose names lack what a head's have in front.
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    modes = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    asked = {f"pooling_mode_{mode}": mode == pooling for mode in modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(asked))
    return folder
