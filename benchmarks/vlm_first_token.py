"""How long until the first word about a picture, and is the encoder in ONNX as fast as the source's in torch?"""

from __future__ import annotations

import sys

from benchmarks import race
from benchmarks.race import Claim, Contestant

THEIRS = "torch"


def main() -> int:
    parser = race.arguments(__doc__, rounds=5)
    parser.add_argument("--source", default="smollm2-vision", help="the checkpoint (smollm2-vision)")
    parser.add_argument("--pictures", type=int, default=20, metavar="N", help="pictures in each round (20)")
    parser.add_argument("--formats", default="onnx,gguf,tflite", help="ours (onnx,gguf,tflite)")
    parser.add_argument(
        "--quant", default="8bit", help="of the text part (8bit); vision is in 16 bits, or 32 with 32bit"
    )
    args = parser.parse_args()
    words = (args.threads, args.pictures)
    contestants = [Contestant(THEIRS, race.contestant("torch_vision", args.source, *words), "the source's vision part")]
    claims = []
    for name in args.formats.split(","):
        folder = race.bundle(args.source, name, args.quant)
        contestants.append(Contestant(name, race.contestant("edge_vision", folder, *words)))
        if name == "onnx":
            claims.append(Claim("encodes_per_s", name, THEIRS, at_least=1.0, says="encode, ONNX against torch"))
    done = race.run(__doc__, contestants, rounds=args.rounds)
    return race.keep("vlm_first_token", done, race.judge(done, claims))


if __name__ == "__main__":
    sys.exit(main())
