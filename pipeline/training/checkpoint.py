"""State of a long loop on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from pipeline.artifacts import clear_left_over, sha256_of, sha256_of_file, whole_file
from pipeline.runtime import say

DIGEST = 64  # characters of a SHA-256 in hexadecimal, with which a file ends


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under `key`, whole or not at all."""
    clear_left_over(path)
    with whole_file(path) as temporary:
        torch.save({"key": key, "state": state}, temporary)
        digest = sha256_of_file(temporary)
        with open(temporary, "ab") as stream:  # torch reads a flipped bit inside a tensor without a word
            stream.write(digest.encode())


def load_checkpoint(path: Path, key: str, device: torch.device, *, found: str = "going on from there") -> dict[str, Any] | None:
    """The state saved under the same `key`; None where there is none, it is damaged, or it belongs to another config or input.

    Args:
        found: what is said of the file where the state is taken.
    """
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        if sha256_of(content[:-DIGEST]).encode() != content[-DIGEST:]:
            raise ValueError("not what was written")
        saved = torch.load(io.BytesIO(content[:-DIGEST]), map_location=device, weights_only=True)
        belongs_to, state = saved["key"], saved["state"]
    except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        say(f"{path}: damaged ({error}); starting anew")
        return None
    if belongs_to != key:
        say(f"{path}: belongs to another configuration or input; starting anew")
        return None
    say(f"{path}: {found}")
    return state
