"""Serve bundles to programs and browsers: OpenAI's interface, and a chat page.

Every client of OpenAI's works against http://127.0.0.1:8080/v1 (any API key will do there), and a
browser finds a chat page at http://127.0.0.1:8080. Nothing leaves the machine.

On loopback, where only this machine hears it, no token is needed. Anywhere else one is: give it
with --token-file, or one is made for this run and printed. It goes over the wire in the clear: for
a network that is not yours, put a proxy with TLS in front.

Several clients take turns, a token each, with --parallel answers at the same time; the others wait,
and past --queue of them are told when to come back. Ctrl-C or SIGTERM lets answers finish.

examples:
  edge serve out/SmolLM2-135M-Instruct-gguf-q4_k_m
  edge serve BUNDLE --parallel 2 --port 9000
  edge serve BUNDLE --host 0.0.0.0 --token-file /etc/edge/token --allow-host pi.example
  edge serve FIRST SECOND
"""

from __future__ import annotations

import argparse

from edge.serve import start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    start.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return start.run(args)
