"""How a picture becomes pixels and tokens, as data: from the source's own processor and configuration.

What it says is `Bundle.image`; `edge.runtimes.pixels` follows it, and the gate compares the two.
Everything that can disagree (sizes, token counts, ids) is checked here, before anything is converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.errors import EdgeError, InputError, UsageError, require
from edge.export.checkpoint import Checkpoint
from edge.runtimes.tokenizer import Tokenizer

# Processors whose steps are those of `edge.runtimes.pixels`, by their class without a suffix.
_WHOLE = (
    "CLIPImageProcessor",
    "SiglipImageProcessor",
    "LlavaImageProcessor",
    "Gemma3ImageProcessor",
    "ViTImageProcessor",
)
_TILES = ("Idefics3ImageProcessor", "SmolVLMImageProcessor")
_PATCHES = ("Qwen2VLImageProcessor",)


def rule(checkpoint: Checkpoint) -> dict[str, Any]:
    """The rule for this checkpoint's pictures.

    Raises `UsageError` when it has no processor or one of a kind that is not known, `InputError`
    when the processor's configuration and the model's disagree.
    """
    require("PIL", extra="vision", purpose="exporting a model that sees")
    processor = _processor(checkpoint)
    images = processor.image_processor
    kind = type(images).__name__.removesuffix("Fast").removesuffix("Pil")
    own: dict[str, Any] = dict(images.to_dict())
    token, token_id = _token(checkpoint, processor)
    base = {
        "token": token,
        "token_id": token_id,
        "resample": int(own.get("resample") or 2),
        "scale": own["rescale_factor"] if own.get("do_rescale") else None,
        "mean": _channels(own, "image_mean", checkpoint),
        "std": _channels(own, "image_std", checkpoint),
    }
    if kind in _TILES:
        return _tiles(checkpoint, processor, own, base)
    if kind in _WHOLE:
        return _whole(checkpoint, processor, own, base)
    if kind in _PATCHES:
        return _patches(checkpoint, own, base)
    raise UsageError(
        f"{checkpoint.name} prepares pictures with {kind}, which is not exported",
        hint=f"these are: {', '.join((*_WHOLE, *_TILES, *_PATCHES))}",
    )


def refuse_any_size(checkpoint: Checkpoint, made: Mapping[str, Any], where: str) -> None:
    """Raise `UsageError` for pictures of any size, which graphs of one size (those of `where`) cannot take."""
    if made["kind"] == "patches":
        raise UsageError(
            f"{checkpoint.name} takes pictures of any size and places their rows in height and width (M-RoPE); graphs "
            f"in {where} are of one size and count one by one",
            hint="choose --format gguf",
        )


def _processor(checkpoint: Checkpoint) -> Any:
    from edge.export.reference import load_processor

    try:
        processor = load_processor(checkpoint)
    # transformers raises many types of its own for what a folder lacks; all of them mean this.
    except Exception as err:  # noqa: BLE001
        words = (str(err).splitlines() or [type(err).__name__])[0]
        raise UsageError(
            f"{checkpoint.name} has no processor of pictures that can be loaded: {words:.200}",
            hint="it needs processor_config.json or preprocessor_config.json beside its weights",
        ) from None
    if getattr(processor, "image_processor", None) is None:
        raise UsageError(
            f"{checkpoint.name} has no processor of pictures",
            hint="it needs processor_config.json or preprocessor_config.json beside its weights",
        )
    return processor


def _token(checkpoint: Checkpoint, processor: Any) -> tuple[str, int]:
    """The token that stands for one row of features, and its id: the same in tokenizer and configuration."""
    config = checkpoint.config
    said = config.get("image_token_id", config.get("image_token_index"))
    tokenizer = Tokenizer.load(checkpoint.folder)
    token = getattr(processor, "image_token", None)
    if isinstance(said, int):
        text = tokenizer.decode([said])
        if token is None or tokenizer.id_of(str(token)) != said:
            token = text
        if tokenizer.id_of(str(token)) != said:
            raise InputError(
                f"{checkpoint.name}: config.json calls pictures token {said}, which its tokenizer does not have",
                hint="the tokenizer belongs to another model",
            )
    found = None if token is None else tokenizer.id_of(str(token))
    if found is None:
        raise InputError(f"{checkpoint.name} does not say which token stands for a picture")
    if found not in tokenizer.special_ids:
        raise InputError(
            f"{checkpoint.name}: {token!r} is no control token, so that anybody could write it into a question",
            hint="add it to the tokenizer with special=True",
        )
    return str(token), found


def _channels(own: Mapping[str, Any], key: str, checkpoint: Checkpoint) -> list[float] | None:
    if not own.get("do_normalize"):
        return None
    value = own.get(key)
    values = [value] * 3 if isinstance(value, (int, float)) else list(value or ())
    if len(values) != 3 or not all(isinstance(v, (int, float)) for v in values):
        raise InputError(f"{checkpoint.name}: {key} must be three numbers, found {value!r}")
    return [float(v) for v in values]


def _vision(checkpoint: Checkpoint) -> dict[str, Any]:
    """The vision part's configuration with the defaults that checkpoints leave out."""
    import transformers

    found = transformers.AutoConfig.from_pretrained(
        checkpoint.folder, local_files_only=True, trust_remote_code=False
    ).vision_config.to_dict()
    if not isinstance(found.get("image_size"), int):
        raise EdgeError(
            f"the vision part of {checkpoint.name} has pictures of {found.get('image_size')!r}, wanted a number"
        )
    return dict(found)


def _whole(checkpoint: Checkpoint, processor: Any, own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    vision = _vision(checkpoint)
    side, patch = vision["image_size"], vision["patch_size"]
    resize = _size(own.get("size")) if own.get("do_resize") else None
    crop = _size(own.get("crop_size")) if own.get("do_center_crop") else None
    out = crop or resize
    if own.get("do_pan_and_scan"):
        raise UsageError(f"{checkpoint.name} cuts pictures by pan and scan, which is not exported")
    if out is None or "height" not in out or (out["height"], out["width"]) != (side, side):
        raise InputError(
            f"{checkpoint.name}: its processor makes pictures of {out}, its vision encoder takes {side} x {side}",
            hint="the processor's configuration belongs to another model",
        )
    n_tokens, before, after = _count(checkpoint, processor, vision, base["token"])
    pad = None
    if own.get("do_pad") and "pad_size" not in own:
        pad = [int(m * 255) for m in base["mean"] or (0, 0, 0)]
    return {
        "kind": "whole",
        **base,
        "n_tokens": n_tokens,
        "placeholder": _placeholder(checkpoint, processor, base["token"]),
        "before": before,
        "after": after,
        "pad": pad,
        "resize": resize,
        "crop": crop,
        "height": side,
        "width": side,
        "patch": patch,
        "bidirectional": checkpoint.model_type == "gemma3",
    }


def _count(checkpoint: Checkpoint, processor: Any, vision: Mapping[str, Any], token: str) -> tuple[int, str, str]:
    """Rows of features for one picture by the model's configuration, as the processor counts them too."""
    config = checkpoint.config
    grid = (vision["image_size"] // vision["patch_size"]) ** 2
    if checkpoint.model_type == "gemma3":
        n = int(config.get("mm_tokens_per_image", 256))
        said = int(getattr(processor, "image_seq_length", n))
        text = str(getattr(processor, "full_image_sequence", ""))
        before, _, after = text.partition(token * said)
    else:
        before = after = ""
        has_class = "clip" in str(vision.get("model_type"))
        strategy = config.get("vision_feature_select_strategy", "default")
        if strategy not in ("default", "full"):
            raise UsageError(f"{checkpoint.name} selects features by {strategy!r}, which is not exported")
        n = grid + (1 if has_class else 0) - (1 if strategy == "default" else 0)
        patch = getattr(processor, "patch_size", None) or vision["patch_size"]
        extra = int(getattr(processor, "num_additional_image_tokens", 0) or 0)
        chosen = getattr(processor, "vision_feature_select_strategy", None) or strategy
        said = (vision["image_size"] // patch) ** 2 + extra - (1 if chosen == "default" else 0)
    if n != said:
        raise InputError(
            f"{checkpoint.name}: its vision encoder gives {n} rows for a picture, its processor makes room for {said}",
            hint="the processor's configuration belongs to another model",
        )
    return n, before, after


def _tiles(checkpoint: Checkpoint, processor: Any, own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    vision = _vision(checkpoint)
    side, patch = vision["image_size"], vision["patch_size"]
    tile = int(own["max_image_size"]["longest_edge"])
    if tile != side:
        raise InputError(
            f"{checkpoint.name}: its processor makes tiles of {tile}, its vision encoder takes {side} x {side}",
            hint="the processor's configuration belongs to another model",
        )
    n = (side // patch) ** 2 // int(checkpoint.config.get("scale_factor", 2)) ** 2
    said = int(getattr(processor, "image_seq_len", n))
    if n != said:
        raise InputError(
            f"{checkpoint.name}: its vision encoder gives {n} rows for a tile, its processor makes room for {said}",
            hint="the processor's configuration belongs to another model",
        )
    around = str(getattr(processor, "fake_image_token", "<fake_token_around_image>"))
    whole = str(
        getattr(processor, "global_image_token", None) or getattr(processor, "global_image_tag", "<global-img>")
    )
    size = own.get("size") or {}
    return {
        "kind": "tiles",
        **base,
        "n_tokens": n,
        "placeholder": base["token"],
        "longest": int(size["longest_edge"]) if own.get("do_resize") else None,
        "tile": tile,
        "split": bool(own.get("do_image_splitting")),
        "around": around,
        "whole": whole,
        "height": side,
        "width": side,
        "patch": patch,
        "bidirectional": False,
    }


def _patches(checkpoint: Checkpoint, own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Qwen2.5-VL: one view as large as the picture asks for, its rows placed in rows and columns (M-RoPE)."""
    import transformers

    vision = transformers.AutoConfig.from_pretrained(
        checkpoint.folder, local_files_only=True, trust_remote_code=False
    ).vision_config
    made = {"patch": int(own["patch_size"]), "merge": int(own["merge_size"]), "frames": int(own["temporal_patch_size"])}
    taken = {
        "patch": int(vision.patch_size), "merge": int(vision.spatial_merge_size),
        "frames": int(vision.temporal_patch_size),
    }  # fmt: skip
    if made != taken:
        raise InputError(
            f"{checkpoint.name}: its processor makes patches of {made}, its vision encoder takes {taken}",
            hint="the processor's configuration belongs to another model",
        )
    size = own.get("size") or {}
    return {
        "kind": "patches",
        **base,
        **made,
        "placeholder": base["token"],
        "before": "",
        "after": "",
        "least": int(size["shortest_edge"]),
        "most": int(size["longest_edge"]),
        "placed": True,
        "bidirectional": False,
    }


def _placeholder(checkpoint: Checkpoint, processor: Any, token: str) -> str:
    """What a chat template writes for a picture, before it is spread over its rows."""
    if checkpoint.model_type == "gemma3":
        return str(processor.boi_token)
    return token


def _size(value: Any) -> dict[str, int] | None:
    """A processor's size in plain words."""
    if isinstance(value, int):
        return {"shortest_edge": value}
    if not isinstance(value, Mapping):
        return None
    return {k: int(v) for k, v in value.items() if v is not None}
