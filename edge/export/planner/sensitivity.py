"""How much each matrix matters: what an error in it costs the model's output, measured on calibration text.

For small errors the divergence of the output is half of e F e, with F the Fisher information of the model's own
predictions, and for errors that do not know of each other only its diagonal counts. With tokens drawn from what the
model predicts, the mean square of a window's gradient is that diagonal, whatever the architecture: one backward pass
for each window. Its row and column sums are kept (F_ij is taken for r_i c_j / sum), as Adafactor keeps them.

Second order has its limits, so it is tried: the source is rounded at two widths, and what that does to its output is
measured. Two power laws through these anchors turn estimates into divergence, and divergence into tokens that change.
Runtimes round what matrices are multiplied with, too, to 8 bits: what that costs is measured the same way,
and added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.export import cache, expert_use, experts, preflight, streamed
from edge.export.calibrate import Calibration, running
from edge.export.checkpoint import Checkpoint
from edge.export.planner.front import Law, law
from edge.export.vision.conversation import n_predicted, predicted
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

_WINDOWS = 16  # gradients are summed over whole matrices: more windows change the order of few
_TRIED = 4  # windows on which the source is rounded as a trial
_TRIAL_BITS = (6, 4)
_TRIAL_BLOCK = 32
_TRIAL_ROWS = 4096
_EMBEDDING = "embed_tokens.weight"


@dataclass(frozen=True)
class Sensitivity:
    """Row and column sums of the Fisher information per token, by matrix; `laws` of what estimates are worth.

    Matrices are called as in the checkpoint, those of experts as `experts.Layer.keys` has them.
    """

    rows: Mapping[str, np.ndarray]
    columns: Mapping[str, np.ndarray]
    kld: Law
    lost: Law
    floor: float = 0.0  # nats that rounding what matrices are multiplied with costs, be the weights as they may

    def damage(self, name: str, errors: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """What squared `errors` `(rows, columns)` of some `rows` of a matrix cost, for each row: half of e F e."""
        r = self.rows[name] if rows is None else self.rows[name][rows]
        c = self.columns[name]
        out: np.ndarray = 0.5 * (errors @ c) * r / max(1e-30, float(c.sum()))
        return out


def measure(checkpoint: Checkpoint, calibration: Calibration, progress: Progress | None = None) -> Sensitivity:
    """From the cache, or measured now; of a source that does not fit in memory, layer by layer.

    Raises `EdgeError` when there is no memory for that either.
    """
    import numpy as np

    progress = progress or Silent()
    key = cache.key(checkpoint=checkpoint.id, calibration=calibration.sha256, code=cache.code_of(__name__))
    folder = cache.find("sensitivity", key)
    if folder is None:
        preflight.check(preflight.planning_need(checkpoint), cache.root())
        found = _measured(checkpoint, calibration, progress)
        with cache.building("sensitivity", key) as work:
            np.savez(work / "sensitivity.npz", **found)  # type: ignore[arg-type]
        folder = cache.root() / "sensitivity" / key
    with np.load(folder / "sensitivity.npz", allow_pickle=False) as stored:
        parts: dict[str, dict[str, Any]] = {"rows": {}, "columns": {}}
        for name in stored.files:
            kind, _, matrix = name.partition("/")
            if matrix:
                parts[kind][matrix] = stored[name]
        tried, floor = stored["trials"], float(stored["floor"])
    return Sensitivity(
        parts["rows"],
        parts["columns"],
        kld=law([(float(guess), float(kld)) for guess, kld, _ in tried], exponent=1.0),
        lost=law([(float(kld), float(lost)) for _, kld, lost in tried], exponent=0.5),
        floor=floor,
    )


def some(windows: Sequence[Sequence[int]], n: int) -> list[Sequence[int]]:
    """`n` of the windows, evenly from all of them."""
    n = min(n, len(windows))
    return [windows[i * len(windows) // n] for i in range(n)]


def _measured(checkpoint: Checkpoint, calibration: Calibration, progress: Progress) -> dict[str, np.ndarray]:
    import torch

    model = running(checkpoint, calibration)
    whole = not streamed.is_streamed(model)
    places = dict(_matrices(model, checkpoint)) if whole else {}
    windows = some(calibration.passages, _WINDOWS)
    progress.start("measuring how much each matrix matters", len(windows) + _TRIED * len(_TRIAL_BITS))
    sums = _fisher(model, windows, places, progress) if whole else _streamed_fisher(model, windows, progress)
    n_tokens = sum(map(n_predicted, windows))
    found = {f"rows/{name}": (r / n_tokens).numpy() for name, (r, _) in sums.items()}
    found |= {f"columns/{name}": (c / n_tokens).numpy() for name, (_, c) in sums.items()}
    few = some(calibration.passages, _TRIED)
    with torch.inference_mode():
        found["floor"] = _floor(model, few)
        if whole:
            found["trials"] = _trials(model, few, places, found, progress, len(windows))
        else:
            found["trials"] = _streamed_trials(model, few, found, progress, len(windows))
    return found


def _fisher(
    model: Any, windows: Sequence[Sequence[int]], places: Mapping[str, Any], progress: Progress
) -> dict[str, tuple[Any, Any]]:
    """Row and column sums of the squared gradients, over all windows; one gradient in memory at a time."""
    sums: dict[str, tuple[Any, Any]] = {}
    cut: dict[int, list[tuple[str, Any]]] = {}  # what a parameter of the model holds, and where in its gradient
    for name, (parameter, place) in places.items():
        cut.setdefault(id(parameter), []).append((name, place))

    def take(parameter: Any) -> None:
        for name, place in cut[id(parameter)]:
            squares = place(parameter.grad).square()
            r, c = sums.get(name, (0, 0))
            sums[name] = (r + squares.sum(1), c + squares.sum(0))
        parameter.grad = None

    wanted = {id(parameter): parameter for parameter, _ in places.values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    handles = [p.register_post_accumulate_grad_hook(take) for p in wanted.values()]
    try:
        _run_back(model, windows, progress)
    finally:
        for handle in handles:
            handle.remove()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    return sums


def _streamed_fisher(model: Any, windows: Sequence[Sequence[int]], progress: Progress) -> dict[str, tuple[Any, Any]]:
    """The same of a model whose weights come and go. A head that is the embedding has a part of its gradient each."""
    import torch

    sums: dict[str, tuple[Any, Any]] = {}
    waiting: dict[str, Any] = {}
    tied = model.config.tie_word_embeddings

    def take(name: str, parameter: Any) -> None:
        gradient, parameter.grad = parameter.grad, None
        if tied and name.endswith(_EMBEDDING):
            if name not in waiting:
                waiting[name] = gradient
                return
            gradient += waiting.pop(name)
        squares = gradient.square_()
        r, c = sums.get(name, (0, 0))
        sums[name] = (r + squares.sum(1), c + squares.sum(0))

    def parameter(name: str, values: Any) -> Any:
        made = torch.nn.Parameter(values, requires_grad=values.dim() == 2)
        if made.requires_grad:
            made.register_post_accumulate_grad_hook(lambda p: take(name, p))
        return made

    with streamed.changed(model, parameter, recomputed=True):
        _run_back(model, windows, progress)
    return sums


def _run_back(model: Any, windows: Sequence[Sequence[int]], progress: Progress) -> None:
    """The gradient of the logarithm of tokens that the model draws itself, of each window by itself."""
    import torch

    draw = torch.Generator().manual_seed(0)
    for n, window in enumerate(windows):
        logits = predicted(model, window)
        said = torch.log_softmax(logits.float(), -1)
        tokens = torch.multinomial(said.detach().exp(), 1, generator=draw)
        said.gather(1, tokens).sum().backward()
        progress.advance(n + 1)


def _trials(
    model: Any, windows: Sequence[Sequence[int]], places: Mapping[str, Any], found: Mapping[str, np.ndarray],
    progress: Progress, done: int,
) -> np.ndarray:  # fmt: skip
    """For each width: the divergence that second order expects, the measured one, and the share of changed tokens."""
    import numpy as np
    import torch

    before = _said(model, windows)
    originals = {name: place(parameter.data).clone() for name, (parameter, place) in places.items()}
    rows = []
    for bits in _TRIAL_BITS:
        guess = 0.0
        for name, (parameter, place) in places.items():
            rounded = nearest(originals[name].numpy(), bits, _TRIAL_BLOCK)
            guess += _guess(found, name, rounded - originals[name].numpy(), slice(None))
            place(parameter.data).copy_(torch.from_numpy(rounded))
        rows.append((guess, *_apart(before, _said(model, windows))))
        done += len(windows)
        progress.advance(done)
    return np.array(rows)


def tried(
    model: Any, checkpoint: Checkpoint, calibration: Calibration, sensitivity: Sensitivity,
    rounded: Callable[[str, np.ndarray], np.ndarray],
) -> tuple[float, float]:  # fmt: skip
    """What rounding every matrix of `model` should cost to second order, unscaled, and the divergence it does cost.

    `rounded(name, matrix)` gives a matrix `(rows, columns)` as it would be stored. The model is as it was afterwards.
    """
    import torch

    windows = some(calibration.passages, _TRIED)
    places = {name: at for name, at in _matrices(model, checkpoint) if name in sensitivity.rows}
    with torch.inference_mode():
        before = _said(model, windows)
        kept, guess = {}, 0.0
        for name, (parameter, place) in places.items():
            matrix = place(parameter.data)
            kept[name] = matrix.clone()
            new = torch.from_numpy(rounded(name, kept[name].float().numpy()))
            guess += float(sensitivity.damage(name, (new - kept[name]).float().square().numpy()).sum())
            matrix.copy_(new)
        found, _ = _apart(before, _said(model, windows))
        for name, (parameter, place) in places.items():
            place(parameter.data).copy_(kept[name])
    return guess, found


def _streamed_trials(
    model: Any, windows: Sequence[Sequence[int]], found: Mapping[str, np.ndarray], progress: Progress, done: int
) -> np.ndarray:
    """The same of a model whose weights come and go: they are rounded as they come."""
    import numpy as np
    import torch

    before = _said(model, windows)
    rows = []
    for bits in _TRIAL_BITS:
        guesses: dict[str, float] = {}

        def parameter(name: str, values: Any, bits: int = bits, guesses: dict[str, float] = guesses) -> Any:
            if values.dim() == 2:
                matrix = values.numpy()
                rounded, guess = np.empty_like(matrix), 0.0
                for start in range(0, len(matrix), _TRIAL_ROWS):  # rounding takes several copies of what is rounded
                    rows = slice(start, start + _TRIAL_ROWS)
                    rounded[rows] = nearest(matrix[rows], bits, _TRIAL_BLOCK)
                    guess += _guess(found, name, rounded[rows] - matrix[rows], rows)
                guesses[name] = guess
                values = torch.from_numpy(rounded)
            return torch.nn.Parameter(values, requires_grad=False)

        with streamed.changed(model, parameter):
            measured = _apart(before, _said(model, windows))
        rows.append((sum(guesses.values()), *measured))
        done += len(windows)
        progress.advance(done)
    return np.array(rows)


def _guess(found: Mapping[str, np.ndarray], name: str, errors: np.ndarray, rows: slice) -> float:
    """What errors in some rows of a matrix should cost, to second order."""
    if f"rows/{name}" not in found:
        return 0.0
    c, r = found[f"columns/{name}"], found[f"rows/{name}"][rows]
    return float(0.5 * ((errors**2 @ c) * r).sum() / max(1e-30, float(c.sum())))


def _apart(before: Sequence[Any], after: Sequence[Any]) -> tuple[float, float]:
    """Mean divergence and the share of top tokens that changed, never none."""
    kld, lost, n = 0.0, 0, 0
    for old, new in zip(before, after, strict=True):
        kld += float((old.exp() * (old - new)).sum())
        lost += int((old.argmax(-1) != new.argmax(-1)).sum())
        n += len(old)
    return kld / n, max(lost, 0.5) / n


def _floor(model: Any, windows: Sequence[Sequence[int]]) -> np.ndarray:
    """Mean divergence of the source when every linear layer is fed 8 bits in blocks, as llama.cpp and ONNX do it."""
    import numpy as np
    import torch

    def rounded(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        flat = x.reshape(-1, x.shape[-1]).float().numpy()
        return (torch.from_numpy(nearest(flat, 8, _TRIAL_BLOCK)).reshape(x.shape).to(x.dtype), *inputs[1:])

    before = _said(model, windows)
    handles = [m.register_forward_pre_hook(rounded) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    try:
        after = _said(model, windows)
    finally:
        for handle in handles:
            handle.remove()
    kld = sum(float((a.exp() * (a - b)).sum()) for a, b in zip(before, after, strict=True))
    return np.array(kld / sum(len(a) for a in before))


def _said(model: Any, windows: Sequence[Sequence[int]]) -> list[Any]:
    """Logarithms of what the model predicts at each position of each window, `(tokens, vocabulary)`."""
    import torch

    if not streamed.is_streamed(model):
        return [torch.log_softmax(predicted(model, w).float(), -1) for w in windows]
    size = streamed.together(model, windows, int(model.config.vocab_size))
    found = []
    for at in range(0, len(windows), size):
        some_windows = windows[at : at + size]
        ids, real = streamed.padded(some_windows)
        logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits
        found += [torch.log_softmax(row[: len(w)].float(), -1) for w, row in zip(some_windows, logits, strict=True)]
    return found


def nearest(matrix: np.ndarray, bits: int, block: int) -> np.ndarray:
    """Rounded to nearest in blocks of a row with one scale each: as plain as rounding can be."""
    import numpy as np

    rest = -matrix.shape[1] % block
    blocks = np.pad(matrix, ((0, 0), (0, rest))).reshape(len(matrix), -1, block)
    scale = np.maximum(np.abs(blocks).max(-1, keepdims=True) / (2 ** (bits - 1) - 1), 1e-12)
    out: np.ndarray = (np.rint(blocks / scale) * scale).reshape(len(matrix), -1)[:, : matrix.shape[1]]
    return out.astype(np.float32)


def _matrices(model: Any, checkpoint: Checkpoint) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Every matrix: its name, the parameter that holds it, and how it is cut out of that, or of its gradient."""
    layers = {layer.index: layer for layer in experts.layers(checkpoint)}
    for parameter_name, parameter in model.named_parameters():
        if (name := checkpoint.stored_name(parameter_name)) in checkpoint.tensors and parameter.dim() == 2:
            yield name, (parameter, lambda whole: whole)
    for name, module in model.named_modules():
        if (layer := expert_use.layer_of(name, module, layers)) is None:
            continue
        inner = module.down_proj.shape[2]
        for e in range(len(module.down_proj)):
            gate, up, down = layer.keys(e)
            yield gate, (module.gate_up_proj, lambda whole, e=e, n=inner: whole[e][:n])
            yield up, (module.gate_up_proj, lambda whole, e=e, n=inner: whole[e][n:])
            yield down, (module.down_proj, lambda whole, e=e: whole[e])
