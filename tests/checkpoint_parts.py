"""What the makers of tiny random checkpoints share: weights of a sensible scale, and small real tokenizers.

Tokenizers are trained on the text that ships with edge, so that ids mean pieces of words, and
written as checkpoints of that kind have them: byte-level pairs, or SentencePiece with bytes to
fall back on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.export import calibrate

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# How texts are cut before pairs are merged: as GPT-4's tokenizer and its heirs do, with numbers of at most
# three digits (Llama 3), or digit by digit (Qwen).
CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BY_THREES, ONE_BY_ONE = CUT % "{1,3}", CUT % ""
_SPACE = "\u2581"


def write(
    folder: Path, config: Any, *, seed: int = 0, gain: float = 1.0, adjust: Callable[[Any], None] | None = None
) -> None:
    """Save a model of `config` with random weights in bfloat16, as checkpoints are published.

    Each product keeps the size of what goes in (`gain` makes it larger), norms are near what they
    start from, and logits have a standard deviation of about 3, so that tokens differ. `adjust`
    changes what a type needs otherwise.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model, seed=seed, gain=gain)
    if adjust is not None:
        with torch.no_grad():
            adjust(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def randomize(model: Any, *, seed: int, gain: float = 1.0) -> None:
    """Fill a model's weights in place, the same for the same seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if id(weight) in tables or name.endswith("lm_head.weight"):
                weight.copy_(noise * 3 / weight.shape[-1] ** 0.5)
            elif weight.dim() > 1:
                fan_in = weight.shape[-1] if weight.dim() < 4 else weight[0].numel()
                weight.copy_(noise * gain / fan_in**0.5)
            elif name.endswith("bias"):
                weight.copy_(noise * 0.3)
            else:  # a norm's weight is one, or, where one is added to it, zero
                weight.add_(noise * 0.1)


def texts() -> list[str]:
    """The conversations that ship with edge, one string each."""
    lines = [
        json.loads(line)
        for name in ("calibration", "held_out")
        for line in (Path(calibrate.__file__).parent / "corpus" / f"{name}.jsonl").read_text().splitlines()
    ]
    return [m["content"] for line in lines for m in line["messages"]]


def byte_level(
    folder: Path,
    *,
    special: Sequence[str],
    eos: str,
    template: str,
    cut: str | None = None,
    digits: bool = False,
    bos: str | None = None,
    first: bool = False,
    nfc: bool = False,
    whole_words: bool = False,
    vocab_size: int = 1024,
) -> dict[str, int]:
    """Write a byte-level BPE tokenizer; ids of its control tokens, which stand at its end.

    `cut` is the pattern that splits texts (none: GPT-2's); `digits` cuts numbers into digits before
    it; `first` puts `bos` before every text; `whole_words` takes a word that is a token as it is.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE(ignore_merges=whole_words))
    if nfc:
        made.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if cut:
        steps += [pre_tokenizers.Split(Regex(cut), "isolated")]
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None)]
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special), initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    made.train_from_iterator(texts(), trainer)
    made.add_special_tokens(list(special))
    if first:
        assert bos is not None
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, made.token_to_id(bos))]
        )
    made.save(str(folder / "tokenizer.json"))
    _settings(folder, "PreTrainedTokenizerFast", eos=eos, bos=bos, template=template)
    return {token: made.token_to_id(token) for token in special}


def sentencepiece(
    folder: Path,
    *,
    special: Sequence[str],
    eos: str,
    bos: str,
    template: str,
    kind: str,
    prefix: bool = True,
    pad_first: bool = False,
    vocab_size: int = 1024,
) -> dict[str, int]:
    """Write a SentencePiece BPE model with byte fallback and the tokenizer.json that says the same; ids of controls.

    `prefix` puts a space before every text, as Llama 2's does; `kind` is the class that
    tokenizer_config.json names; `pad_first` orders the first ids as Gemma has them.
    """
    import io

    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2 as pb
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    numbers = (
        {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} if pad_first else {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    )
    written = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(" ".join(t.split()) for t in texts()), model_writer=written, model_type="bpe",
        vocab_size=vocab_size - len(special), byte_fallback=True, character_coverage=0.9995, num_threads=1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=prefix,
        max_sentence_length=1 << 16, minloglevel=2, bos_piece=bos, eos_piece="<eos>" if pad_first else "</s>",
        pad_piece="<pad>", **numbers,
    )  # fmt: skip
    model = pb.ModelProto.FromString(written.getvalue())
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    vocab = {p.piece: i for i, p in enumerate(model.pieces)}
    ranked = []
    for i, p in enumerate(model.pieces):
        if p.type == pb.ModelProto.SentencePiece.NORMAL and len(p.piece) > 1:
            halves = ((p.piece[:k], p.piece[k:]) for k in range(1, len(p.piece)))
            pairs = [(a, b) for a, b in halves if a in vocab and b in vocab]
            ranked += [(i, vocab[a], vocab[b], (a, b)) for a, b in pairs]
    merges = [pair for *_, pair in sorted(ranked)]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", _SPACE)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if prefix else replace
    if not prefix:
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    ends = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*ends, decoders.Strip(" ", 1, 0)] if prefix else ends)
    named = [p.piece for p in model.pieces if p.type in (pb.ModelProto.SentencePiece.CONTROL, 2)]
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in [*named, *special]])
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
    )
    made.save(str(folder / "tokenizer.json"))
    ids = {token: made.token_to_id(token) for token in [*named, *special]}
    _settings(folder, kind, eos=eos, bos=bos, template=template, unk="<unk>", added=ids)
    return ids


def _settings(
    folder: Path,
    kind: str,
    *,
    eos: str,
    bos: str | None,
    template: str,
    unk: str | None = None,
    added: Mapping[str, int] | None = None,
) -> None:
    """tokenizer_config.json and chat_template.jinja."""
    settings: dict[str, Any] = {"tokenizer_class": kind, "eos_token": eos, "bos_token": bos, "unk_token": unk}
    settings |= {"clean_up_tokenization_spaces": False, "model_max_length": 512}
    if added:
        said = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
        settings["added_tokens_decoder"] = {str(i): {"content": token, **said} for token, i in added.items()}
    kept = {k: v for k, v in settings.items() if v is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept, indent=1))
    (folder / "chat_template.jinja").write_text(template)
