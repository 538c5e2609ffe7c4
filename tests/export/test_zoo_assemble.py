"""Built-in checkpoints put together: arithmetic without a matrix library, every learned tensor in its place."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edge.errors import InputError
from edge.export.zoo import _assemble


class Base:
    name = "base"

    def __init__(self, **tensors: np.ndarray) -> None:
        self.tensors = tensors

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]


def halves(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float16)


def test_low_rank_is_added_and_whole_tensors_take_their_place():
    rng = np.random.default_rng(0)
    weight, down, up = rng.standard_normal((6, 4), np.float32), halves(rng, 2, 4), halves(rng, 6, 2)
    base = Base(**{"a.weight": weight, "norm.weight": np.ones(4, np.float32), "b.weight": weight})
    gain = halves(rng, 4)
    made = dict(_assemble.adapted(base, {"a.lora_A": down, "a.lora_B": up, "norm.weight": gain}))
    exact = weight.astype(np.float64) + up.astype(np.float64) @ down.astype(np.float64)
    assert np.array_equal(made["a.weight"], exact.astype(np.float32))
    assert np.array_equal(made["norm.weight"], gain.astype(np.float32))
    assert made["b.weight"] is weight
    assert {a.dtype for a in made.values()} == {np.dtype(np.float32)}


def test_the_sum_is_taken_in_one_order_on_every_machine():
    rng = np.random.default_rng(1)
    made = _assemble.merged(rng.standard_normal((32, 24), np.float32), halves(rng, 16, 24), halves(rng, 32, 16))
    # Worked out once; only additions and products of float64, so that no library's order of summing is in it.
    again = _assemble.merged(
        np.random.default_rng(1).standard_normal((32, 24), np.float32), *_second(np.random.default_rng(1))
    )
    assert made.tobytes() == again.tobytes()


def _second(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rng.standard_normal((32, 24), np.float32)
    return halves(rng, 16, 24), halves(rng, 32, 16)


def test_what_has_no_place_is_refused():
    base = Base(**{"a.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(InputError, match=r"the adapter holds 'c\.weight', which base has no weight for"):
        dict(_assemble.adapted(base, {"c.weight": np.ones(2, np.float16)}))


def test_the_hash_is_of_names_types_shapes_and_bytes(tmp_path):
    a, b = np.arange(4, dtype=np.float32), np.ones((2, 1), np.float32)
    found = _assemble.write([("b", b), ("a", a)], {"config.json": "{}"}, tmp_path)
    wanted = hashlib.sha256(b"a <f4 (4,)\n" + a.tobytes() + b"b <f4 (2, 1)\n" + b.tobytes()).hexdigest()
    assert found == wanted
    assert (tmp_path / "config.json").read_text() == "{}"
    assert (tmp_path / "model.safetensors").is_file()


def test_other_weights_than_those_that_were_scored_are_refused():
    _assemble.check("it", "a" * 64, {"weights_sha256": "a" * 64})
    with pytest.raises(InputError, match=r"it came out as b{16}\.\.\., wanted a{16}\.\.\.: not the weights"):
        _assemble.check("it", "b" * 64, {"weights_sha256": "a" * 64})
