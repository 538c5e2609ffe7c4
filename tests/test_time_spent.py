"""A profile added up, and as a trace that other programs open."""

import itertools
import json

import numpy as np
import pytest

from edge import time_spent
from edge.cli import main
from edge.errors import EdgeError, InputError
from edge.find import load, names
from edge.runtimes import profilers
from edge.runtimes.profilers import Event, Recording, Step, layer_of, parse
from edge.runtimes.profilers import onnx as onnx_profiler
from edge.runtimes.profilers import tflite as tflite_profiler
from tests.fixed_run import HOSTILE
from tests.tiny_bundle import tiny_bundle


def event(phase, step, operator, layer, start, us):
    return Event(phase, step, operator, f"{operator}-{layer}", layer, start, us)


RECORDING = Recording(
    "a test",
    [Step("prefill", 4, 0.0, 100.0), *(Step("decode", 1, 100.0 + 20 * i, 20.0) for i in range(3))],
    [
        event("prefill", 0, "MatMul", 0, 1.0, 60.0),
        event("prefill", 0, "Add", 1, 61.0, 20.0),
        *(event("decode", i, "MatMul", 0, 101.0 + 20 * i, us) for i, us in enumerate((10.0, 11.0, 900.0))),
        *(event("decode", i, "Add", 1, 112.0 + 20 * i, 2.0) for i in range(3)),
    ],
)
FOUND = {
    "recording": RECORDING.record(),
    "plain_prefill_s": 80e-6,
    "plain_token_ms": 0.016,
    "memory": [(0.0, 1_000_000), (0.01, 2_000_000)],
}


def test_a_recording_survives_being_written_and_read():
    assert parse(json.loads(json.dumps(RECORDING.record()))) == RECORDING


def test_times_are_for_each_token():
    prefill, decode = time_spent.phases(FOUND)
    assert (prefill.us, prefill.operators_us, prefill.plain_us) == (25.0, 20.0, 20.0)
    assert [(s.operator, s.us, s.share) for s in prefill.operators] == [("MatMul", 15.0, 0.75), ("Add", 5.0, 0.25)]
    assert prefill.overhead == pytest.approx(0.25)
    assert decode.overhead == pytest.approx(0.25)
    assert decode.operators[0].calls == 1


def test_a_moment_that_was_anothers_is_in_no_sum():
    _, decode = time_spent.phases(FOUND)
    assert decode.operators[0].us == pytest.approx(11.0)
    assert decode.layers == {0: {"MatMul": pytest.approx(11.0)}, 1: {"Add": pytest.approx(2.0)}}


def check_trace(trace):
    """What the trace event format asks of a file, and what Perfetto refuses to draw."""
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    spans = {}
    for row in trace["traceEvents"]:
        assert isinstance(row["pid"], int)
        assert isinstance(row["tid"], int)
        assert isinstance(row["name"], str)
        match row["ph"]:
            case "M":
                assert row["name"] in ("process_name", "thread_name")
                assert isinstance(row["args"]["name"], str)
            case "X":
                assert row["ts"] >= 0
                assert row["dur"] >= 0
                assert isinstance(row["cat"], str)
                spans.setdefault((row["pid"], row["tid"]), []).append((row["ts"], row["ts"] + row["dur"]))
            case "C":
                assert all(isinstance(v, int | float) for v in row["args"].values())
            case other:
                raise AssertionError(other)
    for track in spans.values():
        track.sort()
        # Spans of one track lie one after the other here; half overlapping ones are not drawn.
        assert all(a[1] <= b[0] + 1e-3 for a, b in itertools.pairwise(track))
    return spans


def test_the_trace_is_one():
    quiet = Recording("a test", RECORDING.steps, [e for e in RECORDING.events if e.us < 100])
    trace = json.loads(json.dumps(time_spent.trace({**FOUND, "recording": quiet.record()}, "name")))
    spans = check_trace(trace)
    assert {len(track) for track in spans.values()} == {4, 7}
    assert sum(row["ph"] == "C" for row in trace["traceEvents"]) == 2


def test_onnxruntime_s_file():
    rows = [
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 5},
        {"cat": "Node", "name": "warm_kernel_time", "ts": 1, "dur": 2, "args": {"op_name": "Warm"}},
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 50},
        {
            "cat": "Node",
            "name": "model.layers.3.q_kernel_time",
            "ts": 12,
            "dur": 20,
            "args": {"op_name": "MatMulNBits"},
        },
        {"cat": "Node", "name": "node_fused_7_kernel_time", "ts": 33, "dur": 5, "args": {"op_name": "Skip"}},
        {"cat": "Node", "name": "lm_head_kernel_time", "ts": 40, "dur": 5, "args": {"op_name": "MatMulNBits"}},
        {"cat": "Node", "name": "fence_before", "ts": 41, "dur": 1, "args": {"op_name": "X"}},
        {"cat": "Session", "name": "model_run", "ts": 70, "dur": 9},
        {"cat": "Node", "name": "node_x_kernel_time", "ts": 71, "dur": 8, "args": {"op_name": "Add"}},
    ]
    found = onnx_profiler.parse(rows, [4], 1)
    assert [(s.phase, s.tokens, s.start_us, s.us) for s in found.steps] == [
        ("prefill", 4, 0.0, 50.0), ("decode", 1, 60.0, 9.0),
    ]  # fmt: skip
    assert [(e.operator, e.layer, e.phase) for e in found.events] == [
        ("MatMulNBits", 3, "prefill"), ("Skip", 3, "prefill"), ("MatMulNBits", None, "prefill"),
        ("Add", None, "decode"),
    ]  # fmt: skip
    with pytest.raises(EdgeError, match="has 3 runs, 4 were made"):
        onnx_profiler.parse(rows, [4], 2)


def test_litert_s_events():
    def rows(*pairs):
        return [{"name": n, "type": t, "us": us, "index": i} for i, (n, t, us) in enumerate(pairs)]

    product, delegated, plain = "Fully Connected (NC, QDU8, F32, QB4W) GEMM", 8, 2
    runs = [
        ("prefill_64", 0, 90_000, rows(("Invoke", 1, 80), (product, delegated, 10), (product, delegated, 12))),
        ("decode", 90_000, 99_000, rows((product, delegated, 3), ("RESHAPE", plain, 1), (product, delegated, 3),
                                        (product, delegated, 5))),
        ("decode", 99_000, 108_000, rows((product, delegated, 3), ("TfLiteXNNPackDelegate", plain, 9))),
    ]  # fmt: skip
    found = tflite_profiler.parse(runs, 2, 10, layers=2)
    assert [(s.phase, s.tokens, s.start_us, s.us) for s in found.steps] == [
        ("prefill", 10, 0.0, 90.0), ("prefill", 0, 90.0, 9.0), ("decode", 1, 99.0, 9.0),
    ]  # fmt: skip
    assert [(e.operator, e.layer) for e in found.events if e.phase == "prefill"] == [
        ("Fully Connected QB4W", 0), ("Fully Connected QB4W", 1),
        ("Fully Connected QB4W", 0), ("RESHAPE", 1), ("Fully Connected QB4W", 1), ("Fully Connected QB4W", None),
    ]  # fmt: skip
    assert [e.operator for e in found.events if e.phase == "decode"] == ["Fully Connected QB4W"]
    assert found.layers_by_order


def test_layers_are_in_names():
    assert layer_of("blk.12.attn_q") == 12
    assert layer_of("kq-7 (view)") == 7
    assert layer_of("node_MatMul_164") is None


def test_every_format_has_a_profiler():
    assert set(names("edge.runtimes.engines")) == set(names("edge.runtimes.profilers"))
    for name in names("edge.runtimes.profilers"):
        assert callable(load("edge.runtimes.profilers", name).record)
    assert profilers.PHASES == ("prefill", "decode")


@pytest.fixture
def folder(tmp_path):
    tiny_bundle(tmp_path / "tiny", name=HOSTILE)
    return tmp_path / "tiny"


def test_the_verb(folder, tmp_path, capsys):
    page, trace = tmp_path / "p.html", tmp_path / "t.json"
    argv = [
        "profile",
        str(folder),
        "--prompt-tokens",
        "16",
        "--new-tokens",
        "3",
        "-o",
        str(page),
        "--trace",
        str(trace),
    ]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "reading 16 tokens" in said
    assert "answering 3 tokens" in said
    assert "without them" in said
    check_trace(json.loads(trace.read_text()))
    text = page.read_text()
    assert HOSTILE not in text
    assert "Memory over time" in text
    assert "http" not in text.replace("http-equiv", "")


def test_sums_and_events_as_json(folder, capsys):
    assert main(["profile", str(folder), "--prompt-tokens", "16", "--new-tokens", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert [part["name"] for part in found["phases"]] == ["prefill", "decode"]
    assert found["phases"][1]["operators"][0]["operator"] == "Echo"
    assert found["memory"][-1][1] > 1_000_000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--threads", "0"], "--threads must be 1 or more"),
        (["--new-tokens", "0"], "--new-tokens must be 1 or more"),
        (["--prompt-tokens", "1020", "--new-tokens", "9"], "1020 and 9 tokens do not fit the context of 1024 tokens"),
        (["--context", "9000"], "cannot be profiled: a context of 9000 tokens was asked for"),
    ],
)
def test_what_makes_no_sense(folder, argv, words, capsys):
    assert main(["profile", str(folder), *argv]) in (1, 2)
    assert words in capsys.readouterr().err


def test_a_machine_that_others_use_is_said(folder, capsys, monkeypatch):
    from edge.commands import profile as verb

    recorded = verb._recorded
    monkeypatch.setattr(verb, "_recorded", lambda *args: {**recorded(*args), "seen": {"others_share": 0.4}})
    assert main(["profile", str(folder), "--new-tokens", "4", "--prompt-tokens", "4"]) == 0
    assert "other programs used 40 % of the processors" in capsys.readouterr().err


def test_a_profile_that_breaks(folder, capsys, monkeypatch):
    from edge.commands import _places

    class Done:
        stdout, stderr, returncode = "", "Traceback\nMemoryError", 1

    monkeypatch.setattr(_places.subprocess, "run", lambda *_, **__: Done)
    assert main(["profile", str(folder)]) == 1
    assert "cannot be profiled: MemoryError" in capsys.readouterr().err
    Done.stdout = '{"recording": {"steps": 7}}'
    assert main(["profile", str(folder)]) == 1
    assert "cannot be profiled: its answer is no profile: TypeError" in capsys.readouterr().err


def test_names_that_would_steer_a_terminal_do_not(folder, capsys, monkeypatch):
    from edge.commands import profile as verb

    def hostile(*args):
        found = recorded(*args)
        for row in found["recording"]["events"]:
            row["operator"] = "\x1b[2JEcho"
        return found

    recorded = verb._recorded
    monkeypatch.setattr(verb, "_recorded", hostile)
    assert main(["profile", str(folder), "--new-tokens", "4", "--prompt-tokens", "4"]) == 0
    out = capsys.readouterr().out
    assert "[2JEcho" in out
    assert "\x1b" not in out


def test_a_library_without_its_parts(tmp_path, monkeypatch):
    import sys
    import types

    from edge.runtimes.litert_c import ProfiledModel
    from edge.runtimes.profilers import gguf as gguf_profiler

    with pytest.raises(EdgeError, match="has no ggml library"):
        gguf_profiler._ggml(tmp_path)
    fake = types.ModuleType("ai_edge_litert")
    fake.__file__, fake.__spec__ = str(tmp_path / "__init__.py"), types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "ai_edge_litert", fake)
    with pytest.raises(EdgeError, match="this LiteRT has no C library at"):
        ProfiledModel(tmp_path / "model.tflite", threads=1, packed="")


def test_what_litert_refuses_is_named():
    from types import SimpleNamespace

    from edge.runtimes.litert_c import ProfiledModel

    def refuses(*_args):
        return 3

    model = ProfiledModel.__new__(ProfiledModel)
    model._c = SimpleNamespace(LiteRtCreateOptions=refuses)
    with pytest.raises(EdgeError, match="LiteRT's LiteRtCreateOptions failed with 3"):
        model._call("LiteRtCreateOptions")


def test_a_tflite_model_that_sees_is_profiled_with_what_its_embeddings_take():
    fetched = {"name": "Embedding of tokens", "type": 8, "us": 4.5, "index": 0}
    product = {"name": "Fully Connected (NC, F32)", "type": 8, "us": 9, "index": 0}
    took = []

    class Model:
        write = run = lambda *_args: None

        def take(self):
            return [product, product]

    runner = tflite_profiler._Runner(Model(), "embeddings", 2)
    runner.recording = True
    fetch = runner.fetching(lambda **given: took.append(given))
    fetch(token_ids=1)
    fetch(token_ids=2)
    runner.run("decode", np.zeros(1), np.zeros(1), np.zeros(1))
    runner.run("decode", np.zeros(1), np.zeros(1), np.zeros(1))
    assert took == [{"token_ids": 1}, {"token_ids": 2}]
    assert [[row["name"] for row in rows] for *_, rows in runner.runs] == [
        [fetched["name"], product["name"], product["name"]], [product["name"]] * 2,
    ]  # fmt: skip
    found = tflite_profiler.parse([("decode", 0, 30_000, [fetched, product, product])], 0, 0, layers=1)
    assert [(e.operator, e.layer, e.start_us) for e in found.events] == [
        ("Embedding of tokens", None, 0.0), ("Fully Connected F32", 0, 4.5), ("Fully Connected F32", None, 13.5),
    ]  # fmt: skip


def test_a_tflite_bundle_whose_embeddings_are_missing_is_damaged(tmp_path):
    from types import SimpleNamespace

    from edge.runtimes.engines.tflite import embedder

    header = SimpleNamespace(signatures={"decode": SimpleNamespace(inputs={"embeddings": None})})
    bundle = SimpleNamespace(model_file="model.tflite", parts={})
    with pytest.raises(InputError, match="takes embeddings, and the bundle has no embedder"):
        embedder(tmp_path, bundle, header)
