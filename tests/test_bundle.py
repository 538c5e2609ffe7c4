import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.errors import EdgeError, InputError, UsageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    bundle = Bundle(
        name="tiny", family="slm", format="echo", quantization="none", model_file="model.bin", context_length=64,
        vocab_size=256, stop_ids=(0,), source={"model.bin": "x"}, files=bundles.list_files(tmp_path), proven=False,
    )  # fmt: skip
    bundles.write(bundle, tmp_path)
    return tmp_path


def change(folder, **values):
    path = folder / bundles.MANIFEST
    data = json.loads(path.read_text())
    data.update(values)
    path.write_text(json.dumps(data))


def test_round_trip_keeps_every_field_and_the_id(folder):
    bundle = bundles.read(folder)
    assert bundles.parse(json.loads(bundles.to_json(bundle)), "x") == bundle
    assert bundles.check(folder).id == bundle.id
    assert dataclasses.replace(bundle, name="other").id != bundle.id


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(UsageError, match="is not a bundle"):
        bundles.read(tmp_path)


def test_damage_is_named(folder):
    (folder / "model.bin").write_bytes(b"weightz")
    with pytest.raises(InputError, match=r"model\.bin is damaged: its sha256"):
        bundles.check(folder)
    (folder / "model.bin").write_bytes(b"short")
    with pytest.raises(InputError, match="5 bytes, the manifest says 7"):
        bundles.check(folder)
    (folder / "model.bin").unlink()
    with pytest.raises(InputError, match="missing from the bundle"):
        bundles.check(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\\b", "a\nb", "", "C:x", "a//b", "./a"])
def test_paths_stay_inside_the_bundle(folder, name):
    change(folder, files=[{"path": name, "size_bytes": 1, "sha256": ""}])
    with pytest.raises(InputError, match="outside its bundle"):
        bundles.read(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"schema_version": 99}, "manifest schema 99"),
        ({"surprise": 1}, "unknown keys: surprise"),
        ({"context_length": "many"}, "is damaged"),
        ({"context_length": float("inf")}, "is damaged"),
        ({"files": [{"path": "a", "size_bytes": float("inf"), "sha256": ""}]}, "is damaged"),
        ({"model_file": "other"}, "not among its files"),
        ({"name": 3}, "name is not text"),
        ({"name": "\x1b[2J"}, "name is not text"),
        ({"memory": 5}, "memory is no table"),
        ({"memory": None}, "memory is no table"),
        ({"source": []}, "source is no table"),
        ({"quality": "good"}, "quality is no table"),
        ({"memory": {"weights_bytes": "many"}}, "memory has no number for weights_bytes"),
        ({"memory": {"weights_bytes": -1}}, "memory has no number for weights_bytes"),
        ({"parts": {"vision": 3}}, "no map from a part to its file"),
        ({"parts": {"vision": "other"}}, "its vision file 'other' is not among its files"),
        ({"files": [{"path": p, "size_bytes": 1, "sha256": ""} for p in ("a", "A")]}, "names a file twice"),
    ],
)
def test_a_wrong_manifest_is_refused(folder, values, words):
    change(folder, **values)
    with pytest.raises(InputError, match=words):
        bundles.read(folder)


def test_missing_keys_and_broken_json(folder):
    path = folder / bundles.MANIFEST
    data = json.loads(path.read_text())
    del data["format"]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="lacks format"):
        bundles.read(folder)
    path.write_text("[]")
    with pytest.raises(InputError, match="wanted an object, found list"):
        bundles.read(folder)
    path.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        bundles.read(folder)
    with path.open("wb") as f:
        f.truncate(17 << 20)
    with pytest.raises(InputError, match="larger than a manifest can be"):
        bundles.read(folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Bundle)]), json_values))
def test_any_json_parses_or_is_refused(data):
    try:
        bundles.parse({"schema_version": 1, **data}, "x")
    except EdgeError:
        pass
