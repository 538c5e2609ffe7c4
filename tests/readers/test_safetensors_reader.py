"""safetensors headers: sizes that fit, no gaps, no overlaps; anything else is an InputError."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from edge.readers import safetensors as reader

GOOD = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
}


def file(header: object, n_data: int = 22, n: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if n is None else n).to_bytes(8, "little") + raw + bytes(n_data)


def read(tmp_path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return reader.read_header(path)


def changed(**row: object) -> bytes:
    return file({**GOOD, "b": {**GOOD["b"], **row}})


def test_what_a_small_file_says(tmp_path):
    header = read(tmp_path, file(GOOD))
    assert header.metadata == {"format": "pt"}
    assert header.tensors["a"].end == header.tensors["b"].begin
    assert (header.tensors["b"].dtype, header.tensors["b"].shape) == ("BF16", (3,))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not fit"),
        (file(GOOD, n=1 << 63), "does not fit"),
        (file(GOOD)[:40], "does not fit"),
        (file(b"{nonsense"), "is not JSON"),
        (file(b"[" * 100_000), "is not JSON"),
        (file(b"\xff\xfe"), "is not JSON"),
        (file([1]), "is not an object"),
        (file({"__metadata__": 1}), "its metadata is not an object"),
        (file(b'{"a": 1, "a": 2}'), "a key twice"),
        (file({"a": {"dtype": "F32"}}), "'a' is not complete"),
        (file({"a": 7}), "'a' is not complete"),
        (changed(dtype="F99"), "unknown type, shape or offset"),
        (changed(shape=[-3]), "unknown type, shape or offset"),
        (changed(shape=[3.0]), "unknown type, shape or offset"),
        (changed(shape=[True, 3]), "unknown type, shape or offset"),
        (changed(shape=[1] * 17 + [3]), "unknown type, shape or offset"),
        (changed(shape=[4]), "'b' has 6 bytes, its shape needs 8"),
        (changed(shape=[1 << 62, 1 << 62]), "its shape needs"),
        (changed(data_offsets=[8, 14]), "overlaps another tensor or leaves a gap"),
        (changed(data_offsets=[17, 23]), "overlaps another tensor or leaves a gap"),
        (file(GOOD, 21), "its tensors end at"),
        (file(GOOD, 23), "its tensors end at"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, content)


@given(data=st.data())
def test_any_damage_is_an_input_error_or_harmless(data, tmp_path_factory):
    good = bytearray(file(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    path.write_bytes(bytes(good[: data.draw(st.integers(0, len(good)))]))
    try:
        reader.read_header(path)
    except InputError:
        pass
