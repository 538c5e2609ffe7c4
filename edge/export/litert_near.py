"""Signatures of a TFLite decoder that see only the first rows of its cache.

A graph's attention reads every row of the cache that it sees, filled or not. Of SmolLM2-135M with 2,048
positions that is 94 MB a token, two thirds of what its 8-bit weights take: a `near_512_decode` beside
`decode`, over the same cache and the same weights, answers 1.5 times as fast while 512 positions are
enough, and a prefill twice.

For each window one more takes several tokens and gives logits after each, `near_512_ahead_4`: `edge.runtimes.ahead`
checks its guesses with it. It computes the very numbers that `decode` computes token by token.

Runs beside litert-torch, in the worker's process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge.runtimes.litert import AHEAD, is_ahead, near_key, near_of


def install(graphs: Mapping[int, Sequence[int]], ahead: int | None = None) -> None:
    """Let litert-torch trace, for each window of `graphs`, `decode` and prefills of these sizes, and no others.

    The largest window is the whole cache; its signatures keep their usual names. `ahead` is how many tokens
    one more takes that looks ahead.
    """
    from litert_torch.generative.export_hf.core import cache, exportable_module

    _narrow(cache.LiteRTLMCacheLayer)
    _tell(exportable_module.LiteRTExportableModuleForDecoderOnlyLM)
    for kind in (
        exportable_module.LiteRTExportableModuleForDecoderOnlyLMPrefill,
        exportable_module.LiteRTExportableModuleForDecoderOnlyLMGenerate,
    ):
        _multiply(kind, graphs, ahead)


def _narrow(layer: Any) -> None:
    """Give attention the first `max_cache_len` rows of the cache alone; all of it is updated."""
    update = layer.update

    def updated(self: Any, *args: Any, **options: Any) -> Any:
        return tuple(
            whole.narrow(at, 0, self.max_cache_len) if whole.shape[at] > self.max_cache_len else whole
            for whole, at in zip(update(self, *args, **options), (self.k_ts_idx, self.v_ts_idx), strict=True)
        )

    layer.update = updated


def _tell(module: Any) -> None:
    """Let the cache, and through it masks of sliding windows, know how much the mask lets a graph see."""
    adapt = module.adapt_inputs

    def adapted(self: Any, tokens: Any, embeddings: Any, positions: Any, cache: Any, mask: Any, **options: Any) -> Any:
        for layer in cache.layers:
            layer.max_cache_len = mask.shape[-1]
        return adapt(self, tokens, embeddings, positions, cache, mask, **options)

    module.adapt_inputs = adapted


def _multiply(kind: Any, graphs: Mapping[int, Sequence[int]], ahead: int | None) -> None:
    whole, sample = max(graphs), kind.get_sample_inputs

    def samples(self: Any, *args: Any, **options: Any) -> Any:
        found = sample(self, *args, **options)
        made = {}
        for window, sizes in graphs.items():
            for key, (inputs, shapes) in found.items():
                if key == "decode" or int(key.removeprefix("prefill_")) in sizes:
                    name = key if window == whole else near_key(window, key)
                    made[name] = ({**inputs, "mask": inputs["mask"][..., :window]}, shapes)
            if ahead and "decode" in found:
                inputs, shapes = found["decode"]
                several = {name: value.repeat_interleave(ahead, at) for name, at, value in _of_tokens(inputs)}
                several["mask"] = several["mask"][..., :window]
                key = f"{AHEAD}{ahead}"
                made[key if window == whole else near_key(window, key)] = ({**inputs, **several}, shapes)
        return made

    kind.get_sample_inputs = samples


def _of_tokens(inputs: Mapping[str, Any]) -> list[tuple[str, int, Any]]:
    """The inputs that have a row for each token, and in which dimension."""
    places = {"tokens": 1, "embeddings": 1, "input_pos": 0, "mask": 2}
    return [(name, at, inputs[name]) for name, at in places.items() if name in inputs]


def empty(model: Any) -> None:
    """Take signatures that `decode` could do without out of a file (as `flatbuffer_utils` reads it).

    Those are the near ones and those that look ahead; their graphs stay, with nothing in them.

    For weights that the runtime unpacks for every signature: there a signature costs more than it saves.
    """
    for signature in model.signatureDefs:
        if _spare(signature.signatureKey.decode()):
            graph = model.subgraphs[signature.subgraphIndex]
            graph.operators, graph.tensors, graph.inputs, graph.outputs = [], [], [], []
    model.signatureDefs = [s for s in model.signatureDefs if not _spare(s.signatureKey.decode())]


def _spare(key: str) -> bool:
    return near_of(key) is not None or is_ahead(key)
