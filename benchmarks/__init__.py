"""Claims about speed and memory, each measured beside the tool it is compared with.

One file answers one question: `python -m benchmarks.decode_gguf`. Contestants run in fresh processes and
take turns, so that a noisy minute hits both; raw samples go to `benchmarks/results/`, and
`python -m benchmarks.table` writes docs/reference/performance.md from them.

Measure on a machine that does nothing else.
"""
