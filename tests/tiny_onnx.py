"""A recogniser in an ONNX file, as insightface exports them but of three layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_recogniser(path: Path, *, seed: int = 0, last: str = "") -> Path:
    """Weights drawn by `seed`; embeddings of 16 numbers. `last`: one more operator at the end, by its ONNX name."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(seed)
    weights = {
        "kernel": draw.normal(size=(8, 3, 7, 7)) / 12,
        "slope": np.full((8, 1, 1), 0.25),
        "matrix": draw.normal(size=(16, 8 * 16 * 16)) / 45,
        "bias": draw.normal(size=16) / 10,
    }
    nodes = [
        helper.make_node("Conv", ["crops", "kernel"], ["maps"], kernel_shape=[7, 7], strides=[7, 7]),
        helper.make_node("PRelu", ["maps", "slope"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["embedding"], transB=1),
    ]
    if last:
        nodes.append(helper.make_node(last, ["embedding"], ["last"]))
    given = helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["N", 3, 112, 112])
    gives = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["N", 16])
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "recogniser", [given], [gives], tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), str(path))
    return path
