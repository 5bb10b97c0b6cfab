"""ArcFace's head by its numbers: the margin is on the right class's angle, where there are labels, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.models.heads import ArcFaceHead

SCALE, MARGIN = 32.0, 0.3


def logits(angle: float, label: int | None) -> list[float]:
    """Logits of one embedding, `angle` off the first class's centre and a right angle minus that off the second's; lengths play no part."""
    head = ArcFaceHead(torch.tensor([[5.0, 0.0], [0.0, 0.5]]), scale=SCALE, margin=MARGIN)
    embedding = 3 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    return head(embedding, None if label is None else torch.tensor([label]))[0].tolist()


def test_the_margin_is_on_the_angle_to_the_right_class_alone() -> None:
    first, second = SCALE * math.cos(0.7), SCALE * math.sin(0.7)
    assert logits(0.7, None) == pytest.approx([first, second], abs=1e-4)
    assert logits(0.7, 0) == pytest.approx([SCALE * math.cos(0.7 + MARGIN), second], abs=1e-4)
    assert logits(0.7, 1) == pytest.approx([first, SCALE * math.cos(math.pi / 2 - 0.7 + MARGIN)], abs=1e-4)


def test_beyond_a_half_turn_the_logit_keeps_falling() -> None:
    """There cos(θ + m) would rise again, and reward embeddings for pointing away."""
    edge = math.pi - MARGIN
    for angle in (edge + 0.05, edge + 0.2):
        assert logits(angle, 0)[0] == pytest.approx(SCALE * (math.cos(angle) - MARGIN * math.sin(MARGIN)), abs=1e-4)
    falling = [logits(angle, 0)[0] for angle in torch.linspace(0.01, math.pi - 0.01, 60).tolist()]
    assert falling == sorted(falling, reverse=True)


def test_each_photo_of_a_batch_has_its_own_right_class() -> None:
    torch.manual_seed(0)
    head = ArcFaceHead(torch.randn(4, 8), scale=SCALE, margin=MARGIN)
    embedding, label = torch.randn(3, 8), torch.tensor([2, 0, 2])
    lowered = head(embedding) - head(embedding, label)
    assert (lowered.gather(1, label[:, None]) > 1).all()
    assert not lowered.scatter(1, label[:, None], 0.0).any()
