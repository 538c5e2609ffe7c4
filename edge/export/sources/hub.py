"""A hub id such as HuggingFaceTB/SmolLM2-135M-Instruct, through `huggingface_hub`."""

from __future__ import annotations

from pathlib import Path

from edge.errors import EdgeError, UsageError, require
from edge.export.checkpoint import Checkpoint
from edge.export.sources.folder import open_folder
from edge.progress import Progress

_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "README.md"]


def open_hub(repo_id: str, *, progress: Progress) -> Checkpoint:
    """The local snapshot when it is complete, else a download that the user asked for by this id.

    Raises `EdgeError` when there is no network, `UsageError` when the id does not exist.
    """
    require("huggingface_hub", extra="export", purpose=f"fetching {repo_id}")
    import huggingface_hub
    from huggingface_hub import errors

    try:
        local = Path(huggingface_hub.snapshot_download(repo_id, allow_patterns=_WANTED, local_files_only=True))
        if (local / "config.json").is_file() and any(local.glob("*.safetensors")):
            return open_folder(local, name=repo_id.split("/")[1])
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        pass
    progress.say(f"downloading {repo_id}")
    try:
        folder = Path(huggingface_hub.snapshot_download(repo_id, allow_patterns=_WANTED))
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as err:
        raise UsageError(
            f"the hub has no model {repo_id!r} that you may read", hint="log in with: hf auth login"
        ) from err
    except (OSError, errors.HfHubHTTPError, RuntimeError) as err:
        raise EdgeError(
            f"{repo_id} is not in the local cache, and the hub cannot be reached ({type(err).__name__})",
            hint=f"on a machine with network: hf download {repo_id} --local-dir FOLDER; then: edge export FOLDER",
        ) from err
    return open_folder(folder, name=repo_id.split("/")[1])
