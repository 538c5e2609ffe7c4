"""AutoRound's own rounding of a source to four bits, as a file that `benchmarks.quality_size` puts into ONNX.

In an environment that has auto-round beside edge (`pip install auto-round`; it is no dependency of edge):

    python -m benchmarks.contestants.auto_round SOURCE OUT.safetensors [--iterations 50]

Its recipe "light" has 50 iterations, which took 23 minutes of one core for SmolLM2-135M; its default has 200. It tunes
over edge's calibration text, in samples of 512 tokens.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ["HF_HUB_OFFLINE"] = "1"

SEQUENCE = 512
BLOCK = 32


def main() -> None:
    import torch
    from auto_round import AutoRound
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from edge.export import calibrate
    from edge.export.source import open_source
    from edge.runtimes.chat_template import ChatTemplate
    from edge.runtimes.tokenizer import Tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--iterations", type=int, default=50)
    args = parser.parse_args()
    checkpoint = open_source(args.source)
    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    text = [i for window in calibrate.default_calibration(tokenizer, template).windows for i in window]
    ids = [torch.tensor([text[i : i + SEQUENCE]]) for i in range(0, len(text) - SEQUENCE + 1, SEQUENCE)]
    tuned = AutoRound(
        AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(checkpoint.folder),
        scheme="W4A16",
        bits=4,
        group_size=BLOCK,
        sym=False,
        dataset=[{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids],
        seqlen=SEQUENCE,
        nsamples=len(ids),
        iters=args.iterations,
        batch_size=8,
        device_map="cpu",
        enable_torch_compile=False,
        seed=42,
    )
    began = time.process_time()
    model, _ = tuned.quantize()
    made = {}
    for name, layer in model.named_modules():
        if not hasattr(layer, "scale") or not hasattr(layer, "weight"):
            continue
        scale, zero = layer.scale.float().contiguous(), layer.zp.float().contiguous()
        steps = layer.weight.float().reshape(*scale.shape, BLOCK) / scale[..., None] + zero[..., None]
        rounded = steps.round()
        # It says its scales in 16 bits, so that weights lie a little beside their steps.
        assert (steps - rounded).abs().max() < 0.1, f"{name} does not lie on its grid"
        made |= {f"{name}.q": rounded.reshape(layer.weight.shape).to(torch.uint8).contiguous()}
        made |= {f"{name}.scale": scale, f"{name}.zero": zero.to(torch.uint8)}
    about = {"iterations": args.iterations, "samples": len(ids), "process_s": round(time.process_time() - began)}
    save_file(made, args.out, metadata={key: str(value) for key, value in about.items()})
    print(about)


if __name__ == "__main__":
    main()
