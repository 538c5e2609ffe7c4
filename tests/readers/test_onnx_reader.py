from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from edge.readers import onnx as reader


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number: int, payload: bytes | int) -> bytes:
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def tensor(name: str = "w", dims: tuple[int, ...] = (2, 2), kind: int = 1, **external: str) -> bytes:
    out = b"".join(field(1, d) for d in dims) + field(2, kind) + field(8, name.encode())
    for key, value in external.items():
        out += field(13, field(1, key.encode()) + field(2, value.encode()))
    return out if external else out + field(9, struct.pack("<4f", 1, 2, 3, 4))


def model(*tensors: bytes) -> bytes:
    node = field(1, b"x") + field(4, b"MatMul")
    graph = field(1, node) + b"".join(field(5, t) for t in tensors)
    graph += field(11, field(1, b"x")) + field(12, field(1, b"y"))
    return field(1, 10) + field(8, field(1, b"") + field(2, 21)) + field(7, graph)


def read(tmp_path, content: bytes):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return reader.read(path)


def test_what_a_small_model_says(tmp_path):
    (tmp_path / "data").write_bytes(bytes(32))
    header = read(tmp_path, model(tensor(), tensor("v", location="data", offset="16", length="16")))
    assert header.opset == {"ai.onnx": 21}
    assert header.operators == {"MatMul": 1}
    assert header.inputs == ("x",)
    assert [(t.name, t.type, t.shape, t.n_bytes, t.file) for t in header.tensors] == [
        ("w", "float32", (2, 2), 16, None),
        ("v", "float32", (2, 2), 16, "data"),
    ]
    assert header.facts()["external_files"] == ["data"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be an ONNX model"),
        (b"\x0b\x0b", "no ONNX model, or is damaged"),
        (b"\xff" * 20, "no ONNX model, or is cut short"),
        (field(1, 10), "holds no graph"),
        (varint(7 << 3 | 2) + varint(1 << 62), "a length reaches past the end"),
        (varint(1 << 3 | 1) + b"1", "a number reaches past the end"),
        (model(tensor(), tensor()), "two tensors of one name"),
        (model(tensor(dims=(1 << 40, 1 << 40))), "more than any file holds"),
        (model(tensor(dims=(1,) * 17)), "more than 16 dimensions"),
        (model(tensor(location="../data")), "outside its bundle"),
        (model(tensor(location="/etc/passwd")), "outside its bundle"),
        (model(tensor(location="none")), "which is not there"),
        (model(tensor(location="data", length="3")), "needs 16 bytes, its entry says 3"),
        (model(tensor(location="data", offset="17")), "reaches past the end"),
        (model(tensor(location="data", offset="-1")), "reaches past the end"),
        (model(tensor(location="data", offset="x")), "'x' is no offset"),
        (model(field(8, b"\xff\xfe")), "is damaged"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, content, words):
    (tmp_path / "data").write_bytes(bytes(32))
    with pytest.raises(InputError, match=words):
        read(tmp_path, content)


def test_external_data_behind_a_link_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(32))
    (tmp_path / "data").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="which is not there"):
        read(tmp_path, model(tensor(location="data")))


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="there is no model file"):
        reader.read(tmp_path / "none.onnx")


@given(data=st.data())
def test_any_damage_is_an_input_error_or_harmless(data, tmp_path_factory):
    good = bytearray(model(tensor(), tensor("v")))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "m.onnx"
    path.write_bytes(bytes(good[: data.draw(st.integers(0, len(good)))]))
    try:
        reader.read(path)
    except InputError:
        pass
