"""Students of tiny teachers: made, trained, killed, gone on with, refused, and exported."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from edge.errors import EdgeError, UsageError
from edge.export import cache
from edge.export.distill import recipe as recipes
from edge.export.distill.run import distill

pytestmark = pytest.mark.runtime
TRAIN = {"tokens": 6_000, "check_every": 4, "batch": 4, "rate": 3e-3, "top_k": 16}


@pytest.fixture(autouse=True)
def own_cache(request, tmp_path, monkeypatch):
    if "every_format" not in request.node.name:  # converters come from the shared one
        monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(texts, **tables):
    found = {"text": {"files": ["text.txt"], "held_out": "held.txt"}, **tables}
    return dataclasses.replace(recipes.parse(found), name="test", folder=texts)


class Said:
    """A progress that keeps what was said."""

    def __init__(self):
        self.lines = []

    def start(self, step, total=None, unit=None): ...
    def advance(self, done): ...
    def say(self, line):
        self.lines.append(line)


def logits(checkpoint, ids):
    import torch

    from edge.export.reference import load_model

    with torch.inference_mode():
        return load_model(checkpoint)(torch.tensor([ids]), use_cache=False).logits[0]


def test_fewer_layers_compute_as_the_whole_model_without_the_others(tiny, texts):
    done = distill(tiny, recipe(texts, student={"depth": {"layers": 2}}))
    [step] = done.record["steps"]
    assert (step["layers"], step["of"], len(step["kept"])) == (2, 3, 2)
    assert done.student.config["num_hidden_layers"] == 2
    assert done.student.name == "tiny-test"
    from edge.export.reference import load_model

    model = load_model(tiny)
    model.model.layers = type(model.model.layers)(model.model.layers[i] for i in step["kept"])
    import torch

    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        wanted = model(ids, use_cache=False).logits[0]
    assert torch.allclose(logits(done.student, ids[0].tolist()), wanted, atol=1e-4)
    assert done.record["distance"]["mean_kld"] > 0.01
    assert done.record["parameters"]["student"] < done.record["parameters"]["teacher"]


def test_a_trimmed_vocabulary_gives_the_same_logits_for_what_stayed(tiny, texts):
    from edge.runtimes.tokenizer import Tokenizer

    done = distill(tiny, recipe(texts, student={"vocabulary": {"tokens": 704}}))
    [step] = done.record["steps"]
    assert (step["tokens"], step["of"]) == (704, 1024)
    assert step["perplexity_source"] > 1
    old, new = Tokenizer.load(tiny.folder), Tokenizer.load(done.student.folder)
    text = "The "
    before, after = old.encode(text), new.encode(text)
    whole, trimmed = logits(tiny, before), logits(done.student, after)
    i, j = old.encode(" a")[0], new.encode(" a")[0]
    assert math.isclose(whole[-1, i], trimmed[-1, j], abs_tol=1e-4)
    assert done.student.config["eos_token_id"] == new.id_of("<|im_end|>")
    assert trimmed.shape[-1] == 704


def test_narrower_layers_are_the_teacher_s_where_nothing_was_lost(tiny, texts):
    """Channels that a text never uses can go without a trace; here all are used, so only shapes and order can hold."""
    import numpy as np

    done = distill(tiny, recipe(texts, student={"width": {"channels": 256, "hidden": 96}}))
    config = done.student.config
    assert (config["intermediate_size"], config["hidden_size"], config["head_dim"]) == (256, 96, 64)
    table = done.student.read("model.embed_tokens.weight")
    whole = tiny.read("model.embed_tokens.weight")
    assert table.shape == (1024, 96)
    assert all((whole == column[:, None]).all(0).any() for column in table.T[:4])
    assert np.isfinite(done.record["distance"]["mean_kld"])
    assert logits(done.student, [1, 2, 3]).shape == (3, 1024)


def test_a_width_that_keeps_everything_important_keeps_the_answers(tiny, texts, tmp_path):
    """Channels that carry nothing are those that go."""
    import torch
    from safetensors import safe_open

    from edge.export import sharded
    from edge.export.source import open_source

    def tensors():
        for name, info in tiny.tensors.items():
            with safe_open(tiny.folder / info.file, framework="pt") as file:
                tensor = file.get_tensor(name).float()
            if name.endswith("mlp.down_proj.weight"):
                tensor[:, ::2] = 0
            yield name, tensor

    folder = tmp_path / "half-used"
    folder.mkdir()
    sharded.copy_side_files(tiny.folder, folder)
    sharded.save(tensors(), tiny.config, folder)
    teacher = open_source(folder)
    done = distill(teacher, recipe(texts, student={"width": {"channels": 256}}))
    assert torch.allclose(logits(done.student, [1, 2, 3, 4]), logits(teacher, [1, 2, 3, 4]), atol=1e-3)


@pytest.mark.parametrize("how", ["select", "merge"])
def test_a_mixture_becomes_dense(tiny_moe, texts, how):
    teacher = tiny_moe("mixtral")
    done = distill(teacher, recipe(texts, student={"moe-to-dense": {"how": how, "experts": 2}}))
    assert done.student.model_type == "llama"
    assert not any("expert" in name or "router" in name for name in done.student.tensors)
    assert 0 < done.record["distance"]["mean_kld"] < 20


def test_experts_that_are_left_out_leave_a_student(tiny_moe, texts):
    done = distill(tiny_moe("mixtral"), recipe(texts, student={"experts": {"keep": 3}}))
    assert done.record["steps"][0]["keep"] == 3
    assert done.student.config["num_local_experts"] == 3


def test_training_brings_the_student_nearer_and_says_what_it_did(tiny, texts):
    """From a student that is far off: its head was scaled, which a few steps can learn."""
    said = Said()
    made = recipe(texts, student={"depth": {"layers": 2}}, train=TRAIN, loss={"forward-kl": {}, "hidden": {}})
    done = distill(tiny, made, said)
    learned = done.record["training"]
    assert learned["tokens"] >= TRAIN["tokens"]
    assert learned["answers_bytes"] <= 150 * learned["answers_tokens"]
    assert learned["best"] <= learned["before"]
    assert any("nats from its teacher on held-out text" in line for line in said.lines)
    assert "mean KLD to its teacher" in done.table()
    # Found again, not made again.
    assert distill(tiny, made).student.identity == done.student.identity
    from edge.export.distill import train

    [work] = (cache.root() / "distilling").iterdir()
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    steps = [row for row in log if "loss" in row]
    assert [row["step"] for row in steps] == list(range(learned["steps"]))
    assert train.rate_at(0.5, made.train) > train.rate_at(1.0, made.train) > 0


def test_a_trimmed_student_learns_to_say_in_pieces_what_its_teacher_has_words_for(tiny, texts):
    """The words of the text themselves are cut away, so that there is something to learn."""
    student = {"vocabulary": {"tokens": 512}, "depth": {"layers": 2}}
    done = distill(tiny, recipe(texts, student=student, train=TRAIN))
    step, apart = done.record["steps"][0], done.record["distance"]
    assert done.record["training"]["best"] < done.record["training"]["before"]
    assert apart["held_out_tokens_after"] > apart["held_out_tokens"]
    assert apart["perplexity_export"] < step["perplexity_export"]
    assert "and of the student" in done.table()
    assert "mean KLD" not in done.table()
    assert done.record["parameters"]["teacher"] == tiny.n_parameters


@pytest.mark.parametrize("kind", ["forward-kl", "reverse-kl", "jsd"])
def test_every_divergence_is_zero_for_the_same_answers_and_points_to_the_teacher(kind):
    import torch

    from edge.find import load

    module = load(recipes.LOSSES, kind)
    torch.manual_seed(0)
    teacher = torch.randn(6, 9).log_softmax(-1)
    free = torch.randn(6, 9, requires_grad=True)
    assert float(module.loss(teacher, teacher, module.Options()).abs().max()) < 1e-6
    optimizer = torch.optim.Adam([free], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        module.loss(teacher, free.log_softmax(-1), module.Options()).sum().backward()
        optimizer.step()
    assert torch.allclose(free.log_softmax(-1), teacher, atol=0.05)


def test_what_the_student_said_has_the_gradient_of_its_definition():
    import torch

    from edge.export.distill.answers import _Said

    torch.manual_seed(0)
    x = torch.randn(70, 50) * 3
    best = torch.randn(70, 50).topk(5).indices
    given = torch.randn(70, 6)

    def plain(x):
        whole = x.logsumexp(-1, keepdim=True)
        rest = x.scatter(1, best, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([x.gather(1, best), rest], 1) - whole

    a, b = (x.clone().requires_grad_() for _ in range(2))
    wanted, found = plain(a), _Said.apply(b, best)
    wanted.backward(given)
    found.backward(given)
    assert torch.allclose(wanted, found, atol=1e-5)
    assert torch.allclose(a.grad, b.grad, atol=1e-5)


def test_what_is_compared_lies_where_the_model_does(monkeypatch):
    """No GPU is here: tensors without data stand for one."""
    import torch

    from edge.export.distill import answers

    best = torch.zeros(40, 3, dtype=torch.long, device="meta")
    assert answers._Said.apply(torch.zeros(40, 9, device="meta"), best).device.type == "meta"
    asked = answers.Batch(*(torch.zeros(2, 3, dtype=torch.long) for _ in range(4)))
    monkeypatch.setattr(answers, "batch", lambda store, chosen: asked)

    class Elsewhere(torch.nn.Linear):
        def forward(self, ids, attention_mask, use_cache):
            assert {ids.device.type, attention_mask.device.type} == {"meta"}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers.kld(Elsewhere(2, 2, device="meta"), [1], texts_at_once=1)


SCRIPT = """
import dataclasses, sys
from pathlib import Path
from edge.export.distill import recipe as recipes, train
from edge.export.distill.run import distill
from edge.export.source import open_source
train._KEEP_EVERY_S = 0.0
class Said:
    def start(self, step, total=None, unit=None): print(step, flush=True)
    def advance(self, done): print("at", done, flush=True)
    def say(self, line): print(line, flush=True)
made = recipes.read(sys.argv[2])
done = distill(open_source(sys.argv[1]), made, Said())
print(done.student.folder, flush=True)
"""


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(tiny, texts, tmp_path, own_cache):
    path = texts / "killed.toml"
    path.write_text(
        '[student.depth]\nlayers = 2\n[text]\nfiles = ["text.txt"]\nheld_out = "held.txt"\n'
        "[train]\ntokens = 9_000\ncheck_every = 6\nbatch = 4\nrate = 3e-3\ntop_k = 16\n"
    )

    def start(home):
        environment = {**os.environ, "EDGE_CACHE": str(home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SCRIPT, str(tiny.folder), str(path)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    whole = start(own_cache)
    wanted = whole.communicate(timeout=600)[0].splitlines()
    assert whole.returncode == 0, wanted
    other = tmp_path / "other"
    running = start(other)
    learning = False
    for line in running.stdout:
        learning = learning or line.startswith("the student learns")
        if learning and line.startswith("at 4"):
            running.send_signal(signal.SIGKILL)
            break
    running.wait(timeout=60)
    again = start(other)
    found = again.communicate(timeout=600)[0].splitlines()
    assert again.returncode == 0, found
    assert any(line.startswith("going on at step") for line in found)
    assert "measuring what each layer is worth" not in found

    def record(lines):
        from pathlib import Path

        return json.loads((Path(lines[-1]) / "distilled.json").read_text())

    one, two = record(wanted), record(found)
    assert two["training"]["steps"] == one["training"]["steps"]
    assert math.isclose(two["distance"]["mean_kld"], one["distance"]["mean_kld"], rel_tol=1e-3)


def test_a_loss_that_is_no_number_lowers_the_rate_then_gives_up(tiny, texts, monkeypatch):
    from edge.export.distill import train

    real = train._Run._loss
    calls = []

    def broken(self, batch):
        calls.append(self._scale)
        found = real(self, batch)
        return found * float("nan") if len(calls) == 3 or monkeypatch_all else found

    monkeypatch_all = False
    monkeypatch.setattr(train._Run, "_loss", broken)
    said = Said()
    done = distill(tiny, recipe(texts, student={"depth": {"layers": 2}}, train=TRAIN), said)
    assert any(
        "the loss is no number at step 2: going on from what was kept, at half the rate" in x for x in said.lines
    )
    assert calls[-1] == 0.5
    assert math.isfinite(done.record["distance"]["mean_kld"])
    monkeypatch_all = True
    with pytest.raises(EdgeError, match=r"the loss is no number at step 0, with a rate of [\s\S]*is kept in"):
        distill(tiny, recipe(texts, student={"depth": {"layers": 1}}, train=TRAIN), said)


def test_a_rate_that_ruins_the_weights_is_said_and_nothing_is_published(tiny, texts, own_cache):
    ruin = {**TRAIN, "tokens": 2_000, "rate": 1e30}
    with pytest.raises(EdgeError, match=r"the loss is no number at step \d(.|\n)*lower rate under \[train\]"):
        distill(tiny, recipe(texts, student={"depth": {"layers": 2}}, train=ruin))
    assert not (own_cache / "students").exists()


def test_what_was_kept_and_leads_nowhere_is_not_gone_on_from(tiny, texts, monkeypatch):
    from edge.export.distill import train

    real = train._Run._step

    def broken(self, chosen, step):
        if step == 2 and self._scale > 0.25:
            raise train._NotANumber(step)
        return real(self, chosen, step)

    monkeypatch.setattr(train._Run, "_step", broken)
    monkeypatch.setattr(train, "_KEEP_EVERY_S", -1)
    said = Said()
    distill(tiny, recipe(texts, student={"depth": {"layers": 2}}, train={**TRAIN, "tokens": 3_000}), said)
    assert [line.partition("going on ")[2] for line in said.lines if "no number" in line] == [
        "from what was kept, at half the rate", "from the beginning, at half the rate",
    ]  # fmt: skip


def test_it_stops_when_held_out_text_gets_no_better(tiny, texts):
    made = recipe(
        texts, student={"depth": {"layers": 2}}, train={**TRAIN, "rate": 0.5, "check_every": 1, "patience": 2}
    )
    learned = distill(tiny, made).record["training"]
    assert "looks at the held-out text in a row were no better" in learned["stopped"]
    assert learned["best"] <= learned["before"]


def test_a_teacher_writes_text_itself_and_none_of_it_is_what_it_is_judged_by(tiny, tmp_path, monkeypatch):
    from edge.export.distill import own_words
    from edge.progress import Silent

    monkeypatch.setattr(own_words, "BATCH", 8)
    monkeypatch.setattr(own_words, "QUESTION_TOKENS", 40)
    monkeypatch.setattr(own_words, "ANSWER_TOKENS", 24)
    real = own_words._Writer.__init__

    def often(self, *given):  # a random teacher hardly ever ends what it says
        real(self, *given)
        self._stops = set(range(0, 1024, 8))

    monkeypatch.setattr(own_words._Writer, "__init__", often)
    path = tmp_path / "words.jsonl"
    first = own_words.write(tiny, path, n_tokens=200, seed=3, progress=Silent())
    assert sum(map(len, first)) >= 200
    with path.open("a") as file:
        file.write("[[1, 2")  # a kill in the middle of a line
    again = own_words.write(tiny, path, n_tokens=200, seed=3, progress=Silent())
    assert again == first
    shorter = own_words.write(tiny, path, n_tokens=20, seed=3, progress=Silent())
    assert shorter == first[: len(shorter)]
    assert 20 <= sum(map(len, shorter)) < sum(map(len, first))
    assert len(path.read_text().splitlines()) > 1
    monkeypatch.setattr(own_words._Writer, "batch", lambda self: [])
    with pytest.raises(EdgeError, match="tiny wrote no text that could be used"):
        own_words.write(tiny, tmp_path / "none.jsonl", n_tokens=200, seed=3, progress=Silent())


def test_a_teacher_answers_requests_for_half_of_the_text(tiny, texts, monkeypatch):
    from edge.export.distill import own_words, taught
    from edge.progress import Silent
    from edge.runtimes.tokenizer import Tokenizer

    monkeypatch.setattr(own_words, "BATCH", 8)
    monkeypatch.setattr(own_words, "QUESTION_TOKENS", 40)
    monkeypatch.setattr(own_words, "ANSWER_TOKENS", 24)
    real = own_words._Writer.__init__

    def often(self, *given):
        real(self, *given)
        self._stops = set(range(0, 1024, 8))

    monkeypatch.setattr(own_words._Writer, "__init__", often)
    asked = ("How do I mend a net?", "When is high tide?")
    text = taught.own_words(tiny, n_tokens=600, seed=3, progress=Silent(), requests=asked)
    tokenizer = Tokenizer.load(tiny.folder)
    answers = [w for w in text.windows if any(q in tokenizer.decode(list(w)) for q in asked)]
    assert len(set(answers)) == len(answers) > 4  # many to each
    assert sum(map(len, answers)) >= 300 <= text.n_tokens - sum(map(len, answers))
    assert "half of it to 2 requests" in text.source
    assert taught.own_words(tiny, n_tokens=600, seed=3, progress=Silent(), requests=asked) == text


def test_a_teacher_without_a_template_cannot_be_asked(tiny, tmp_path, monkeypatch):
    from edge.export.distill import own_words
    from edge.progress import Silent

    monkeypatch.setattr(own_words.ChatTemplate, "load", lambda folder: None)
    with pytest.raises(UsageError, match="tiny has no chat template, so it cannot be asked the requests"):
        own_words.write(tiny, tmp_path / "w", n_tokens=9, seed=3, progress=Silent(), requests=("Where?",))


def test_text_that_is_judged_by_cannot_be_learned_from(tiny, texts):
    made = recipes.parse({"student": {"depth": {"layers": 2}}, "text": {"files": ["held.txt"], "held_out": "held.txt"}})
    with pytest.raises(UsageError, match=r"held\.txt shares text with held\.txt"):
        distill(tiny, dataclasses.replace(made, folder=texts))


@pytest.mark.parametrize("content", ["", "Too short."])
def test_empty_or_tiny_text_is_refused(tiny, texts, content):
    (texts / "tiny.txt").write_text(content)
    made = recipes.parse({"student": {"depth": {"layers": 2}}, "text": {"files": ["tiny.txt"], "held_out": "held.txt"}})
    with pytest.raises(UsageError, match=r"tiny.txt has \d tokens, at least 256 are needed"):
        distill(tiny, dataclasses.replace(made, folder=texts))


def test_a_missing_text_is_said_before_any_work(tiny, texts):
    made = recipes.parse({"student": {"depth": {"layers": 2}}, "text": {"files": ["none.txt"]}})
    with pytest.raises(UsageError, match=r"there is no text file .*none\.txt"):
        distill(tiny, dataclasses.replace(made, folder=texts))


def test_text_the_teacher_does_not_understand_is_said(tiny, texts, monkeypatch):
    from edge.export import foreign

    monkeypatch.setattr(foreign, "_TIMES", 0.01)  # a random teacher understands nothing, so everything is foreign
    said = Said()
    done = distill(tiny, recipe(texts, student={"depth": {"layers": 2}}), said)
    assert any(re.search(r"tiny hardly understands text.txt: .* and a perplexity of", line) for line in said.lines)
    assert "hardly understands" in done.record["warning"]


def test_another_rate_asks_the_teacher_nothing_again_and_two_runs_do_not_ask_at_once(tiny, texts, monkeypatch):
    import fcntl
    import threading

    from edge.export.distill import asking, taught

    asked = []
    real = asking.load_model
    monkeypatch.setattr(asking, "load_model", lambda checkpoint: asked.append(checkpoint.name) or real(checkpoint))
    brief = {**TRAIN, "tokens": 500}
    distill(tiny, recipe(texts, student={"depth": {"layers": 2}}, train=brief))
    assert len(asked) == 2  # about what is learned, and about what it is judged by
    distill(tiny, recipe(texts, student={"depth": {"layers": 2}}, train={**brief, "rate": 1e-3}))
    assert len(asked) == 3
    said = Said()
    store, folder = taught.answers(tiny, [[1, 2, 3]], 4, said)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=taught.answers, args=(tiny, [[1, 2, 3]], 4, said))
        other.start()
        while not said.lines:
            time.sleep(0.01)
    other.join(20)
    assert said.lines == ["another run is asking the same teacher: waiting for it"]
    assert (len(store), store.n_tokens) == (1, 3)


def test_students_that_make_no_sense_are_refused(tiny, texts, tmp_path):
    from edge.export.source import open_source
    from tests.checkpoints import mistral

    for student, words in (
        ({"depth": {"layers": 3}}, r"cannot keep 3 layers of tiny, which has 3[\s\S]*smaller than its teacher"),
        ({"depth": {"layers": 2, "choose": "odd"}}, r"\[student.depth\] choose: there is no 'odd'"),
        ({"width": {"channels": 4096}}, r"channels: 4096 were asked for, tiny has 512"),
        ({"width": {"hidden": 100}}, r"hidden: 100 is no multiple of the 3 heads[\s\S]*take 99 or 102"),
        ({"width": {}}, r"\[student.width\] cuts nothing"),
        ({"experts": {"keep": 2}}, "tiny has no experts to choose from"),
        ({"moe-to-dense": {}}, r"tiny \(llama\) is no mixture that can be made dense"),
        ({"vocabulary": {"words": "klingon"}}, r"there is no list of words 'klingon'[\s\S]*english_chat"),
        ({"checkpoint": {"source": str(tiny.folder)}}, r"tiny has [\d,]+ parameters and its teacher [\d,]+"),
    ):
        tables = {"student": student} if "vocabulary" in student else None
        made = recipes.parse(tables) if tables else recipe(texts, student=student)
        with pytest.raises(UsageError, match=words):
            distill(tiny, made)
    phi = dataclasses.replace(tiny, config={**tiny.config, "model_type": "phi3"})
    with pytest.raises(UsageError, match=r"the width of a 'phi3' cannot be cut[\s\S]*it can of: llama"):
        distill(phi, recipe(texts, student={"width": {"channels": 256}}))
    other = tmp_path / "other"
    other.mkdir()
    mistral.make(other)
    with pytest.raises(UsageError, match=r"the tokenizers of other and tiny differ: [\d,]+ tokens"):
        distill(tiny, recipe(texts, student={"checkpoint": {"source": str(other)}}))
    late = recipe(texts, student={"depth": {"layers": 2}, "vocabulary": {"tokens": 704}})
    with pytest.raises(UsageError, match=r"\[student.vocabulary\] must come before \[student.depth\]"):
        distill(tiny, late)
    narrow = recipe(texts, student={"width": {"channels": 256}}, train=TRAIN, loss={"hidden": {}})
    with pytest.raises(UsageError, match=r"\[loss.hidden\] compares layer with layer"):
        distill(tiny, narrow)
    seeing = dataclasses.replace(tiny, family="vlm")
    with pytest.raises(UsageError, match=r"tiny sees, and \[student.width\] may change(.|\n)*are: depth, rounded"):
        distill(seeing, recipe(texts, student={"width": {"channels": 256}}))
    with pytest.raises(UsageError, match=r"config.json of tiny has no text_config"):
        distill(seeing, recipe(texts, student={"depth": {"layers": 2}}))
    assert open_source(tiny.folder).id == tiny.id


def test_a_model_that_sees_gets_a_text_part_of_fewer_layers(texts, tmp_path):
    import torch

    from edge.export.source import open_source
    from edge.export.vision.split import split
    from tests import tiny_vlm

    folder = tmp_path / "seeing"
    folder.mkdir()
    teacher = open_source(tiny_vlm.llava(folder))
    done = distill(teacher, recipe(texts, student={"depth": {"layers": 1}}, train={**TRAIN, "tokens": 1_000}))
    student = done.student
    assert (student.family, student.text_config["num_hidden_layers"]) == ("vlm", 1)
    before, after = split(teacher), split(student)
    assert before.vision == after.vision
    assert all((student.read(name) == teacher.read(name)).all() for name in after.vision)
    assert after.text.n_parameters == done.record["parameters"]["student"] < before.text.n_parameters
    assert torch.allclose(logits(after.text, [300, 301, 302]), logits(student, [300, 301, 302]), atol=1e-4)
    assert "is its teacher's" in done.table()


@pytest.mark.parametrize("form", ["gguf", "onnx", "tflite"])
def test_a_trimmed_model_exports_to_every_format(tiny, texts, tmp_path, form):
    from edge.export import pipeline

    path = texts / "words.toml"
    path.write_text('[student.vocabulary]\ntokens = 704\n[text]\nfiles = ["text.txt"]\nheld_out = "held.txt"\n')
    quantization = "32bit" if form != "tflite" else "fp32"
    [done] = pipeline.export(
        tiny.folder, tmp_path / "out", formats=[form], quantization=quantization, distill=path, context_length=256
    )
    assert done.bundle.vocab_size == 704
    quality = done.bundle.quality
    assert quality["tokenizer"]["packed_different"] == 0
    assert quality["logits"]["nmse"] < 1e-6
    assert quality["distilled"]["steps"][0]["tokens"] == 704
    from edge.commands.export import _of_student

    assert "704 of 1,024" in _of_student(done.bundle.quality)
    assert _of_student({}) == ""


def test_the_verb_writes_a_folder_and_its_record(tiny, texts, tmp_path, capsys):
    from edge.cli import main

    path = texts / "two.toml"
    path.write_text('[student.depth]\nlayers = 2\n[text]\nfiles = ["text.txt"]\nheld_out = "held.txt"\n')
    command = ["distill", str(tiny.folder), "--recipe", str(path), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    folder = tmp_path / "out" / "tiny-two"
    assert capsys.readouterr().out.strip() == str(folder)
    assert json.loads((folder / "distilled.json").read_text())["steps"][0]["layers"] == 2
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    began = time.monotonic()
    assert main([*command, "--replace", "--json"]) == 0
    assert time.monotonic() - began < 60
    assert json.loads(capsys.readouterr().out)["folder"] == str(folder)
    assert {path.name for path in folder.parent.iterdir()} == {"tiny-two"}
    (folder / "distilled.json").unlink()
    assert main([*command, "--replace"]) == 2
    assert "is no student, so none takes its place" in capsys.readouterr().err


def test_experts_and_a_recipe_exclude_each_other(tiny, texts):
    from edge.export import pipeline

    with pytest.raises(UsageError, match="--experts and --distill both make another model"):
        pipeline.export(tiny.folder, distill="half", keep_experts=2)


def test_two_processes_share_the_training(tiny, texts, tmp_path, own_cache):
    path = texts / "shared.toml"
    path.write_text(
        '[student.depth]\nlayers = 2\n[text]\nfiles = ["text.txt"]\nheld_out = "held.txt"\n'
        "[train]\ntokens = 3_000\ncheck_every = 2\nbatch = 4\ntop_k = 16\n"
    )
    environment = {**os.environ, "EDGE_CACHE": str(own_cache), "OMP_NUM_THREADS": "1"}
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
    ]
    command = [*launch, "--num_machines", "1", "--dynamo_backend", "no", "-m", "edge"]
    command += ["distill", str(tiny.folder), "--recipe", str(path), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "out" / "tiny-shared"
    assert done.stdout.strip() == str(folder)
    record = json.loads((folder / "distilled.json").read_text())
    assert record["training"]["tokens"] >= 3_000
    assert record["training"]["best"] <= record["training"]["before"]


@pytest.mark.parametrize(("n", "processes", "at_once"), [(9, 2, 4), (5, 3, 1), (1, 2, 4), (16, 3, 4), (7, 1, 2)])
def test_every_process_takes_part_as_often_and_no_text_twice(n, processes, at_once):
    from edge.export.distill.train import parts

    shares = [parts(range(n), i, processes, at_once) for i in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(text for share in shares for part in share for text in part) == list(range(n))
    assert max(len(part) for share in shares for part in share) <= at_once


def test_hidden_states_are_those_of_layers_and_not_of_the_norm_after_them(tiny):
    """A layer in the middle of the teacher becomes the student's last: both are compared as layers."""
    import torch

    from edge.export.distill.train import recorded
    from edge.export.reference import load_model

    model = load_model(tiny)
    with torch.no_grad():
        model.model.norm.weight.copy_(torch.linspace(0.1, 3, len(model.model.norm.weight)))
    ids = torch.tensor([[5, 6, 7, 8]])
    states = recorded(model)
    with torch.inference_mode():
        for _ in range(2):  # what an earlier pass gave is gone
            whole = list(model(ids, use_cache=False, output_hidden_states=True).hidden_states)
        assert len(states) == len(whole) - 1
        middle = states[1]
        model.model.layers = model.model.layers[:2]
        model(ids, use_cache=False)
    assert torch.equal(states[-1], middle)


def test_a_run_that_had_stopped_early_does_not_go_on_when_it_is_asked_again(tiny, texts, monkeypatch):
    from edge.export import distance

    made = recipe(
        texts, student={"depth": {"layers": 2}}, train={**TRAIN, "rate": 0.5, "check_every": 1, "patience": 2}
    )
    with monkeypatch.context() as patch:

        def killed(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(distance, "between", killed)
        with pytest.raises(KeyboardInterrupt):
            distill(tiny, made)
    [work] = (cache.root() / "distilling").iterdir()
    before = (work / "log.jsonl").read_text()
    assert "were no better" in distill(tiny, made).record["training"]["stopped"]
    assert (work / "log.jsonl").read_text() == before


def test_a_student_of_the_user_s_own_is_made_anew_when_it_changes_and_keeps_its_licence(tiny, texts, tmp_path):
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file

    from edge.export.distill.run import _with_weights

    teacher = dataclasses.replace(tiny, licence="apache-2.0")
    small = distill(teacher, recipe(texts, student={"depth": {"layers": 2}})).student
    assert small.licence == "apache-2.0"
    own = tmp_path / "own"
    own.mkdir()
    for path in small.folder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    (own / "README.md").write_text("---\nlicense: mit\n---\n")
    made = recipe(texts, student={"checkpoint": {"source": str(own)}})
    first = distill(teacher, made).student
    assert first.licence == "mit AND apache-2.0"
    [weights] = own.glob("*.safetensors")
    save_file({k: v.float() + 0.01 for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    second = distill(teacher, made).student
    name = "model.norm.weight"
    assert np.allclose(second.read(name), first.read(name) + 0.01, atol=1e-3)
    # Some files have the tied embedding twice; what was learned has it once.
    best = tmp_path / "best"
    best.mkdir()
    learned = {k: v for k, v in load_file(weights).items() if k != "lm_head.weight"}
    save_file(learned, best / "model.safetensors", metadata={"format": "pt"})
    twice = {**learned, "lm_head.weight": learned["model.embed_tokens.weight"].clone()}
    save_file(twice, weights, metadata={"format": "pt"})
    from edge.export.source import open_source

    tied = dataclasses.replace(open_source(own), config={**small.config, "tie_word_embeddings": True})
    trained = _with_weights(tied, best, tmp_path / "trained")
    assert "lm_head.weight" not in trained.tensors
    assert torch.is_tensor(learned[name])
