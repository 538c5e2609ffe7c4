"""The tokenizer inside a GGUF file, given back as tokenizer.json and what lies beside it.

Each `tokenizer.ggml.pre` names a way to cut text before merging. The entries here are those
of the original tokenizers; equality with llama.cpp's own ids is tested on the stress corpus.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# pre-tokenizer name -> (how text is cut, whether whole words skip the merges)
_PRE: dict[str, tuple[str, bool]] = {
    "smollm": ("digits", False),
    "gpt-2": ("plain", False),
    "default": ("plain", False),
    "llama-bpe": (_LLAMA3, True),
    "llama3": (_LLAMA3, True),
    "qwen2": (_QWEN2, False),
}


def write(meta: Mapping[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json.

    Raises `UsageError` for a tokenizer this edge cannot give back, `InputError` for damage.
    """
    model = meta.get("tokenizer.ggml.model")
    pre = meta.get("tokenizer.ggml.pre", "default")
    if model != "gpt2" or pre not in _PRE:
        raise UsageError(
            f"the tokenizer of this GGUF file ({model!r}, pre-tokenizer {pre!r}) cannot be given back exactly",
            hint=f"it can for byte-level BPE with: {', '.join(_PRE)}; or start from the original Hugging Face folder",
        )
    tokens: Any = meta.get("tokenizer.ggml.tokens")
    types: Any = meta.get("tokenizer.ggml.token_type")
    merges: Any = meta.get("tokenizer.ggml.merges")
    if not _all(tokens, str) or not _all(merges, str) or not _all(types, int) or len(tokens) != len(types):
        raise InputError("the tokenizer of this GGUF file is damaged: tokens, types or merges are missing or uneven")
    _tokenizer(tokens, types, merges, pre).save(str(folder / "tokenizer.json"))

    special = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token_id = meta.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
                raise InputError(f"the {key} token id {token_id!r} is not in the vocabulary of {len(tokens)}")
            special[f"{role}_token"] = tokens[token_id]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(meta.get("tokenizer.ggml.add_bos_token", False)),
        "model_max_length": _context(meta),
        **special,
    }
    _save(folder / "tokenizer_config.json", config)
    template = meta.get("tokenizer.chat_template")
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    ids = {
        f"{k}_token_id": meta.get(f"tokenizer.ggml.{g}_token_id")
        for k, g in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    _save(folder / "generation_config.json", {k: v for k, v in ids.items() if v is not None})


def _tokenizer(tokens: list[str], types: list[int], merges: list[str], pre: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise InputError("the tokenizer of this GGUF file names a token twice")
    pairs = [tuple(m.split(" ")) for m in merges]
    bad = next((m for m, p in zip(merges, pairs, strict=True) if len(p) != 2), None)
    if bad is not None:
        raise InputError(f"the tokenizer of this GGUF file has the merge {bad!r}, wanted two parts")
    split, ignore_merges = _PRE[pre]
    if split == "digits":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif split == "plain":
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        steps = [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=ignore_merges))  # type: ignore[arg-type]
    except Exception as err:
        raise InputError(f"the tokenizer of this GGUF file is damaged: {err}") from err
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_tokens(
        [
            AddedToken(t, special=False, normalized=False)
            for t, k in zip(tokens, types, strict=True)
            if k == _USER_DEFINED
        ]
    )
    tokenizer.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, k in zip(tokens, types, strict=True)
            if k in (_CONTROL, _UNKNOWN)
        ]
    )
    return tokenizer


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, kind) for v in value)


def _context(meta: Mapping[str, Any]) -> int:
    arch = meta.get("general.architecture")
    value = meta.get(f"{arch}.context_length", 2048)
    return value if isinstance(value, int) else 2048


def _save(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
