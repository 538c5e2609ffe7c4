"""TFLite files: what a small one says, and that no damaged one gets further than an InputError."""

from __future__ import annotations

import struct

import flatbuffers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from edge.readers import tflite as reader


def _vector(b: flatbuffers.Builder, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _table(b: flatbuffers.Builder, n_slots: int, **slots: tuple[str, int]) -> int:
    b.StartObject(n_slots)
    for slot, (kind, value) in slots.items():
        getattr(b, f"Prepend{kind}Slot")(int(slot[1:]), value, 0)
    return b.EndObject()


def _tensor(b: flatbuffers.Builder, name: str, shape: list[int], kind: int, buffer: int, quantization: int = 0) -> int:
    label = b.CreateString(name)
    b.StartVector(4, len(shape), 4)
    for d in reversed(shape):
        b.PrependInt32(d)
    dims = b.EndVector()
    return _table(
        b,
        5,
        s0=("UOffsetTRelative", dims),
        s1=("Int8", kind),
        s2=("Uint32", buffer),
        s3=("UOffsetTRelative", label),
        s4=("UOffsetTRelative", quantization),
    )


def model(
    *,
    data: bytes = struct.pack("<4f", 1, 2, 3, 4),
    shape: tuple[int, ...] = (2, 2),
    kind: int = 0,
    buffer: int = 1,
    operator: int = 0,
    n_subgraphs: int = 1,
    signatures: tuple[str, ...] = ("decode",),
    of_subgraph: int = 0,
    of_tensor: int = 0,
    far: tuple[int, int] | None = None,
    scales: tuple[int, int] | None = None,
) -> bytes:
    """A file with one constant `w`, one input `x`, one operator and signatures; each argument can spoil it."""
    b = flatbuffers.Builder(1024)
    empty = _table(b, 3)
    if far:
        full = _table(b, 3, s1=("Uint64", far[0]), s2=("Uint64", far[1]))
    else:
        raw = b.CreateByteVector(data)
        full = _table(b, 3, s0=("UOffsetTRelative", raw))
    buffers = _vector(b, [empty, full])
    code = _vector(b, [_table(b, 4, s3=("Int32", 9))])
    quantization = 0
    if scales:
        details = _table(b, 3, s0=("Int32", scales[0]), s2=("Int32", scales[1]))
        quantization = _table(b, 7, s4=("Uint8", 2), s5=("UOffsetTRelative", details))
    graphs = []
    for _ in range(n_subgraphs):
        tensors = _vector(b, [_tensor(b, "x", [1, 2], 0, 0), _tensor(b, "w", list(shape), kind, buffer, quantization)])
        nodes = _vector(b, [_table(b, 1, s0=("Uint32", operator))])
        graphs.append(_table(b, 5, s0=("UOffsetTRelative", tensors), s3=("UOffsetTRelative", nodes)))
    subgraphs = _vector(b, graphs)
    keys = []
    for name in signatures:
        argument = b.CreateString("tokens")
        end = _table(b, 2, s0=("UOffsetTRelative", argument), s1=("Uint32", of_tensor))
        ends, label = _vector(b, [end]), b.CreateString(name)
        keys.append(
            _table(b, 5, s0=("UOffsetTRelative", ends), s2=("UOffsetTRelative", label), s4=("Uint32", of_subgraph))
        )
    signature = _vector(b, keys)
    root = _table(
        b,
        8,
        s0=("Uint32", 3),
        s1=("UOffsetTRelative", code),
        s2=("UOffsetTRelative", subgraphs),
        s4=("UOffsetTRelative", buffers),
        s7=("UOffsetTRelative", signature),
    )
    b.Finish(root, b"TFL3")
    return bytes(b.Output())


def read(tmp_path, content: bytes):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return reader.read(path)


def test_what_a_small_file_says(tmp_path):
    content = model()
    header = read(tmp_path, content)
    assert header.version == 3
    assert header.operators == {"9": 1}
    assert [(t.name, t.type, t.shape, t.n_bytes) for t in header.subgraphs[0]] == [
        ("x", "float32", (1, 2), 0),
        ("w", "float32", (2, 2), 16),
    ]
    [constant] = header.constants().values()
    assert content[constant.offset :][:16] == struct.pack("<4f", 1, 2, 3, 4)
    assert header.signatures["decode"].inputs["tokens"].name == "x"
    assert header.facts()["types"] == {"float32": {"tensors": 1, "bytes": 16}}


def test_blocks_say_where_their_scales_are(tmp_path):
    header = read(tmp_path, model(scales=(0, 32)))
    assert (header.subgraphs[0][1].scales, header.subgraphs[0][1].block_size) == (0, 32)


def test_rewrite_changes_the_bytes_it_was_told_to(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(model())

    def change(header, data):
        [w] = header.constants().values()
        data[w.offset : w.offset + 4] = struct.pack("<f", 9)

    reader.rewrite(path, change)
    [w] = reader.read(path).constants().values()
    assert path.read_bytes()[w.offset :][:8] == struct.pack("<2f", 9, 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be a TFLite model: it has 0 bytes"),
        (bytes(64), "it does not say TFL3"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(64), "an offset leads to byte"),
        (model()[:200], "damaged"),
        (model(shape=(2, 3)), "has 16 bytes, not 24"),
        (model(shape=(1,) * 17), "has 17 dimensions"),
        (model(buffer=7), "has buffer 7 of 2"),
        (model(operator=3), "an operator is of kind 3 of 1"),
        (model(n_subgraphs=0, signatures=()), "it has no graph"),
        (model(signatures=("decode", "decode")), "two signatures are called decode"),
        (model(of_subgraph=4), "a signature is of subgraph 4 of 1"),
        (model(of_tensor=9), "a signature names tensor 9 of 2"),
        (model(far=(1 << 40, 16)), "go past its end"),
        (model(scales=(5, 32)), "a tensor's scales are in a tensor that does not exist"),
        (model(scales=(0, -1)), "blocks of -1 weights"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, content)


def test_a_list_longer_than_the_file(tmp_path):
    content = bytearray(model())
    at = content.index(struct.pack("<4f", 1, 2, 3, 4)) - 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(InputError, match="a list of 4,294,967,295 items goes past its end"):
        read(tmp_path, bytes(content))


def test_more_than_any_file_has(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_MAX_TENSORS", 1)
    with pytest.raises(InputError, match="more than 1 buffers"):
        read(tmp_path, model())
    monkeypatch.undo()
    monkeypatch.setattr(reader, "_MAX_NODES", 0)
    with pytest.raises(InputError, match="more than 0 operators"):
        read(tmp_path, model())
    monkeypatch.setattr(reader, "_MAX_NODES", 1)
    with pytest.raises(InputError, match="1 operators"):
        read(tmp_path, model(n_subgraphs=2))


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="there is no model file"):
        reader.read(tmp_path / "none.tflite")


@given(data=st.data())
def test_any_damage_is_an_input_error_or_harmless(data, tmp_path_factory):
    good = bytearray(model(scales=(0, 32)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "m.tflite"
    path.write_bytes(bytes(good[: data.draw(st.integers(0, len(good)))]))
    try:
        reader.read(path)
    except InputError:
        pass
