"""What is timed are InceptionResnetV1's own convolutions, by ways that agree."""

from __future__ import annotations

from math import prod
from unittest import mock

import torch

from benchmarks import small_maps


def test_layers_are_the_networks_own_and_both_ways_of_each_give_the_same() -> None:
    found = small_maps.layers(112, 2)
    assert all(prod(kernel[2:]) > 1 for _, kernel, _, _ in found)
    assert {tuple(kernel[2:]) for _, kernel, _, _ in found} == {(3, 3), (1, 7), (7, 1), (1, 3), (3, 1)}
    results: list[torch.Tensor] = []

    def kept(call) -> float:
        given = call()
        results.append(given[1] if isinstance(given, tuple) else given)
        return 1.0

    with mock.patch.object(small_maps, "milliseconds", kept):
        for layer in (found[0], found[-1]):
            results.clear()
            assert small_maps.timed(layer, torch.float32) == [1.0] * 4
            output, ours, gradient, our_gradient = results
            channels = len(gradient)
            torch.testing.assert_close(output.permute(0, 2, 3, 1).reshape(-1, channels), ours, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(gradient.permute(0, 2, 3, 1).reshape(channels, -1), our_gradient, rtol=1e-3, atol=1e-2)
