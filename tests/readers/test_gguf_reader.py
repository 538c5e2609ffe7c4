"""GGUF headers: what a sound one says, and that no damaged one gets further than an InputError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from edge.readers import gguf as reader


def text(s: str | bytes) -> bytes:
    raw = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def row(name: str, shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(
    keys: list[bytes] | None = None,
    rows: list[bytes] | None = None,
    data: bytes = bytes(128),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_keys: int | None = None,
    n_rows: int | None = None,
) -> bytes:
    keys = [key("general.architecture", 8, text("llama"))] if keys is None else keys
    rows = [row("w")] if rows is None else rows
    head = magic + struct.pack(
        "<IQQ", version, len(rows) if n_rows is None else n_rows, len(keys) if n_keys is None else n_keys
    )
    head += b"".join(keys) + b"".join(rows)
    return head + bytes(-len(head) % 32) + data


def read(tmp_path, content: bytes):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return reader.read_header(path)


def test_what_a_small_file_says(tmp_path):
    numbers = struct.pack("<IQ3i", 5, 3, 1, -2, 3)
    words = struct.pack("<IQ", 8, 2) + text("a") + text("ü")
    header = read(
        tmp_path,
        file(
            [key("a", 4, struct.pack("<I", 7)), key("b", 9, numbers), key("c", 9, words), key("d", 7, b"\x01")],
            [row("w", (4, 8)), row("q", (32, 1), 2, 128)],
            bytes(146),
        ),
    )
    assert dict(header.metadata) == {"a": 7, "b": [1, -2, 3], "c": ["a", "ü"], "d": True}
    assert [(t.name, t.type, t.shape, t.n_elements, t.n_bytes) for t in header.tensors.values()] == [
        ("w", "F32", (4, 8), 32, 128),
        ("q", "Q4_0", (32, 1), 32, 18),
    ]
    assert header.tensors["q"].offset - header.tensors["w"].offset == 128


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ends before its first 4 bytes"),
        (b"GGUF\x03", "ends before 4 bytes"),
        (b"PK\x03\x04 and more", "does not start with the letters GGUF"),
        (file(version=1), "format version 1"),
        (file(n_rows=1 << 63), "9223372036854775808 tensors"),
        (file(n_keys=1 << 63), "9223372036854775808 metadata keys"),
        (file(n_keys=2), "sound GGUF file"),
        (file([key("a", 8, struct.pack("<Q", 1 << 62))]), "bytes of text"),
        (file([key("a", 8, text(b"\xff"))]), "not UTF-8"),
        (file([key("a", 4, bytes(4)), key("a", 4, bytes(4))]), "metadata key 'a' is there twice"),
        (file([key("a", 99, b"")]), "unknown metadata type 99"),
        (file([key("a", 9, struct.pack("<IQ", 4, 1 << 60))]), "array items"),
        (file([key("a", 9, struct.pack("<IQ", 4, 200))]), "ends before"),
        (file([key("a", 9, struct.pack("<IQ", 8, 100))]), "an array of 100 items does not fit"),
        (file([key("a", 9, struct.pack("<IQ", 9, 1))]), "unknown metadata type 9"),
        (file([key("a", 9, struct.pack("<IQQ", 8, 1, 1 << 50))]), "ends inside a list of texts"),
        (file([key("general.alignment", 4, struct.pack("<I", 33))]), "alignment 33 is not a power of two"),
        (file(rows=[row("w"), row("w")]), "tensor 'w' is there twice"),
        (file(rows=[row("w", kind=77)]), "unknown type 77"),
        (file(rows=[row("w", ())]), "has 0 dimensions"),
        (file(rows=[row("w", (1,) * 5)]), "has 5 dimensions"),
        (file(rows=[row("w", (31,), 2)]), r"cannot have the shape \[31\]"),
        (file(rows=[row("w", (1 << 40, 1 << 40))]), "cannot have the shape"),
        (file(rows=[row("w", offset=1)]), "outside the file or is not aligned"),
        (file(rows=[row("w", offset=1 << 62)]), "outside the file or is not aligned"),
        (file(rows=[row("w"), row("v", offset=96)], data=bytes(256)), "'v' overlaps the one before it"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, content)


@given(data=st.data())
def test_any_damage_is_an_input_error_or_harmless(data, tmp_path_factory):
    words = struct.pack("<IQ", 8, 2) + text("a") + text("b")
    good = bytearray(file([key("a", 9, words), key("b", 4, bytes(4))], [row("w"), row("v", offset=128)], bytes(256)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, 160))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    path.write_bytes(bytes(good[: data.draw(st.integers(0, len(good)))]))
    try:
        reader.read_header(path)
    except InputError:
        pass
