"""`model.litertlm`: model, tokenizer and chat template in one file, for LiteRT-LM.

edge export SOURCE --format tflite --also litertlm
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.errors import InputError, require
from edge.export.packings import _litertlm_vision as vision
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

FORMAT = "tflite"
FILE = "model.litertlm"

_WORDS = (
    "{%- macro words(content) -%}{%- if content is string -%}{{ content }}{%- else -%}"
    "{%- for part in content -%}{{ part['text'] }}{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)

# The runtime treats these model types in a way of its own; all others are "generic".
_MODEL_TYPES = {"qwen3": "qwen3", "qwen2": "qwen2p5", "gemma3_text": "gemma3"}
_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_HEADER_END_AT = 24  # where the file says how long its header is


def write(folder: Path, draft: Bundle, config: Mapping[str, Any]) -> None:
    """Pack `folder`'s model, tokenizer and template into `folder/model.litertlm`.

    The same bundle gives the same bytes: the builder's random id and its clock are replaced by
    what follows from the content. Raises `InputError` for a bundle without a tokenizer, `UsageError` for
    one whose pictures LiteRT-LM cannot cut.
    """
    require("litert_lm_builder", extra="export", purpose="packing for LiteRT-LM")
    from litert_lm_builder import litertlm_builder as builder

    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder} has no tokenizer.json to pack for LiteRT-LM")
    made = builder.LitertLmFileBuilder()
    made.add_system_metadata(builder.Metadata(key="Authors", value=draft.name, dtype=builder.DType.STRING))
    with tempfile.TemporaryDirectory() as work:
        metadata = Path(work) / "llm_metadata.pb"
        metadata.write_bytes(_metadata(folder, draft, config).SerializeToString(deterministic=True))
        made.add_llm_metadata(str(metadata))
        made.add_hf_tokenizer(str(folder / "tokenizer.json"))
        made.add_tflite_model(str(folder / draft.model_file), builder.TfLiteModelType.PREFILL_DECODE)
        if draft.parts:
            kinds = builder.TfLiteModelType
            vision.write(folder, draft.parts, draft.image, Path(work))
            made.add_tflite_model(str(Path(work) / vision.EMBEDDER), kinds.EMBEDDER)
            made.add_tflite_model(str(Path(work) / vision.ENCODER), kinds.VISION_ENCODER)
            made.add_tflite_model(str(Path(work) / vision.ADAPTER), kinds.VISION_ADAPTER)
        with (folder / FILE).open("w+b") as file:
            made.build(file)
    _fix_identity(folder / FILE, draft)


def _metadata(folder: Path, draft: Bundle, config: Mapping[str, Any]) -> Any:
    """What LiteRT-LM has to know: the template, where answers end, how much fits."""
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    found = llm_metadata_pb2.LlmMetadata()
    found.max_num_tokens = draft.context_length
    for stop in draft.stop_ids:
        found.stop_tokens.add().token_ids.ids.append(stop)
    tokenizer = Tokenizer.load(folder)
    plain = tokenizer.encode("x", add_special=True)
    if len(plain) > len(tokenizer.encode("x")):  # the tokenizer puts a token before every text
        found.start_token.token_ids.ids.append(plain[0])
    if template := ChatTemplate.load(folder):
        found.jinja_prompt_template = taking_parts(template.source)
    kind = _MODEL_TYPES.get(str(config.get("model_type")), "generic_model")
    getattr(found.llm_model_type, kind).SetInParent()
    if draft.parts:
        vision.describe(found.llm_model_type.generic_model, draft.image)
    return found


def _fix_identity(path: Path, draft: Bundle) -> None:
    """Overwrite the header's random uuid and its timestamp in place, with values of the same length."""
    fixed = ((_UUID, str(uuid.uuid5(uuid.NAMESPACE_OID, draft.id))), (_TIME, "1970-01-01T00:00:00.000000+00:00"))
    with path.open("r+b") as file:
        file.seek(_HEADER_END_AT)
        end = int.from_bytes(file.read(8), "little")
        file.seek(0)
        header = file.read(end)
        for pattern, value in fixed:
            for found in pattern.finditer(header):
                file.seek(found.start())
                file.write(value.encode())


def taking_parts(template: str) -> str:
    """The template with every content of a message read as LiteRT-LM hands it over: as a list of parts.

    Templates that look at parts themselves stay as they are.
    """
    if re.search(r"is (not )?(string|iterable|sequence)\b", template):
        return template
    changed = re.sub(r"\bmessage(\[(['\"])content\2\]|\.content\b)", r"words(message\1)", template)
    return template if changed == template else _WORDS + changed
