"""Rows of 8 bits with errors carried over: less error where inputs are, the same codes where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export.litert_rows import codes


def rounded(matrix, scales):
    return np.clip(np.rint(matrix / scales[:, None]), -127, 127)


@pytest.mark.runtime
def test_what_comes_out_of_the_product_is_closer_than_by_rounding():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 200)).astype(np.float32)
    inputs = (rng.normal(size=(2000, 20)) @ rng.normal(size=(20, 200)) + 0.1 * rng.normal(size=(2000, 200))).astype(
        "f4"
    )
    scales = np.abs(matrix).max(1) / 127
    made = codes(matrix, scales, inputs.T @ inputs / len(inputs))
    assert made.dtype == np.int8
    wanted = inputs @ matrix.T

    def error(q):
        return np.square(inputs @ (q * scales[:, None]).T - wanted).mean()

    assert error(made) < 0.3 * error(rounded(matrix, scales))
    assert np.abs(made * scales[:, None] - matrix).max() < 8 * scales.max()


@pytest.mark.runtime
def test_inputs_that_do_not_depend_on_each_other_leave_rounding_as_it_is():
    matrix = np.random.default_rng(1).normal(size=(7, 130)).astype(np.float32)
    scales = np.abs(matrix).max(1) / 127
    assert np.array_equal(codes(matrix, scales, np.eye(130, dtype=np.float32)), rounded(matrix, scales))
