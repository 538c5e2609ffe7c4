"""What does `edge chat --on` add to a token?

The same bundle answers here and, over ssh, on this machine as a device, in turns; the link is loopback's, so that all
that is added is edge's: the worker, its JSON, ssh, and the words that are made of it here.

    python -m benchmarks.chat_on                                 2 minutes
    python -m benchmarks.chat_on --rounds 1 --tokens 16          to try it
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim, Race
from edge.devices.address import connect
from edge.devices.install import Wishes, flash
from edge.devices.remote import open_remote
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Sampling
from tests.rigs import sshd

_PROMPT = "Tell me a long story about a lighthouse."
_AT_MOST_MS = 5.0


def main() -> int:
    args = race.arguments(__doc__).parse_args()
    if reason := sshd.missing():
        sys.exit(reason)
    folder = race.bundle("smollm2", "gguf", "q4_k_m")
    done = Race(str(__doc__), load_before=race.settled())
    with _there(folder, args.threads) as there, open_bundle(folder, threads=args.threads, check=False) as here:
        for model in (here, there):
            _token_ms(model, 8)  # warms up
        for i in range(args.rounds):
            turns = [("here", here), ("over ssh", there)]
            took = {name: _token_ms(model, args.tokens) for name, model in (turns if i % 2 == 0 else turns[::-1])}
            done.samples.setdefault("here", []).append({"token_ms": took["here"]})
            done.samples.setdefault("over ssh", []).append(
                {"token_ms": took["over ssh"], "added_ms": took["over ssh"] - took["here"]}
            )
            print(f"  round {i + 1}/{args.rounds}: {took}", flush=True)
    says = "what a token takes longer over ssh than here"
    claim = Claim("added_ms", "over ssh", "5 ms", at_most=1.0, fixed=_AT_MOST_MS, says=says)
    return race.keep("chat_on", done, race.judge(done, [claim]))


def _token_ms(model: Model, count: int) -> float:
    """The mean time of a token of an answer, once the first is there."""
    ids = model.prompt([{"role": "user", "content": _PROMPT}])
    times = []
    for piece in model.generate_ids(ids, Sampling(temperature=0, max_tokens=count)):
        if piece.token_id is not None:
            times.append(time.perf_counter())
    return 1e3 * (times[-1] - times[0]) / (len(times) - 1)


@contextmanager
def _there(folder: Path, threads: int) -> Iterator[Model]:
    work = Path(tempfile.mkdtemp(prefix="edge-chat-on-"))
    rig = sshd.Sshd(work / "sshd")
    os.environ["EDGE_SSH_CONFIG"] = str(rig.config)
    device = connect(f"{rig.address}{work / 'store'}")
    try:
        flash(folder, device, Wishes(python=sys.executable))
        with open_remote(device, threads=threads) as model:
            yield model
    finally:
        device.close()
        rig.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
