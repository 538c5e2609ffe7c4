"""Tools that exist only here: a verb, a thing, and a few parameters, in thousands of combinations.

Beside them: settings of a thing, switches of a thing, and things that go to somebody.
"""

from __future__ import annotations

import random
from functools import cache

from edge.export.training.act.catalogue import Parameter, Tool, taught, unseen
from edge.export.training.act.values import Values, halves

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
    "gate", "printer", "boiler", "invoice", "parcel", "machine", "tank", "document", "channel",
    "heater", "bicycle", "boat", "engine", "mirror", "curtain", "kiln", "lift", "locker", "meter", "motor",
    "oven", "crane", "pipe", "pool", "radio", "robot", "roof", "scale", "server", "shelf", "signal", "siren", "statue",
    "stove", "table", "tent", "track", "tractor", "tray", "truck", "tube", "van", "antenna", "archive",
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

# Other names for parameters: what a tool of the field calls them.
_ALSO = {
    "percent": ("level", "share", "fill"), "minutes": ("duration", "length", "time_minutes"),
    "seconds": ("duration", "delay", "timeout"), "times": ("count", "repeat", "rounds"),
    "number": ("unit", "slot", "row", "shelf", "lane", "seat", "index"), "degrees": ("temperature", "heat", "warmth"),
    "width": ("size", "breadth"), "price": ("amount", "cost", "fee", "budget"),
    "name": ("title", "label", "model", "product", "brand", "program"), "place": ("location", "room", "area", "spot"),
    "city": ("town", "destination", "branch", "office"), "street": ("address", "where", "pickup"),
    "person": ("customer", "guest", "client", "driver", "employee", "player", "doctor", "student"),
    "owner": ("holder", "author", "seller", "tenant"), "date": ("day", "when", "start", "due"),
    "time": ("hour", "start", "ready_by", "clock"), "code": ("serial", "reference", "key", "sku", "order_number"),
    "id": ("identifier", "device", "account", "tag"), "color": ("colour", "paint", "shade"),
    "material": ("supply", "stuff", "ingredient"), "text": ("message", "note", "remark", "comment", "content"),
    "reason": ("cause", "topic", "subject"), "file": ("path", "document", "source"), "word": ("secret", "token"),
    "parts": ("items", "pieces", "extras"), "members": ("people", "names", "team"),
    "quantity": ("amount", "pieces", "count"), "height": ("altitude", "rise"), "deadline": ("until", "due", "end"),
    "supplier": ("shop", "carrier", "vendor"), "email": ("mail", "contact"), "phone": ("tel", "contact"),
}  # fmt: skip

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
    ("street", "string", "address", "@place", (" at {p}", " in {p}")),
    ("email", "string", "mail address", "@email", (" and mail it to {p}", " for {p}", " from {p}")),
    ("phone", "string", "telephone number", "@phone", (" and call {p}", " with the number {p}")),
    ("deadline", "string", "until when", "@date", (" until {p}", " by {p}")),
    ("language", "string", "in which language", "@language", (" in {p}",)),
    ("supplier", "string", "who delivers it", "@restaurant", (" from {p}", " by {p}")),
    ("quantity", "integer", "how many", "2..60", (", {p} of them", ", {p} pieces", " {p} times")),
    ("height", "integer", "height in millimetres", "5..900/5", (" to a height of {p} millimetres", " to {p} mm")),
    ("song", "string", "name of the melody", "@song", (" with the melody {p}", " to the sound of {p}")),
    ("material", "string", "what to use", "@item", (" with {p}", " using {p}")),
    ("text", "string", "the text", "@sentence", (": {p}", " saying {p}", " with the text {p}", " and say {p}")),
    ("issue", "string", "what is wrong", "@sentence", (": {p}", " because {p}", " saying that {p}")),
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
    values = Values(rng)

    def a_verb() -> str:
        return values.word("made_verb") if rng.random() < 0.4 else rng.choice(halves(_VERBS)[0])

    def a_thing() -> str:
        return values.word("made_thing") if rng.random() < 0.7 else rng.choice(halves(_THINGS)[0])

    pairs = [(a_verb(), a_thing())]
    while len(pairs) < n:
        verb, thing = rng.choice(pairs)
        kind = rng.randrange(4)
        pair = (verb if kind == 0 else a_verb(), thing if kind == 1 else a_thing())
        if pair not in pairs and _name(*pair) not in _real():
            pairs.append(pair)
    things_named = [thing for _, thing in pairs]
    # A setting or a switch of a thing could be meant by many words: it has its thing for itself.
    return [
        rng.choice(_SHAPES)(rng, thing)
        if things_named.count(thing) == 1 and rng.random() < 0.5
        else _tool(rng, verb.split("|"), thing)
        for verb, thing in pairs
    ]


def _name(verb: str, thing: str) -> str:
    """`verb` may be several words for the same, the first gives the name."""
    return f"{verb.partition('|')[0]}_{thing}".replace(" ", "_")


@cache
def _real() -> frozenset[str]:
    return frozenset(t.name for t in (*taught(), *unseen()))


def _tool(rng: random.Random, verbs: list[str], thing: str) -> Tool:
    chosen = rng.sample(_PARAMETERS, rng.choice([0, 1, 1, 1, 2, 2, 2, 3]))
    # What can hold anything comes last, where its end is the end of the request.
    chosen.sort(key=lambda row: row[0] in ("text", "issue", "parts", "members"))
    parameters: list[Parameter] = []
    ways: list[str] = []
    needed: list[bool] = []
    for row, kind, about, values, said in chosen:
        name = rng.choice((row, row, *_ALSO.get(row, ())))
        if rng.random() < 0.12:
            name = rng.choice((Values(rng).word("made_thing"), f"{Values(rng).word('noun')}_{name}")).replace(" ", "_")
        if name in [p.name for p in parameters]:
            name = row
        required = rng.random() < 0.55
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
    starts = (
        f"{verb} the {thing}", f"{verb} the {thing}", f"{verb} my {thing}", f"{verb} {thing}",
        f"(I want to|I would like to|I need to|we have to|let us|it is time to) {verb} the {thing}",
        f"(would it be possible to|is it possible to|it would be good to|do not forget to) {verb} the {thing}",
    )  # fmt: skip
    whole = "".join(ways)
    missing = [
        start + "".join(w for j, w in enumerate(ways) if j != i and not w.startswith(":"))
        for i, need in enumerate(needed)
        if need
        for start in starts[:1]
    ]
    article = rng.choice(("the", "a"))
    if rng.random() < 0.3:
        rng.shuffle(parameters)  # people do not speak in the order of a schema
    return Tool(
        _name(verbs[0], thing),
        f"{rng.choice(verbs).capitalize()} {article} {thing}.",
        tuple(parameters),
        "invented",
        tuple(start + whole for start in starts),
        (),
        tuple(missing),
    )


_QUALITIES = (
    ("speed", "metres per second", "0.1..9/0.1"), ("height", "centimetres", "1..300"),
    ("pressure", "bar", "0.5..12/0.1"), ("angle", "degrees", "0..180"), ("level", "percent", "0..100"),
    ("power", "watts", "5..2000/5"), ("depth", "metres", "1..80"), ("interval", "seconds", "1..600"),
    ("flow", "litres", "0.5..40/0.5"), ("temperature", "degrees", "4..95"), ("weight", "kilos", "1..250"),
    ("voltage", "volts", "1..48"),
)  # fmt: skip
_STATES = (
    ("on", "off"), ("open", "closed"), ("up", "down"), ("active", "idle"), ("red", "green"), ("high", "low"),
    ("left", "right", "middle"), ("slow", "medium", "fast"), ("public", "private"), ("morning", "noon", "evening"),
    ("quiet", "loud"), ("full", "half", "empty"), ("warm", "cold"), ("locked", "free"), ("A", "B", "C"),
)  # fmt: skip
_ACTIONS = (
    ("open", "close"), ("start", "stop"), ("raise", "lower"), ("accept", "decline"), ("show", "hide"),
    ("lock", "release"), ("pause", "resume"), ("allow", "forbid"), ("enable", "disable"), ("fill", "drain"),
)  # fmt: skip
_PLURALS = ("litres of", "pieces of", "boxes of", "metres of", "bags of", "kilos of")


def _setting(rng: random.Random, thing: str) -> Tool:
    """The speed of the crane, in metres per second; sometimes of one crane of several."""
    quality, unit, values = rng.choice(_QUALITIES)
    kind = "number" if "." in values.replace("..", "") or rng.random() < 0.3 else "integer"
    amount = Parameter(rng.choice((quality, "value", unit.replace(" ", "_"))), kind, f"in {unit}", True, values)
    plain = thing.replace(" ", "_")
    value, which = "{" + amount.name + "}", rng.choice(("", "", " {" + plain + "}", " number {" + plain + "}"))
    one = Parameter(plain, "integer", f"which {thing}", True, "1..30")
    said = (
        f"(set|change|bring|adjust) the {quality} of {'the ' if not which else ''}{thing}{which} to {value}[ {unit}]",
        f"(set|put|run) {'the ' if not which else ''}{thing}{which} (to|at) {value} {unit}",
        f"I (want|need|would like) {'the ' if not which else ''}{thing}{which} at {value} {unit}",
        f"{'the ' if not which else ''}{thing}{which} (should be at|should have|needs) {value} {unit}",
    )
    name = rng.choice((f"set_{plain}_{quality}", f"{plain}_{quality}", f"set_{plain}"))
    about = rng.choice((f"Set the {quality} of a {thing}", f"Change the {quality} of the {thing}", f"Adjust a {thing}"))
    missing = f"(set|change) the {quality} of {'the ' if not which else ''}{thing}{which}"
    return Tool(name, about, (one, amount) if which else (amount,), "invented", said, (), (missing,))


def _switch(rng: random.Random, thing: str) -> Tool:
    """A thing with a few states, or a few things to do with it."""
    plain = thing.replace(" ", "_")
    if rng.random() < 0.5:
        states = rng.choice(_STATES)
        state = rng.choice(("state", "mode", "position", "program"))
        said = [
            f"(set|put|turn|switch) the {thing} (to |){{{state}}}", f"I (want|would like) the {thing} {{{state}}}",
            f"the {thing} (should be|must be|needs to be) {{{state}}}", f"make the {thing} {{{state}}}",
            f"change the {thing} to {{{state}}}",
        ]  # fmt: skip
        missing, about = f"change the {thing}", rng.choice((f"Set the {thing}", f"Choose how the {thing} is"))
    else:
        states, state = rng.choice(_ACTIONS), rng.choice(("action", "command", "what"))
        said = [
            f"{{{state}}} the {thing}", f"please {{{state}}} the {thing}", f"I want to {{{state}}} the {thing}",
            f"(can you|could you|would you) {{{state}}} the {thing}", f"{{{state}}} my {thing}",
        ]  # fmt: skip
        missing = f"do something with the {thing}"
        about = f"{states[0].capitalize()} or {states[1]} the {thing}"
    if rng.random() < 0.25 and len(states) == 2:
        yes, no = states[0], states[1]
        said = [p.replace(f"{{{state}}}", f"{{{state}:{yes}=true/{no}=false}}") for p in said]
        parameter = Parameter(state, "boolean", f"true for {yes}, false for {no}", True, "")
    else:
        parameter = Parameter(state, "string", rng.choice(("which", "what it should be", "")), True, "", states)
    return Tool(
        rng.choice((f"set_{plain}", plain, f"{plain}_control")),
        about,
        (parameter,),
        "invented",
        tuple(said),
        (),
        (missing,),
    )


def _handing(rng: random.Random, thing: str) -> Tool:
    """A thing, by its name or number, that goes to somebody."""
    verb, to = rng.choice(
        (("give", "to"), ("lend", "to"), ("forward", "to"), ("offer", "to"), ("pass", "to"), ("move", "into"))
    )
    kind, values = rng.choice(
        (("integer", "1..9000"), ("string", "@code"), ("string", "@title"), ("string", "@project"))
    )
    one = Parameter(rng.choice((thing.replace(" ", "_"), "id", "which", "name")), kind, f"which {thing}", True, values)
    target = "@name" if to == "to" else rng.choice(("@folder", "@room", "@city"))
    who = Parameter(rng.choice(("person", "to", "receiver", "target")), "string", "where it goes", True, target)
    a, b = "{" + one.name + "}", "{" + who.name + "}"
    said = [
        f"{verb} (the |){thing} {a} {to} {b}", f"(the |){thing} {a} (should go|goes|must go) {to} {b}",
        f"I want to {verb} {thing} {a} {to} {b}",
    ]  # fmt: skip
    if to == "to":
        said += [f"{b} (gets|should get|needs|receives) {thing} {a}", f"{verb} {b} (the |){thing} {a}"]
    parameters = [one, who]
    if rng.random() < 0.3:
        parameters.append(Parameter("amount", "number", "how much", False, "1..200/0.5"))
        unit = rng.choice(_PLURALS)
        said = [f"{verb} {{amount}} {unit} {thing} {a} {to} {b}", *said]
    order = parameters if rng.random() < 0.6 else parameters[::-1]
    return Tool(
        _name(verb, thing), f"{verb.capitalize()} a {thing}{rng.choice(('', ' somewhere else', ' to somebody'))}",
        tuple(order), "invented", tuple(said), (), (f"{verb} {thing} {a}",),
    )  # fmt: skip


_SHAPES = (_setting, _switch, _handing)
