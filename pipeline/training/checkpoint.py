"""State of a long loop on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from pipeline.artifacts import sha256_of, whole_file
from pipeline.runtime import say

DIGEST = 64  # characters of a SHA-256 in hexadecimal, with which a file begins


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under `key`, whole or not at all."""
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # of a run that was killed while it wrote
        left_over.unlink(missing_ok=True)
    content = io.BytesIO()
    torch.save({"key": key, "state": state}, content)
    with whole_file(path) as temporary:  # torch reads a flipped bit inside a tensor without a word, so the digest comes first
        temporary.write_bytes(sha256_of(content.getbuffer()).encode() + content.getbuffer())


def load_checkpoint(path: Path, key: str, device: torch.device) -> dict[str, Any] | None:
    """The state saved under the same `key`; None where there is none, it is damaged, or it belongs to another config or input."""
    if not path.exists():
        return None
    try:
        with open(path, "rb") as stream:
            digest, content = stream.read(DIGEST).decode("ascii"), stream.read()
        if sha256_of(content) != digest:
            raise ValueError("not what was written")
        saved = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        found, state = saved["key"], saved["state"]
    except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        say(f"{path}: damaged ({error}); starting anew")
        return None
    if found != key:
        say(f"{path}: belongs to another configuration or input; starting anew")
        return None
    return state
