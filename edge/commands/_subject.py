"""One bundle that is being measured: what is asked of its worker, what came back, and the result that it makes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge import conditions
from edge.commands._places import Place
from edge.devices.preflight import SCRATCH_BYTES
from edge.errors import DeviceError, EdgeError, UsageError
from edge.fitness import Fitness, judge
from edge.measurement import FEWEST, Measurement, Result
from edge.runtimes import bench_worker


class Subject:
    """A bundle somewhere, and its repetitions so far."""

    def __init__(self, place: Place, args: argparse.Namespace) -> None:
        self.place = place
        self._bundle = place.bundle
        self._args = args
        limit = min(args.context or self._bundle.context_length, self._bundle.context_length)
        self._lengths = [n for n in args.prompt_tokens if n <= limit]
        self._limit = limit
        if not self._lengths:
            raise UsageError(f"no prompt length of {args.prompt_tokens} fits the context of {limit} tokens")
        wanted = sorted({*(args.depths or ()), self._lengths[0]})
        self._depths = [n for n in wanted if n + args.new_tokens + 1 <= limit]
        if not self._depths:
            raise UsageError(
                f"{args.new_tokens} new tokens after {wanted[0]} do not fit the context of {limit} tokens",
                hint="ask for fewer with --new-tokens",
            )
        self._cold: list[dict[str, Any]] = []
        self._warm: list[dict[str, Any]] = []
        self._during: list[dict[str, Any]] = []
        self._sustained: dict[str, Any] = {}
        self._notes: list[str] = []
        self._fitness = Fitness((), (), ())
        self.probed: dict[str, Any] = {}
        self.before = place.conditions()

    @property
    def decode(self) -> Measurement | None:
        """How fast it answers, as far as that is known yet."""
        rates = tuple(_rate(row["answers"][str(self._depths[0])]["gaps_ms"]) for row in self._warm)
        return Measurement("decode", "tok/s", rates) if rates else None

    def fitness(self, cores: int, *, bandwidth: bool) -> Fitness:
        """Look at the machine for a second; then, if nothing speaks against it, measure its memory."""
        memory = dict(self._bundle.memory)
        weights = int(memory.get("weights_bytes") or 0) + int(memory.get("unpacked_bytes") or 0)
        needs = weights + int(memory.get("kv_bytes_at_context") or 0) + SCRATCH_BYTES if weights else None
        self.before = self.place.conditions()
        found = self._ask("probe", bandwidth=False)
        state = {**self.before.record(), **{k: v for k, v in found["conditions"].items() if v is not None}}
        self._fitness = judge(state, found["seen"], cores=cores, needs_bytes=needs)
        if bandwidth and (self._args.force or not self._fitness.against):
            found = self._ask("probe")
        self.probed = found
        return self._fitness

    def repeat(self) -> None:
        """One cold load and one repetition, each in a fresh process."""
        cold = self._ask("load")
        found = self._ask("answer")
        self._cold.append(cold)
        self._keep(found)

    def _keep(self, found: dict[str, Any]) -> None:
        self._warm.append(found)
        # What the worker saw at the end of its work counts; the rest is asked right after it.
        seen = {key: value for key, value in found["conditions"].items() if value is not None}
        self._during.append({**self.place.conditions().record(), **seen})

    def sustain(self, seconds: float) -> None:
        """Answer for that long without a pause."""
        self._sustained = self._ask("sustain", seconds=seconds)

    def note(self, words: str) -> None:
        self._notes.append(words)

    def _ask(self, do: str, **more: Any) -> dict[str, Any]:
        found = self.place.measure(
            {
                "do": do,
                "threads": self._args.threads,
                "context": self._args.context,
                "prompt_tokens": sorted({*self._lengths, *self._depths}),
                "depths": self._depths,
                "new_tokens": self._args.new_tokens,
                "load_only": do == "load",
                **more,
            }
        )
        if found.get("version") != bench_worker.VERSION:
            raise EdgeError(
                f"{self.place.name} was put there by an edge that measures less than this one",
                hint="flash the bundle again: only what has changed is sent",
            )
        return found

    def result(self) -> Result | None:
        """Everything measured, as one frozen value; `None` before the first repetition is done."""
        if not self._warm:
            return None
        last = self._warm[-1]
        after = self._now()
        return Result(
            bundle={
                **{
                    key: getattr(self._bundle, key)
                    for key in ("name", "id", "family", "format", "quantization", "proven", "licence", "size_bytes")
                },
                **{key: dict(getattr(self._bundle, key) or {}) for key in ("memory", "source", "tools", "quality")},
                "kv_bytes": last["kv_bytes"],
            },
            runtime=last["runtime"],
            settings={
                "threads": last["threads"],
                "context_length": last["context_length"],
                **self._settings(),
            },
            before=self.before.record(),
            after=after,
            during=tuple(self._during),
            measurements={m.name: m for m in self._taken()},
            emulated=self.place.emulated,
            notes=tuple(self._remarks(after)),
            fitness={
                "against": list(self._fitness.against),
                "notes": list(self._fitness.notes),
                "forced": bool(self._fitness.against),
                **self.probed.get("seen", {}),
            },
            traffic=dict(last["traffic"] or {}),
            sustained=tuple(self._sustained.get("sustained", ())),
            energy=dict(self._sustained.get("energy", {})),
        )

    def _settings(self) -> dict[str, Any]:
        """What was asked of it, beside threads and context."""
        return {"prompt_tokens": self._lengths, "depths": self._depths, "new_tokens": self._args.new_tokens}

    def _taken(self) -> Iterable[Measurement]:
        def each(name: str, unit: str, samples: Iterable[float]) -> Measurement:
            return Measurement(name, unit, tuple(samples))

        def of(n: int, key: str) -> list[Any]:
            return [row["answers"][str(n)][key] for row in self._warm]

        taken = [
            each("load_cold", "s", (row["load_s"] for row in self._cold)),
            each("first_word_cold", "s", (row["first_token_s"] for row in self._cold)),
            each("load_warm", "s", (row["load_s"] for row in self._warm)),
            each("peak_rss", "bytes", (float(row["peak_rss_bytes"]) for row in self._warm)),
            each("python_rss", "bytes", (float(row["python_rss_bytes"]) for row in self._warm)),
            _together("warm_up", [row["warm_up_ms"] for row in self._warm]),
        ]
        for n in sorted({*self._lengths, *self._depths}):
            taken.append(each(f"ttft_{n}", "ms", (1e3 * s for s in of(n, "first_s"))))
            taken.append(each(f"prefill_{n}", "tok/s", (n / s for s in of(n, "first_s"))))
        for i, n in enumerate(self._depths):
            at = f"_at_{n}" if i else ""
            gaps = of(n, "gaps_ms")
            taken.append(each(f"decode{at}", "tok/s", map(_rate, gaps)))
            taken.append(_together(f"inter_token{at}", gaps))
            taken.append(each(f"end_to_end_{n}", "s", of(n, "total_s")))
        if all(row["held"] and row["held_before"] for row in self._warm):
            for kind in ("rss", "pss", "weights", "libraries", "private", "swapped"):
                taken.append(each(f"held_{kind}", "bytes", (float(row["held"][kind]) for row in self._warm)))
            taken.append(each("private_before", "bytes", (float(r["held_before"]["private"]) for r in self._warm)))
        return taken

    def _now(self) -> Mapping[str, Any]:
        """How the machine is; how it was last, when it was lost on the way: what was measured there is right."""
        try:
            return self.place.conditions().record()
        except DeviceError:
            return self._during[-1] if self._during else self.before.record()

    def _remarks(self, after: Mapping[str, Any]) -> list[str]:
        notes = [*self._notes]
        if self._fitness.against:
            notes.append(f"measured although the machine was unfit: {'; '.join(self._fitness.against)}")
        notes += self._fitness.notes
        if len(self._warm) < FEWEST:
            notes.append(f"fewer than {FEWEST} repetitions: its intervals say less than 95 %")
        left_out = [
            n for n in {*self._args.prompt_tokens, *self._args.depths} if n not in {*self._lengths, *self._depths}
        ]
        if left_out:
            listed = ", ".join(map(str, sorted(left_out)))
            notes.append(f"left out, for they do not fit the context of {self._limit} tokens: {listed}")
        if not all(row["forgotten"] for row in self._cold):
            notes.append("this system cannot forget files in memory: cold loads are warm ones")
        seen = [row["seen"] for row in self._warm]
        jumped = sum(row["clock_jumped_s"] for row in seen)
        if any(row["clock_jumped_s"] for row in seen):
            notes.append(
                f"the machine's clock jumped by {jumped:+.1f} s meanwhile: dates may be wrong, times are not, "
                "they are of a clock that does not jump"
            )
        if any(row["asleep_s"] for row in seen):
            notes.append(f"the machine slept for {sum(r['asleep_s'] for r in seen):.0f} s meanwhile: measure again")
        if any(row["swapped_pages"] for row in seen):
            notes.append("the machine swapped meanwhile: speeds are also those of its disk")
        rates = [point["tokens_per_s"] for point in self._sustained.get("sustained", ())]
        first = max(rates[: max(1, len(rates) // 4)], default=0.0)
        alone = self.decode.median if self.decode else 0.0
        if len(rates) > 1 and rates[-1] < 0.9 * first:
            notes.append(f"it slowed down under lasting work: from {first:.1f} to {rates[-1]:.1f} tok/s")
        elif len(rates) > 1 and first < 0.7 * alone:
            notes.append(
                f"lasting work began at {first:.1f} tok/s, where single answers had {alone:.1f}: "
                "something else had the processors, or it was hot"
            )
        return notes + conditions.remarks(self.before.record(), [*self._during, after])


def _together(name: str, rows: Sequence[Sequence[float]]) -> Measurement:
    """Samples of all repetitions, and how many each gave."""
    return Measurement(name, "ms", tuple(ms for row in rows for ms in row), tuple(len(row) for row in rows))


def _rate(gaps_ms: list[float]) -> float:
    return 1e3 * len(gaps_ms) / sum(gaps_ms)
