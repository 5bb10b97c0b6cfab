"""State of a long loop on disk, so that a killed run goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.artifacts import whole_file
from pipeline.runtime import say


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under `key`, whole or not at all."""
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # of a run that was killed while it wrote
        left_over.unlink(missing_ok=True)
    with whole_file(path) as temporary:
        torch.save({"key": key, "state": state}, temporary)


def load_checkpoint(path: Path, key: str, device: torch.device) -> dict[str, Any] | None:
    """The state saved under the same `key`; None where there is none, it is damaged, or it belongs to another config or input."""
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        found, state = saved["key"], saved["state"]
    except Exception as error:  # what a damaged pickle raises depends on where it is damaged
        say(f"{path}: damaged ({type(error).__name__}); starting anew")
        return None
    if found != key:
        say(f"{path}: belongs to another configuration or input; starting anew")
        return None
    return state
