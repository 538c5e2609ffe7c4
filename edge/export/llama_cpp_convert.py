"""Runs llama.cpp's converter and writes down what it did with every tensor.

A program of its own, because the converter is one: `python -P llama_cpp_convert.py SOURCES REQUEST`,
with the unpacked sources and a JSON object {model, outfile, outtype, name, texts, trace, mmproj}: with `mmproj`
("f32", "f16") the vision part is converted, else the text part in float32. It imports nothing of
edge. The trace is JSON too:

    entries   [{source: [names], target: [names]}] in the order of conversion; no source: generated
    dropped   source names that the converter left out
    pre       the pre-tokenizer written, and how it was found: known, matched or nearest
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

_FEW = 10  # texts that tell most pre-tokenizers apart come first
_SHORT_TOWER = re.compile(r"^(model\.)?vision_tower\.(?=(embeddings|encoder|post_layernorm|head)\.)")
_COMPUTED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")


class Trace:
    """Which source tensors each written tensor came from."""

    def __init__(self) -> None:
        self.original: dict[str, str] = {}
        self.dropped: list[str] = []
        self.entries: list[dict[str, list[str]]] = []
        self.waiting: dict[str, int] = {}  # sources held back by the converter, with their elements
        self.targets: list[tuple[str, int]] = []

    def finish(self, name: str | None, n_elements: int) -> None:
        """Close the account of one source: its targets are those added since the last call."""
        targets, self.targets = self.targets, []
        source = [] if name is None else [self.original.get(name, name)]
        if not targets:
            if name is not None and name.endswith(_COMPUTED):
                self.dropped.append(source[0])
            elif name is not None:
                self.waiting[source[0]] = n_elements
            return
        # The last expert of a layer releases the whole layer, stacked: take in what waited for it.
        if sum(n for _, n in targets) != n_elements and self.waiting:
            block = _block(source[0])
            peers = [s for s in self.waiting if _block(s) == block]
            if sum(self.waiting[s] for s in peers) + n_elements == sum(n for _, n in targets):
                source = [*peers, *source]
                for peer in peers:
                    del self.waiting[peer]
        self.entries.append({"source": source, "target": [t for t, _ in targets]})


def _block(name: str) -> str:
    return next((part for part in name.split(".") if part.isdecimal()), "")


def _watch(model: Any, gguf: Any, trace: Trace) -> None:
    """Record names as they pass through the converter's model class and the writer.

    transformers 5 leaves a level out of the names of SigLIP's tensors, which the converter expects.
    """
    keep, tensors, add = model.filter_tensors, model.get_tensors, gguf.GGUFWriter.add_tensor

    def filter_tensors(_cls: Any, item: Any) -> Any:
        kept = keep((_SHORT_TOWER.sub(r"\g<0>vision_model.", item[0]), *item[1:]))
        if kept is None:
            trace.dropped.append(item[0])
        else:
            trace.original[kept[0]] = item[0]
        return kept

    def get_tensors(self: Any) -> Any:
        trace.finish(None, 0)
        for name, tensor in tensors(self):
            n = tensor.numel()
            yield name, tensor
            trace.finish(name, n)

    def add_tensor(self: Any, name: str, tensor: Any, *args: Any, **kwargs: Any) -> None:
        trace.targets.append((name, int(tensor.size)))
        add(self, name, tensor, *args, **kwargs)

    model.filter_tensors = classmethod(filter_tensors)
    model.get_tensors = get_tensors
    gguf.GGUFWriter.add_tensor = add_tensor


def _known_pre_tokenizers(recognize: Any) -> list[str]:
    """Every name in the converter's own table, the widely used ones first."""
    known = re.findall(r'res = "([^"]+)"', inspect.getsource(recognize))
    return list(dict.fromkeys(["llama-bpe", "gpt-2", "smollm", "qwen2", "default", *known]))


def _matching_pre(gguf: Any, writer: Any, candidates: list[str], folder: Path, texts: list[str]) -> tuple[str, str]:
    """The first pre-tokenizer with which llama.cpp gives the ids of tokenizer.json, or the nearest."""
    import llama_cpp
    from tokenizers import Tokenizer

    truth = Tokenizer.from_file(str(folder / "tokenizer.json"))
    want = [truth.encode(text, add_special_tokens=False).ids for text in texts]
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "vocab.gguf")
        probe = gguf.GGUFWriter(path=None, arch=writer.arch)
        probe.kv_data = [dict(writer.kv_data[0])]
        probe.write_header_to_file(path=path)
        probe.write_kv_data_to_file()
        probe.close()
        for few in (slice(0, _FEW), slice(None)):  # most candidates fail at once
            hits = []
            for pre in candidates:
                ids = _vocabulary_ids(llama_cpp, path, pre, texts[few])
                hits.append(sum(a == b for a, b in zip(ids, want[few], strict=True)))
            candidates = [pre for pre, n in zip(candidates, hits, strict=True) if n == max(hits)]
    return candidates[0], "matched" if max(hits) == len(want) else "nearest"


def _vocabulary_ids(llama_cpp: Any, path: Path, pre: str, texts: list[str]) -> list[list[int]]:
    overrides = (llama_cpp.llama_model_kv_override * 2)()
    overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
    overrides[0].key, overrides[0].value.val_str = b"tokenizer.ggml.pre", pre.encode()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only, params.kv_overrides = True, overrides
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return [[-1]] * len(texts)
    vocab, room = llama_cpp.llama_model_get_vocab(model), 65536
    ids = (ctypes.c_int32 * room)()
    out = []
    for text in texts:
        data = text.encode()
        out.append(list(ids[: max(0, llama_cpp.llama_tokenize(vocab, data, len(data), ids, room, False, True))]))
    llama_cpp.llama_model_free(model)
    return out


def main(sources: str, request: dict[str, Any]) -> None:
    sys.path[:0] = [sources, str(Path(sources, "gguf-py"))]
    import convert_hf_to_gguf as converter
    import gguf
    from conversion import TextModel

    trace, found = Trace(), {"name": "", "how": ""}
    choose, table = converter.get_model_class, TextModel.get_vocab_base_pre

    def get_model_class(*args: Any, **kwargs: Any) -> Any:
        model = choose(*args, **kwargs)
        _watch(model, gguf, trace)
        if request.get("mmproj"):
            return model
        recognize, metadata = model.get_vocab_base_pre, model.prepare_metadata

        def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
            with contextlib.suppress(NotImplementedError):
                found.update(name=recognize(self, tokenizer), how="known")
            return found["name"] or "default"

        def prepare_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
            metadata(self, *args, **kwargs)
            values = self.gguf_writer.kv_data[0]
            # The converter looks for it in the classes of some architectures alone.
            if not any(key.endswith(".pooling_type") for key in values):
                self._try_set_pooling_type()
            if "tokenizer.ggml.pre" in values and values["tokenizer.ggml.model"].value == "gpt2" and not found["how"]:
                candidates = _known_pre_tokenizers(table)
                name, how = _matching_pre(gguf, self.gguf_writer, candidates, self.dir_model, request["texts"])
                values["tokenizer.ggml.pre"].value = name
                found.update(name=name, how=how)

        model.get_vocab_base_pre, model.prepare_metadata = get_vocab_base_pre, prepare_metadata
        return model

    converter.get_model_class = get_model_class
    outtype = request.get("mmproj") or request["outtype"]
    sys.argv = ["convert_hf_to_gguf.py", request["model"], "--outtype", outtype, "--outfile", request["outfile"]]
    sys.argv += ["--model-name", request["name"]]
    if request.get("mmproj"):
        sys.argv.append("--mmproj")
    converter.main()
    trace.finish(None, 0)
    record = {"entries": trace.entries, "dropped": trace.dropped, "waiting": sorted(trace.waiting), "pre": found}
    Path(request["trace"]).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
