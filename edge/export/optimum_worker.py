"""What runs beside an older transformers: optimum's exporter. It imports nothing of edge.

python -P optimum_worker.py CHECKPOINT FOLDER
"""

from __future__ import annotations

import functools
import sys


def main(checkpoint: str, folder: str) -> None:
    import torch

    # optimum traces; newer versions of torch would not unless they are told to.
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    from optimum.exporters.onnx import main_export

    main_export(
        model_name_or_path=checkpoint,
        output=folder,
        task="text-generation-with-past",
        dtype="fp32",
        device="cpu",
        do_validation=False,
        local_files_only=True,
        trust_remote_code=False,
        library_name="transformers",
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
