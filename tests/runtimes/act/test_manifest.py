import json
from datetime import date

import pytest

from edge.errors import InputError, UsageError
from edge.find import load, names
from edge.runtimes.act import manifest, schema

PATH = {"type": "string", "format": "path"}
LAMP = {
    "description": "Switch a lamp.",
    "risk": "write",
    "command": ["/bin/echo", "{room}"],
    "parameters": {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]},
}


def parsed(folder, **about):
    return manifest.parse({"tools": {"lamp": {**LAMP, **about}}}, folder=folder, where="home.toml").tools["lamp"]


def test_toml_and_json_say_the_same(tmp_path):
    (tmp_path / "home.toml").write_text(
        '[tools.lamp]\ndescription = "Switch a lamp."\nrisk = "write"\ncommand = ["/bin/echo", "{room}"]\n'
        'rate = "20/minute"\npaths = { read = ["data"] }\n'
        '[tools.lamp.parameters]\nproperties.room = { type = "string" }\nrequired = ["room"]\n'
    )
    same = {"tools": {"lamp": {**LAMP, "rate": "20/minute", "paths": {"read": ["data"]}}}}
    (tmp_path / "home.json").write_text(json.dumps(same))
    tool = manifest.read(tmp_path / "home.toml").tools["lamp"]
    assert tool == manifest.read(tmp_path / "home.json").tools["lamp"]
    assert tool.rate == manifest.Rate(20, 60.0)
    assert tool.paths.read == (str(tmp_path / "data"),)
    assert not tool.idempotent


def test_a_tool_is_shown_to_templates_as_a_function_that_takes_nothing_else(tmp_path):
    function = parsed(tmp_path).function()
    assert function["type"] == "function"
    assert function["function"]["name"] == "lamp"
    assert function["function"]["parameters"]["additionalProperties"] is False


@pytest.mark.parametrize("name", names(manifest.TOOLSETS))
def test_every_built_in_set_is_a_manifest_of_functions_that_are_there(name):
    tools = manifest.read(name).tools
    functions = {f.__name__ for f in load(manifest.TOOLSETS, name).FUNCTIONS}
    assert {tool.run.function for tool in tools.values()} == functions


def test_a_set_can_be_given_its_folder(tmp_path):
    data = {"toolsets": {"files": {"folder": "notes"}}}
    tools = manifest.parse(data, folder=tmp_path, where="home.toml").tools
    assert tools["read_file"].run.settings["folder"] == str(tmp_path / "notes")
    assert manifest.read(f"files:{tmp_path}").tools["read_file"].run.settings["folder"] == str(tmp_path)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"risk": "none"}, "risk must be one of read, write, execute, not 'none'"),
        ({"builtin": "files.read_file"}, "exactly one way how it is run .*, not 2"),
        ({"description": " "}, "needs a description"),
        ({"timeout_s": 0}, "timeout_s must be a number above 0, not 0"),
        ({"memory_bytes": 1.5}, "memory_bytes must be a whole number above 0"),
        ({"network": "yes"}, "network must be true or false"),
        ({"trusted": True}, "only a tool of risk read can be trusted"),
        ({"rate": "often"}, "rate must be like '10/minute'"),
        ({"paths": ["/tmp"]}, "paths must be a table"),
        ({"paths": {"read": "/tmp"}}, "paths.read must be a list of paths"),
        ({"paths": {"run": []}}, "unknown key 'run'"),
        ({"parameters": {"type": "string"}}, "must be a JSON Schema with type object"),
        ({"parameters": {"room": {"type": "string"}}}, "have 'room', which is no word of JSON Schema"),
        ({"parameters": {"properties": {"a": {"type": "text"}}}}, "no JSON Schema: 'text' is not valid"),
        ({"parameters": {"properties": {"a": {"$ref": "file:///x"}}}}, "refer to another document"),
        ({"parameters": {"properties": {"a": {"$ref": "#/$defs/b"}}}}, r"refer to '#/\$defs/b', which is not there"),
        ({"parameters": {"properties": {"a": {"default": date(2026, 1, 1)}}}}, "parameters are no JSON: .*date"),
        ({"parameters": {"properties": {"a": {"format": "path"}}}}, 'format = "path" holds nothing at a'),
        ({"parameters": {"properties": {"a": {"items": PATH}}}}, 'format = "path" holds nothing at a'),
        ({"parameters": {"$defs": {"b": PATH}}}, 'format = "path" holds nothing at a part of the schema'),
        ({"command": []}, "command must be a list of words"),
        ({"command": ["{room}"]}, "which program is run cannot be an argument"),
        ({"command": {"argv": ["a"], "shell": True}}, "unknown key 'shell' in command"),
        ({"command": {"argv": ["a"], "env": {"A": 1}}}, "env of command must be a table of texts"),
        ({"command": {"argv": ["a"], "stdin": "text"}}, "stdin of command can only be 'json'"),
    ],
)
def test_a_tool_that_makes_no_sense_is_named(tmp_path, about, words):
    with pytest.raises(InputError, match=f"home.toml: tool 'lamp'.*{words}"):
        parsed(tmp_path, **about)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"paths": {"read": ["/data"]}}, "paths holds programs, and not what is run by builtin"),
        ({"network": False}, "network holds programs, and not what is run by builtin"),
        ({"memory_bytes": 1}, "memory_bytes holds programs, and not what is run by builtin"),
        ({"parameters": {"properties": {"path": PATH}}}, 'format = "path" holds nothing at path'),
    ],
)
def test_bounds_that_would_hold_nothing_are_refused(tmp_path, about, words):
    data = {"description": "x", "risk": "read", "builtin": "files.read_file", **about}
    with pytest.raises(InputError, match=words):
        manifest.parse({"tools": {"a": data}}, folder=tmp_path, where="home.toml")


def test_a_servers_own_schema_may_speak_of_paths(tmp_path):
    about = {
        "description": "x",
        "risk": "read",
        "mcp": {"server": "s", "tool": "t"},
        "parameters": {"properties": {"a": PATH}},
    }
    data = {"servers": {"s": {"command": ["a"]}}, "tools": {"a": about}}
    assert manifest.parse(data, folder=tmp_path, where="x").tools["a"].kind == "mcp"
    with pytest.raises(InputError, match=r"network holds programs, and not what is run by mcp\n  say it of the server"):
        manifest.parse({**data, "tools": {"a": {**about, "network": True}}}, folder=tmp_path, where="x")


def test_a_path_is_held_where_it_is_an_argument_of_a_program(tmp_path):
    parameters = {"properties": {"a": PATH, "b": {"$ref": "#/properties/c/items"}, "c": {"items": {"type": "string"}}}}
    assert parsed(tmp_path, parameters=parameters).parameters["properties"]["a"] == PATH


def test_a_home_that_is_nobodys_is_a_folder_that_is_not_there(tmp_path):
    made = manifest.parse({"toolsets": {"files": {"folder": "~nobody-here/x"}}}, folder=tmp_path, where="x")
    assert made.tools["read_file"].run.settings["folder"] == str(tmp_path / "~nobody-here/x")
    with pytest.raises(UsageError, match="there is no tool manifest ~nobody-here/x"):
        manifest.read("~nobody-here/x")


@pytest.mark.parametrize(
    ("builtin", "words"),
    [
        ("files", "builtin must be like 'files.read_file'"),
        ("files.os", "files has no function 'os'"),
        ({"function": "files.read_file", "root": "/"}, "files has no setting 'root'"),
    ],
)
def test_a_built_in_function_that_is_not_there_is_named(tmp_path, builtin, words):
    about = {"description": "x", "risk": "read", "builtin": builtin}
    with pytest.raises(InputError, match=words):
        manifest.parse({"tools": {"a": about}}, folder=tmp_path, where="home.toml")


@pytest.mark.parametrize(
    "properties",
    [
        {"a": False},
        {"a": {"enum": []}},
        {"a": {"minimum": 3, "maximum": 2}},
        {"a": {"minLength": 3, "maxLength": 2}},
        {"a": {"type": "string", "enum": [1, 2]}},
        {"a": {"type": "integer", "const": "x"}},
        {"a": {"not": {}}},
        {"a": {"anyOf": [False, {"minimum": 2, "maximum": 1}]}},
        {"a": {"allOf": [{"type": "string"}, False]}},
        {"a": {"type": "array", "minItems": 1, "items": False}},
        {"b": {}},
    ],
)
def test_a_schema_that_admits_nothing_is_refused(tmp_path, properties):
    with pytest.raises(InputError, match=r"its parameters admit nothing|no JSON Schema"):
        parsed(tmp_path, parameters={"type": "object", "properties": properties, "required": ["a"]})


def test_a_schema_that_admits_something_is_not(tmp_path):
    properties = {
        "a": {"type": ["string", "null"], "enum": [None, "x"]},
        "b": False,
        "c": {"anyOf": [False, {"type": "integer", "minimum": 1, "maximum": 1}]},
    }
    schema_ = {"type": "object", "properties": properties, "required": ["a", "c"]}
    assert parsed(tmp_path, parameters=schema_).parameters["required"] == ["a", "c"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "it holds no table"),
        ({"tool": {}}, "unknown key 'tool'"),
        ({"tools": []}, "tools must be a table of names"),
        ({"tools": {"a": 1}}, "tools.a must be a table"),
        ({"toolsets": {"files": 1}}, "toolsets.files must be a table"),
        ({"toolsets": {"files": {"root": "/"}}}, "unknown key 'root'"),
        ({"toolsets": {"files": {"folder": 3}}}, "folder of files must be a text, not 3"),
        ({"toolsets": {"timers": {"ring": "bell"}}}, "ring of timers must be a list, not 'bell'"),
        ({"toolsets": {"gpio": {"pins": [1]}}}, "pins of gpio must be a table, not"),
        ({}, "names no tools"),
        ({"tools": {"a b": LAMP}}, "a name has letters"),
        ({"toolsets": {"files": {}}, "tools": {"read_file": LAMP}}, "two tools called 'read_file'"),
        ({"tools": {"a": {"mcp": {"server": "x", "tool": "y"}}}}, r"there is no \[servers.x\]"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_named(tmp_path, data, words):
    with pytest.raises(InputError, match=words):
        manifest.parse(data, folder=tmp_path, where="home.toml")


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(UsageError, match=r"there is no tool manifest nowhere.toml"):
        manifest.read("nowhere.toml")
    with pytest.raises(UsageError, match="unknown toolset 'nope'"):
        manifest.parse({"toolsets": {"nope": {}}}, folder=tmp_path, where="home.toml")
    path = tmp_path / "home.json"
    path.write_text("{")
    with pytest.raises(InputError, match="is no tool manifest"):
        manifest.read(path)
    path.write_text('{"tools": {"a": {}, "a": {}}}')
    with pytest.raises(InputError, match="the name 'a' stands there twice"):
        manifest.read(path)
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is no tool manifest"):
        manifest.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="is no tool manifest"):
        manifest.read(path)
    path.write_bytes(b" " * (5 << 20))
    with pytest.raises(InputError, match="which no tool manifest has"):
        manifest.read(path)


def test_manifests_are_joined_when_no_name_is_in_two(tmp_path):
    one = manifest.parse({"tools": {"lamp": LAMP}}, folder=tmp_path, where="home.toml")
    assert set(manifest.join([one, manifest.read("files")]).tools) > {"lamp", "read_file"}
    with pytest.raises(InputError, match="two tools called 'lamp'"):
        manifest.join([one, one])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "'room' is a required property"),
        ({"room": 1}, r"arguments.room: 1 is not of type 'string'"),
        ({"room": "a", "state": "on"}, "'state' was unexpected"),
        ({"room": float("nan")}, "no JSON"),
        ({"room": "\ud800"}, "no JSON"),
        ({"room": "a\0b"}, "zero byte"),
        ({"room": "a" * 70_000}, "more than 65536 bytes"),
        ({"room": {1, 2}}, "no JSON"),
    ],
)
def test_arguments_are_held_against_the_schema(tmp_path, arguments, words):
    import re

    assert re.search(words, schema.wrong(arguments, parsed(tmp_path).parameters))
    assert schema.wrong({"room": "kitchen"}, parsed(tmp_path).parameters) is None


def test_a_schema_that_goes_round_in_circles_lets_nothing_through(tmp_path):
    round_ = parsed(tmp_path, parameters={"properties": {"a": {"$ref": "#/properties/a"}}}).parameters
    assert schema.wrong({"a": 1}, round_) == "the arguments or their schema are nested too deeply"
    lost = parsed(tmp_path, parameters={"properties": {"a": {"$ref": "#nowhere"}}}).parameters
    assert schema.wrong({"a": 1}, lost).startswith("their schema refers to nothing: ")
