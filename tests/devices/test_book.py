"""The device file: names, groups, and what is wrong with it."""

import pytest

from edge.devices import book
from edge.errors import InputError, UsageError

TEXT = """
[kitchen]
address = "memory:"
groups = ["home"]
root = "/srv/edge store"
python = "/opt/python"
[porch]
address = "ssh://pi@porch"
groups = ["home", "outside"]
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "devices.toml"
    path.write_text(TEXT)
    monkeypatch.setenv("EDGE_DEVICES", str(path))
    return path


def names(*args, **options):
    return [t.name for t in book.find(args, **options)]


def test_names_addresses_groups_and_all(file):
    assert names("kitchen", "local", "kitchen") == ["kitchen", "local"]
    assert names(every=True) == ["kitchen", "porch"]
    assert names(group="outside") == ["porch"]


def test_what_is_set_for_a_device_holds(file):
    device = book.find(["kitchen"])[0].connect()
    assert (device.root, device.python) == ("/srv/edge store", "/opt/python")


def test_nothing_is_meant(file):
    with pytest.raises(UsageError, match="no device was given"):
        book.find([])
    with pytest.raises(UsageError, match="has no device of group 'x'"):
        book.find([], group="x")
    with pytest.raises(UsageError, match="give devices, or --all"):
        book.find(["kitchen"], every=True)
    file.unlink()
    with pytest.raises(UsageError, match="has no devices"):
        book.find([], every=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a", "is no TOML"),
        ("[a]", "lacks its address"),
        ("a = 1", "lacks its address"),
        ('[a]\naddress = "local"\nport = 3', r"\[a\] has port = 3"),
        ('[a]\naddress = "local"\ngroups = "home"', "has groups = 'home'"),
    ],
)
def test_a_file_that_makes_no_sense(file, text, words):
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        book.read()
