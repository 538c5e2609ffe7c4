"""The source's processor of pictures and text, for checkpoints whose own also takes videos.

`transformers` loads a processor of videos together with it, and that needs torchvision. Of a still picture it takes
no part: what is left is the source's own processor of pictures, its tokenizer and its template, put together here.
"""

from __future__ import annotations

from typing import Any

from edge.export.checkpoint import Checkpoint


class StillPictures:
    """What `Qwen2_5_VLProcessor` does with pictures and text, and nothing of the rest."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.image_token = getattr(tokenizer, "image_token", None) or "<|image_pad|>"

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        text: str = self.tokenizer.apply_chat_template(messages, **options)
        return text

    def __call__(self, *, text: list[str], images: list[list[Any]], return_tensors: str, **options: Any) -> Any:
        """Ids, pixels and grids of one text and its pictures, as `transformers` hands them to the model."""
        import torch

        made = self.image_processor(images[0], return_tensors=return_tensors)
        [whole] = text
        pieces = whole.split(self.image_token)
        counts = [int(grid.prod()) // self.image_processor.merge_size**2 for grid in made["image_grid_thw"]]
        filled = pieces[0] + "".join(self.image_token * n + piece for n, piece in zip(counts, pieces[1:], strict=True))
        ids = self.tokenizer([filled], return_tensors=return_tensors, **options)
        token = self.tokenizer.convert_tokens_to_ids(self.image_token)
        return {**ids, **made, "mm_token_type_ids": (ids["input_ids"] == token).to(torch.int32)}


def still_pictures(checkpoint: Checkpoint, transformers: Any) -> StillPictures:
    """From the checkpoint's own files only."""
    own = {"local_files_only": True, "trust_remote_code": False}
    images = transformers.AutoImageProcessor.from_pretrained(checkpoint.folder, backend="pil", **own)
    return StillPictures(images, transformers.AutoTokenizer.from_pretrained(checkpoint.folder, **own))
