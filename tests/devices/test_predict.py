"""What is predicted, from rules and known devices; and whether a file says a device."""

import dataclasses
import json

import pytest

from edge.cli import main
from edge.devices import predict, profiles
from edge.errors import InputError, UsageError
from edge.runtimes import meter
from edge.runtimes.weights import Weight
from tests.tiny_bundle import tiny_bundle

SHARES = {"shares": {"gguf": {"q8_0": 0.5, "q4_0": 0.4}, "onnx": {"int4": 0.25}}, "experts": {"gguf": 1.2}}
PLAIN = (Weight("blk.0.w", "Q8_0", 100_000_000),)
PI = profiles.Known("board", "a board", 1 << 30, 100 << 20, 4, 2e9, 4e9, True, "a page")


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "reached", lambda: SHARES)
    made = tiny_bundle(tmp_path)

    def of(format_name="gguf", quantization="q8_0", parameters=3.5e8, weights=PLAIN):
        monkeypatch.setattr(f"edge.runtimes.weights.{format_name}.read", lambda _path: weights)
        return tmp_path, dataclasses.replace(
            made, format=format_name, quantization=quantization,
            memory={"weights_bytes": 100_000_000, "kv_bytes_per_token": 10_000}, source={"parameters": parameters},
        )  # fmt: skip

    return of


SMALL = 1.3  # how much lower the lower bound of a small model is


def made(pair, device=None, **more):
    wanted = {"bandwidth": None if device else 40e9, "context_length": 1000, "depth": 0, **more}
    return predict.predict(*pair, device, **wanted)


def test_here_it_is_bandwidth_times_what_was_reached(bundle):
    low, expected, high = made(bundle()).tokens_per_s
    assert expected == pytest.approx(40e9 * 0.5 / 100e6)
    assert (low, high) == (pytest.approx(expected / 1.2), pytest.approx(expected * 1.2))
    assert made(bundle(), depth=1000).tokens_per_s[1] == pytest.approx(40e9 * 0.5 / 110e6)


def test_what_was_never_measured_has_wider_bounds(bundle):
    found = made(bundle(quantization="q2_k"))
    _, expected, high = found.tokens_per_s
    assert expected == pytest.approx(40e9 * 0.45 / 100e6)
    assert high / expected == pytest.approx(1.2 * 1.3)
    assert found.notes == ("gguf q2_k was not measured: the median of its format was taken",)
    assert made(bundle(format_name="tflite")).tokens_per_s[1] == pytest.approx(40e9 * 0.4 / 100e6)


def test_what_the_runtime_unpacks_is_as_float32(bundle, monkeypatch):
    monkeypatch.setattr(predict, "reached", lambda: {"shares": {"gguf": {"fp32": 0.9, "q8_0": 0.5}}, "experts": {}})
    folder, plain = bundle()
    pair = folder, dataclasses.replace(plain, memory={**plain.memory, "unpacked_bytes": 8})
    assert made(pair).tokens_per_s[1] == pytest.approx(40e9 * 0.9 / 1.4e9)


def test_what_is_unpacked_has_no_experts_to_skip(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "reached", lambda: {"shares": {"gguf": {"fp32": 0.9}}, "experts": {"gguf": 1.3}})
    (tmp_path / "config.json").write_text(json.dumps({"num_local_experts": 4, "num_experts_per_tok": 1}))
    folder, plain = bundle(weights=(Weight("blk.0.ffn_up_exps.w", "Q8_0", 400_000_000, chosen_only=True),))
    pair = folder, dataclasses.replace(plain, memory={**plain.memory, "unpacked_bytes": 8})
    assert made(pair).tokens_per_s[1] == pytest.approx(40e9 * 0.9 / 1.4e9)


def test_experts_that_are_skipped_are_not_read(bundle, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"num_local_experts": 4, "num_experts_per_tok": 1}))
    pair = bundle(weights=(Weight("blk.0.ffn_up_exps.w", "Q8_0", 400_000_000, chosen_only=True),))
    assert made(pair).tokens_per_s[1] == pytest.approx(40e9 * 0.5 * 1.2 / 100e6)


def test_a_known_device_has_the_bounds_of_its_figures(bundle):
    found = made(bundle(), PI)
    assert found.tokens_per_s == (pytest.approx(20.0), pytest.approx(30.0), pytest.approx(40.0))
    assert "from published figures: a page" in found.notes
    assert "unproven: nobody has measured this bundle there" in found.notes
    small = made(bundle(parameters=1e8), PI)
    assert small.tokens_per_s == (pytest.approx(20.0 / SMALL), pytest.approx((20.0 / SMALL + 40.0) / 2), 40.0)
    assert [note for note in small.notes if "smaller than the models" in note]
    other = made(bundle(format_name="onnx", quantization="int4"), PI)
    assert other.tokens_per_s[0] == pytest.approx(20.0 * 0.5 / 1.3)
    assert [note for note in other.notes if "unproven: what onnx reaches" in note]


def test_a_larger_model_may_be_faster_than_small_ones_say(bundle):
    small, large = made(bundle()), made(bundle(parameters=7e9))
    assert large.tokens_per_s[2] == pytest.approx(1.3 * small.tokens_per_s[2])
    assert large.tokens_per_s[:2] == small.tokens_per_s[:2]


def test_what_does_not_fit_is_said(bundle):
    found = made(bundle(), dataclasses.replace(PI, ram_bytes=300 << 20))
    [why] = found.against
    assert why.startswith("it needs 260.0 MB of memory and 209.7 MB can be had")
    assert made(bundle(), available_bytes=1).against
    assert not made(bundle(), PI).against


def test_a_header_that_tells_nothing_gives_no_speed(bundle):
    found = made(bundle(weights=()))
    assert found.tokens_per_s is None
    assert "no speed can be predicted" in found.notes[-1]


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_that_ships(name):
    known = profiles.read(name)
    assert 0 < known.reached_low < known.reached_high < 100e9
    assert known.ram_bytes - known.system_bytes > 256 << 20
    assert known.source


def test_what_was_reached_is_a_share():
    found = json.loads((profiles._FOLDER.parent / "reached.json").read_text())
    assert {"gguf", "onnx", "tflite"} <= set(found["shares"])
    assert all(0.1 < v < 1.1 for row in found["shares"].values() for v in row.values())


def test_a_device_nobody_knows():
    with pytest.raises(UsageError, match="there is no profile of a device 'pi9'"):
        profiles.read("pi9")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        profiles.read("none.toml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + "[", "is damaged"),
        (lambda text: text.replace("cores", "kernels"), "is no profile of a device: KeyError"),
        (lambda text: text.replace("low_bytes_per_s = ", "low_bytes_per_s = -"), "its bounds make no sense"),
    ],
)
def test_a_file_of_ones_own(tmp_path, change, words):
    text = (profiles._FOLDER / "pi5.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert profiles.read(str(path)).model == "Raspberry Pi 5"
    path.write_text(change(text))
    with pytest.raises(InputError, match=words):
        profiles.read(str(path))


def test_the_verb(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(meter, "_PROBE_BYTES", 1 << 20)
    monkeypatch.setattr(meter, "_PROBE_S", 0.01)
    tiny_bundle(tmp_path / "tiny")
    folder = str(tmp_path / "tiny")
    assert main(["predict", folder]) == 0
    said = capsys.readouterr()
    assert "memory is read at" in said.out
    assert "not known" in said.out
    assert main(["predict", folder, "--device", "pi5", "--context", "100", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["predictions"]
    assert row["device"] == "Raspberry Pi 5"
    assert row["against"] == []
    assert main(["predict", folder, "--threads", "0"]) == 2
    assert "cannot run on 0 threads" in capsys.readouterr().err
    assert main(["predict", folder, "--device", "pi9"]) == 2
    assert main(["predict", folder, "--context", "9999"]) == 2
    assert "holds 1 to 1024 tokens, 9999 were asked for" in capsys.readouterr().err
    assert main(["predict", folder, "--threads", "0"]) == 2
