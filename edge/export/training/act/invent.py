"""Tools that exist only here: a verb, a thing, and a few parameters, in thousands of combinations."""

from __future__ import annotations

import random
from collections.abc import Sequence

from edge.export.training.act.catalogue import Parameter, Tool
from edge.export.training.act.values import halves

_VERBS = (
    "open", "close|shut", "start|launch|begin", "stop|halt|end", "delete|remove|erase", "show|display", "check|inspect",
    "find|search for|look for", "send|ship", "book|reserve", "buy|order|purchase", "repair|fix", "clean|wash",
    "fill|top up", "empty|drain", "move|shift", "copy|duplicate", "count", "measure", "print", "record|log",
    "lock|secure", "raise|lift", "lower", "heat|warm up", "cool|chill", "paint", "label|tag|mark", "share",
    "hide|conceal", "rename", "rotate|turn", "charge", "update|refresh", "cancel|call off", "approve|accept",
    "reject|refuse", "assign", "weigh", "pack|wrap", "mix|blend", "cut|trim", "pause", "reset", "calibrate|adjust",
    "archive", "compare", "sort", "inflate|pump up", "scan", "create|make", "test|try", "unlock", "publish", "return",
    "sell", "rent|hire", "feed", "polish", "mount|attach", "describe", "connect", "disconnect", "watch|monitor",
)  # fmt: skip
_THINGS = (
    "gate", "printer", "boiler", "invoice", "parcel", "machine", "tank", "conveyor", "ticket", "document", "channel",
    "heater", "bicycle", "boat", "engine", "mirror", "window", "curtain", "kiln", "lift", "locker", "meter", "motor",
    "oven", "crane", "pipe", "pool", "radio", "robot", "roof", "scale", "server", "shelf", "signal", "siren", "statue",
    "stove", "table", "telescope", "tent", "track", "tractor", "tray", "truck", "tube", "van", "antenna", "archive",
    "badge", "barrel", "basket", "bed", "bell", "bench", "bottle", "box", "bridge", "bucket", "cable", "cage",
    "calendar", "candle", "carpet", "chair", "chart", "clock", "contract", "counter", "crate", "database", "desk",
    "drawer", "fence", "ferry", "filter", "flag", "folder", "form", "fountain", "frame", "freezer", "greenhouse",
    "hammock", "helmet", "incubator", "kettle", "ladder", "lens", "magnet", "mixer", "projector", "pipeline", "queue",
    "reactor", "sample", "sensor", "slide", "subscription", "survey", "turbine", "vault", "workspace",
)  # fmt: skip
_MODES = (
    ("fast", "slow", "gentle"), ("small", "medium", "large"), ("left", "right"), ("up", "down"), ("north", "south"),
    ("soft", "hard"), ("daily", "weekly", "monthly"), ("public", "private"), ("draft", "final"), ("wet", "dry"),
    ("cotton", "wool", "silk"), ("basic", "pro"), ("indoor", "outdoor"), ("manual", "automatic"), ("first", "second"),
    ("low", "middle", "top"), ("glass", "wood", "metal"), ("summer", "winter"), ("short", "long"), ("hot", "cold"),
)  # fmt: skip

# name, type, description, values, ways to say it; the way starts with the space before it.
_PARAMETERS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    ("percent", "integer", "in percent", "0..100", (" to {p} percent", " at {p}%", " to {p}%")),
    ("minutes", "integer", "for how long, in minutes", "1..90", (" for {p} minutes", " during {p} minutes")),
    ("seconds", "integer", "duration in seconds", "1..200", (" for {p} seconds", ", {p} seconds")),
    ("times", "integer", "how often", "2..30", (" {p} times", ", {p} times")),
    ("number", "integer", "which one, by number", "1..300", (" number {p}", " {p}", " no. {p}")),
    ("degrees", "number", "temperature in degrees", "5..95/0.5", (" to {p} degrees", " at {p} degrees")),
    ("width", "number", "in metres", "0.5..12/0.1", (" {p} metres wide", ", width {p} metres")),
    ("price", "number", "how much money", "2..900/0.5", (" for {p} euros", " at a price of {p}")),
    ("name", "string", "what it is called", "@title", (" called {p}", " named {p}", " with the name {p}")),
    ("place", "string", "where it is", "@room", (" in the {p}", " of the {p}")),
    ("city", "string", "in which city", "@city", (" in {p}", " at {p}")),
    ("person", "string", "for whom", "@name", (" for {p}", " on behalf of {p}")),
    ("owner", "string", "whose it is", "@name", (" of {p}", " that belongs to {p}")),
    ("date", "string", "on which day", "@date", (" on {p}", ", {p}")),
    ("time", "string", "at what time", "@time", (" at {p}", ", time {p}")),
    ("code", "string", "its code", "@code", (" with code {p}", " {p}", " using {p}")),
    ("id", "string", "identifier", "@ssid", (" {p}", " with id {p}")),
    ("color", "string", "which colour", "@color", (" in {p}", ", colour {p}")),
    ("material", "string", "what to use", "@item", (" with {p}", " using {p}")),
    ("text", "string", "the text", "@sentence", (": {p}", " saying {p}", " with the text {p}")),
    ("reason", "string", "why", "@topic", (" because of {p}", ", reason {p}")),
    ("file", "string", "path of a file", "@path", (" from {p}", " with {p}", " into {p}")),
    ("word", "string", "a secret word", "@nonsense", (" with the word {p}", ", word {p}", " {p}")),
    ("parts", "array", "which parts", "@items", (" with {p}", ": {p}")),
    ("members", "array", "who takes part", "@names", (" with {p}", " for {p}")),
    ("test", "boolean", "only as a test", "", (" {p:as a test=true/for real=false}",)),
    ("urgent", "boolean", "in a hurry", "", ("{p:, it is urgent=true/, it is not urgent=false}",)),
    ("cover", "boolean", "with a cover", "", (" {p:with a cover=true/without a cover=false}",)),
)


def invented(rng: random.Random, n: int) -> list[Tool]:
    """`n` tools that can be mistaken for each other: some share the verb, some the thing."""
    verbs, things = halves(_VERBS)[0], halves(_THINGS)[0]
    pairs = [(rng.choice(verbs), rng.choice(things))]
    while len(pairs) < n:
        verb, thing = rng.choice(pairs)
        kind = rng.randrange(3)
        pair = (verb if kind == 0 else rng.choice(verbs), thing if kind == 1 else rng.choice(things))
        if pair not in pairs:
            pairs.append(pair)
    return [_tool(rng, verb.split("|"), thing) for verb, thing in pairs]


def near_miss(rng: random.Random, offered: Sequence[Tool]) -> Tool:
    """A tool that does something else with the same thing as one of `offered`, which are invented too."""
    thing = rng.choice(offered).name.rpartition("_")[2]
    taken = {t.name for t in offered}
    while True:
        verbs = rng.choice(halves(_VERBS)[0]).split("|")
        if f"{verbs[0].replace(' ', '_')}_{thing}" not in taken:
            return _tool(rng, verbs, thing)


def _tool(rng: random.Random, verbs: list[str], thing: str) -> Tool:
    chosen = rng.sample(_PARAMETERS, rng.choice([0, 1, 1, 1, 2, 2, 2, 3]))
    # What can hold anything comes last, where its end is the end of the request.
    chosen.sort(key=lambda row: row[0] in ("text", "parts", "members"))
    parameters, ways, needed = [], [], []
    for name, kind, about, values, said in chosen:
        required = rng.random() < 0.65
        parameters.append(Parameter(name, kind, about, required, values))
        # Not `str.format`: the slot is a word of the phrase language.
        way = rng.choice(said).replace("{p", "{" + name)
        ways.append(way if required else f"[{way}]")
        needed.append(required)
    if rng.random() < 0.4:
        modes = rng.choice(_MODES)
        required = rng.random() < 0.5
        parameters.append(Parameter("mode", "string", rng.choice(("how", "which kind", "")), required, "", modes))
        way = rng.choice((" in {mode} mode", ", {mode}", " ({mode})")).replace("(", "").replace(")", "")
        ways.insert(0, way if required else f"[{way}]")
        needed.insert(0, required)
    verb = f"({'|'.join(verbs)})" if len(verbs) > 1 else verbs[0]
    starts = (f"{verb} the {thing}", f"{verb} the {thing}", f"I want to {verb} the {thing}", f"{verb} {thing}")
    whole = "".join(ways)
    missing = [
        start + "".join(w for j, w in enumerate(ways) if j != i and not w.startswith(":"))
        for i, need in enumerate(needed)
        if need
        for start in starts[:1]
    ]
    article = rng.choice(("the", "a"))
    return Tool(
        f"{verbs[0].replace(' ', '_')}_{thing}",
        f"{rng.choice(verbs).capitalize()} {article} {thing}.",
        tuple(parameters),
        "invented",
        tuple(start + whole for start in starts),
        (),
        tuple(missing),
    )
