"""State on disk: read back whole, or not trusted, wherever it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import StageError
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.stage import read_history


def test_damage_anywhere_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, device = tmp_path / "checkpoint.pt", torch.device("cpu")
    save_checkpoint(path, "k", {"weights": torch.arange(6), "names": ["a", "ü"], "epoch": 3})
    whole = path.read_bytes()
    state = load_checkpoint(path, "k", device)
    assert state is not None and state["epoch"] == 3
    assert "checkpoint.pt: going on from there" in capsys.readouterr().err
    assert load_checkpoint(path, "other", device) is None
    random = np.random.default_rng(0)
    inside = whole.index(torch.arange(6).numpy().tobytes())  # torch itself would take another number there without a word
    for place in [*random.integers(0, len(whole), 60), inside, inside + 8]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        assert load_checkpoint(path, "k", device) is None, place
    for some in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(some)
        assert load_checkpoint(path, "k", device) is None


@pytest.mark.parametrize("text", ["", "{", '{"epoch": 1}\n{', '{"epoch": 1}\n', '{"epoch": 2}\n', "null\n{}\n"])
def test_a_history_that_says_nothing_or_not_all_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(text)
    with pytest.raises(StageError, match=r"history\.jsonl: .*; delete it and run the same command again"):
        read_history(path, 2)
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert len(read_history(path, 2)) == 2
