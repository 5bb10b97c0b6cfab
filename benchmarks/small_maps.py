"""Which way InceptionResnetV1's convolutions are quicker on this CPU: the library's own, or products with the matrix of patches.

    python -m benchmarks.small_maps --input-size 75
    python -m benchmarks.small_maps --precision fp32

A line a layer whose output is not larger than 16,384 positions, fewest positions first: milliseconds of one thread's own time (the lower
third of 9 runs) for the output and for the kernel's gradient. `pipeline/models/convolve.py` has its limits from this: bf16 on AMD Zen 5 and
with AMX, fp32 on an Intel without AMX, and with `ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2` on AMD.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F

from pipeline.models import convolve
from pipeline.models.recognisers import make_recogniser
from pipeline.runtime import decide, prepare_torch

MOST, RUNS = 16_384, 9
Layer = tuple[torch.Size, torch.Size, int, tuple[int, int]]  # shapes of input and kernel, stride, padding


def layers(input_size: int, batch: int) -> list[Layer]:
    """The convolutions larger than 1×1, each once, the smallest output first."""
    seen: dict[Layer, int] = {}
    take = convolve.OfSmallMaps.forward

    def forward(ctx, x_BCHW, weight, bias, stride, padding, size):
        seen[(x_BCHW.shape, weight.shape, stride, padding)] = len(x_BCHW) * size[0] * size[1]
        return take(ctx, x_BCHW, weight, bias, stride, padding, size)

    model = make_recogniser(classes=2, input_size=input_size, dropout=0.0, normalise=True, seed=0)
    every = convolve.Few(output=0, gradient=MOST, strided=MOST)
    with (
        mock.patch.object(convolve, "few", return_value=every),
        mock.patch.object(convolve.OfSmallMaps, "forward", forward),
        torch.no_grad(),
    ):
        model(torch.rand(batch, 3, 112, 112))
    return sorted(seen, key=lambda layer: seen[layer])


def milliseconds(call: Callable[[], object]) -> float:
    """One thread's own time for `call`, after a first one."""
    call()
    taken = []
    for _ in range(RUNS):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return 1000 * sorted(taken)[RUNS // 3]


def timed(layer: Layer, dtype: torch.dtype) -> list[float]:
    """Milliseconds: output by the library and by patches, kernel's gradient by the library and by patches."""
    shape, kernel, stride, padding = layer
    x_BCHW, weight = (torch.randn(size).to(dtype, memory_format=torch.channels_last) for size in (shape, kernel))
    y_BCHW = F.conv2d(x_BCHW, weight, None, stride, padding)
    gradient = torch.randn(y_BCHW.shape).to(dtype, memory_format=torch.channels_last)
    flat, kernels = convolve.by_channels(gradient).reshape(-1, len(weight)), convolve.by_channels(weight).flatten(1)

    def by_library() -> object:
        asked = (False, True, False)
        return torch.ops.aten.convolution_backward(
            gradient, x_BCHW, weight, None, (stride, stride), padding, (1, 1), False, (0, 0), 1, asked
        )

    return [
        milliseconds(lambda: F.conv2d(x_BCHW, weight, None, stride, padding)),
        milliseconds(lambda: convolve.patches(x_BCHW, kernel[2:], stride, padding) @ kernels.t()),
        milliseconds(by_library),
        milliseconds(lambda: flat.t() @ convolve.patches(x_BCHW, kernel[2:], stride, padding)),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input-size", type=int, default=112, metavar="PX", help="75 to 224 (default 112)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="photos, 2 to 1024 (default 32)")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="default: what this CPU is quick in")
    args = parser.parse_args()
    for name, value, least, most in (("--input-size", args.input_size, 75, 224), ("--batch", args.batch, 2, 1024)):
        if not least <= value <= most:
            parser.error(f"{name} {value}: allowed are {least} to {most}")
    runtime = decide("cpu", "1", args.precision)
    prepare_torch(runtime, 1)
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    print(f"{runtime.precision}: ms by the library → by patches")
    for layer in layers(args.input_size, args.batch):
        (batch, channels, height, width), kernel, stride, padding = layer
        down, right = ((size + 2 * pad - k) // stride + 1 for size, pad, k in zip((height, width), padding, kernel[2:], strict=True))
        output, ours, gradient, our_gradient = timed(layer, dtype)
        print(
            f"{batch * down * right:6} positions  {channels:3} → {kernel[0]:3}, {kernel[2]}×{kernel[3]}, stride {stride}, "
            f"map {height}×{width}   output {output:6.2f} → {ours:6.2f}   kernel's gradient {gradient:6.2f} → {our_gradient:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
