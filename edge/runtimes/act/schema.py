"""JSON Schemas of tools: sound, closed, satisfiable; and arguments held against them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from edge.errors import InputError, require

ARGUMENTS_LIMIT_BYTES = 64 << 10
_BOUNDS = (
    ("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"),
)  # fmt: skip


def closed(schema: Any, where: str) -> dict[str, Any]:
    """The parameters of a tool as an object that takes no arguments but those it names.

    Raises `InputError` when it is no JSON Schema of an object, refers to another document, or admits nothing.
    """
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise InputError(f"{where}: parameters must be a JSON Schema with type object, not {_short(schema)}")
    require("jsonschema", extra="act", purpose="reading tools")
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except (jsonschema.SchemaError, RecursionError) as err:
        said = err.message if isinstance(err, jsonschema.SchemaError) else "it is nested too deeply"
        raise InputError(f"{where}: parameters are no JSON Schema: {said}") from err
    try:
        canonical(schema)
    except (ValueError, TypeError) as err:  # TOML has dates, and JSON has none
        raise InputError(f"{where}: parameters are no JSON: {err}", hint="put it between quotation marks") from err
    for key, value in _pairs(schema):
        if key not in ("$ref", "$dynamicRef") or not isinstance(value, str):
            continue
        if not value.startswith("#"):
            raise InputError(f"{where}: parameters refer to another document, {value!r}: write it out")
        if not _leads_somewhere(value, schema):
            raise InputError(f"{where}: parameters refer to {value!r}, which is not there")
    if stray := _argument_outside(schema):
        raise InputError(
            f"{where}: parameters have {stray!r}, which is no word of JSON Schema",
            hint=f"an argument of that name stands below properties: parameters.properties.{stray}",
        )
    full = {"additionalProperties": False, **schema, "type": "object"}
    full.setdefault("properties", {})
    if why := empty(full):
        raise InputError(f"{where}: its parameters admit nothing: {why}", hint="no call of this tool could be right")
    return full


def _argument_outside(schema: Mapping[str, Any]) -> str | None:
    """The name of an argument that was written where the words of the schema stand, and would be ignored."""
    import jsonschema

    known = {*jsonschema.Draft202012Validator.VALIDATORS, "definitions", "default", "example"}
    if "properties" in schema:
        return None
    return next(
        (
            name
            for name, value in schema.items()
            if name not in known and not name.startswith(("$", "x-"))
            and isinstance(value, dict) and {"type", "enum", "description"} & value.keys()
        ),
        None,
    )  # fmt: skip


def wrong(arguments: Any, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with `arguments`, in one sentence; None when they fit `schema`."""
    try:
        text = canonical(arguments)
    except (ValueError, TypeError, RecursionError) as err:
        return f"the arguments are no JSON: {err}"
    if len(text.encode()) > ARGUMENTS_LIMIT_BYTES:
        return f"the arguments have more than {ARGUMENTS_LIMIT_BYTES} bytes"
    if "\\u0000" in text:
        return "the arguments hold a zero byte"
    import jsonschema
    from referencing.exceptions import Unresolvable

    found = jsonschema.Draft202012Validator(schema).iter_errors(json.loads(text))
    try:
        for error in sorted(found, key=lambda e: e.json_path):
            return f"{error.json_path.replace('$', 'arguments', 1)}: {_short(error.message)}"
    except RecursionError:
        return "the arguments or their schema are nested too deeply"
    except Unresolvable as err:
        return f"their schema refers to nothing: {_short(str(err))}"
    return None


def path_out_of_reach(schema: Mapping[str, Any], *, reached: bool) -> str | None:
    """Where `format = "path"` stands and is not looked at: beneath the properties, or anywhere when not `reached`."""
    for name, about in schema.get("properties", {}).items():
        own = isinstance(about, dict) and about.get("format") == "path"
        beneath = {k: v for k, v in about.items() if k != "format" or not reached} if own else about
        if ("format", "path") in _pairs({"": beneath}) or (own and about.get("type") != "string"):
            return str(name)
    rest = {key: value for key, value in schema.items() if key != "properties"}
    return "a part of the schema" if ("format", "path") in _pairs(rest) else None


def canonical(value: Any) -> str:
    """The one JSON text of `value`: what a grant is bound to. Raises `ValueError` for what JSON cannot say."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    text.encode("utf-8")  # a lone surrogate is no text
    return text


def empty(schema: Any, *, depth: int = 0) -> str | None:
    """Why no value at all fits `schema`, as far as it can be told from the schema alone; None if one may."""
    if schema is False:
        return "it is false"
    if not isinstance(schema, dict) or depth > 32:
        return None
    if schema.get("enum", [0]) == []:
        return "its enum has no values"
    if schema.get("type", "any") == []:
        return "its type is an empty list"
    if schema.get("not", False) in (True, {}):
        return "it excludes everything"
    for low, high in _BOUNDS:
        if low in schema and high in schema and schema[low] > schema[high]:
            return f"{low} {schema[low]} is above {high} {schema[high]}"
    options = schema.get("enum", [schema["const"]] if "const" in schema else [])
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if options and kinds and not any(_is(kind, value) for kind in kinds for value in options):
        return f"none of {_short(options)} is of type {' or '.join(kinds)}"
    for part in schema.get("allOf", []):
        if why := empty(part, depth=depth + 1):
            return why
    for key in ("anyOf", "oneOf"):
        whys = [empty(part, depth=depth + 1) for part in schema.get(key, [])]
        if whys and all(whys):
            return f"nothing in {key}: {whys[0]}"
    if schema.get("minItems", 0) > 0 and (why := empty(schema.get("items", True), depth=depth + 1)):
        return f"items: {why}"
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in properties and schema.get("additionalProperties") is False and "patternProperties" not in schema:
            return f"{name!r} is required, but is no property"
        if why := empty(properties.get(name, True), depth=depth + 1):
            return f"{name!r}: {why}"
    return None


def _is(kind: str, value: Any) -> bool:
    if kind in ("integer", "number"):
        whole = isinstance(value, int) or (isinstance(value, float) and (kind == "number" or value.is_integer()))
        return whole and not isinstance(value, bool)
    kinds = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}
    return isinstance(value, kinds[kind])


def _leads_somewhere(ref: str, schema: Any) -> bool:
    """Whether `#/$defs/room` is there. What refers to a name is found out when it is used."""
    if any(key == "$id" for key, _ in _pairs(schema)):
        return True
    at = schema
    for part in ref.split("/")[1:] if ref.startswith("#/") else ():
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and key.isdecimal() and int(key) < len(at):
            at = at[int(key)]
        elif isinstance(at, dict) and key in at:
            at = at[key]
        else:
            return False
    return True


def _pairs(value: Any) -> list[tuple[str, Any]]:
    """Every key with its value, at all depths."""
    if isinstance(value, dict):
        return [*value.items(), *(pair for part in value.values() for pair in _pairs(part))]
    return [pair for part in value for pair in _pairs(part)] if isinstance(value, list) else []


def _short(value: Any, most: int = 200) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
