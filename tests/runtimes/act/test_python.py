import pytest

from edge.errors import InputError
from edge.runtimes.act import manifest
from edge.runtimes.act.executors import python

MODULE = """
import os, sys, time
print("printed while it is imported")
def add(a, b): print("printed"); return a + b
def hello(name="you"): return f"hello {name}"
def fail(): raise ValueError("no\\nink")
def hang(): time.sleep(60)
def leave(): os._exit(4)
def odd(): return {1, 2}
"""


@pytest.fixture
def call(tmp_path):
    (tmp_path / "ours.py").write_text(MODULE)

    def make(function, arguments=None, **about):
        about = {"description": "x", "risk": "read", "python": f"ours:{function}", "timeout_s": 20, **about}
        made = manifest.parse({"tools": {"a": about}}, folder=tmp_path, where="home.toml")
        return python.run(made.tools["a"], arguments or {}, None)

    return make


def test_what_a_function_returns_is_the_answer(call):
    assert call("add", {"a": 2, "b": 3}).output == b"5"
    assert call("hello").output == b"hello you"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fail", "it ended with exit code 1: ValueError: no ink"),
        ("missing", "AttributeError: module 'ours' has no attribute 'missing'"),
        ("leave", "it ended with exit code 4"),
        ("odd", "TypeError: Object of type set is not JSON serializable"),
    ],
)
def test_one_that_fails_says_why_in_a_line(call, function, words):
    ran = call(function)
    assert not ran.ok
    assert words in ran.why


def test_one_that_hangs_is_stopped(call):
    assert call("hang", timeout_s=1).why == "it was stopped after 1 s without having ended"


def test_what_would_be_done():
    spec = python.read("a.b:c", folder="/", where="x")
    assert python.describe(spec, {"x": 1}) == 'call a.b:c {"x":1}'


@pytest.mark.parametrize("value", ["a", "a:b()", "a.b.c", 3, "os:system; x"])
def test_what_is_no_function(value):
    with pytest.raises(InputError, match="python must be like 'module:function'"):
        python.read(value, folder="/", where="x")
