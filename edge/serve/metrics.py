"""What Prometheus reads at `/metrics`; without its library there is none, and that is said."""

from __future__ import annotations

import importlib.util
from typing import Any

from edge.errors import require
from edge.serve.turns import Turns, Work

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of requests and tokens, and how long things took. `model` labels are the names of bundles."""

    def __init__(self) -> None:
        self._registry: Any = None
        if importlib.util.find_spec("prometheus_client") is None:
            return
        import prometheus_client as prometheus

        self._registry = registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "edge_requests", "Requests by path and status", ["path", "status"], registry=registry
        )
        self._tokens = prometheus.Counter(
            "edge_tokens",
            "Tokens: prompt, reused (of the prompt), generated, guessed, accepted (of the guessed)",
            ["model", "kind"],
            registry=registry,
        )
        self._answers = prometheus.Counter(
            "edge_answers", "Answers by how they ended", ["model", "end"], registry=registry
        )
        self._times = {
            name: prometheus.Histogram(f"edge_{name}_seconds", words, ["model"], registry=registry, buckets=_SECONDS)
            for name, words in (
                ("wait", "From a request's arrival to its turn"),
                ("first_token", "From a request's turn to its first token"),
                ("answer", "From a request's turn to its end"),
            )
        }
        self._speed = prometheus.Summary(
            "edge_tokens_per_second", "Of answers of two tokens and more, after the first", ["model"], registry=registry
        )
        self._active = prometheus.Gauge("edge_active_answers", "Answers that are computed now", registry=registry)
        self._waiting = prometheus.Gauge("edge_waiting_requests", "Requests that wait for a seat", registry=registry)

    def watch(self, turns: Turns) -> None:
        if self._registry:
            self._active.set_function(lambda: turns.n_active)
            self._waiting.set_function(lambda: turns.n_waiting)

    def request(self, path: str, status: int) -> None:
        if self._registry:
            self._requests.labels(path, str(status)).inc()

    def answer(self, answer: Work, took_s: float) -> None:
        if not self._registry:
            return
        model, stats = answer.seats.name, answer.stats
        self._answers.labels(model, answer.ended).inc()
        self._times["wait"].labels(model).observe(answer.waited_s)
        self._times["answer"].labels(model).observe(took_s)
        if stats is None:
            return
        self._tokens.labels(model, "prompt").inc(stats.prompt_tokens)
        self._tokens.labels(model, "reused").inc(stats.reused_tokens)
        self._tokens.labels(model, "generated").inc(stats.new_tokens)
        self._tokens.labels(model, "guessed").inc(stats.guessed_tokens)
        self._tokens.labels(model, "accepted").inc(stats.accepted_tokens)
        if stats.ttft_ms is not None:
            self._times["first_token"].labels(model).observe(stats.ttft_ms / 1000)
        if stats.tokens_per_second is not None:
            self._speed.labels(model).observe(stats.tokens_per_second)

    def page(self) -> tuple[bytes, str]:
        """The text and its content type. `MissingError` without the library."""
        require("prometheus_client", extra="serve", purpose="/metrics")
        import prometheus_client as prometheus

        return prometheus.generate_latest(self._registry), prometheus.CONTENT_TYPE_LATEST
