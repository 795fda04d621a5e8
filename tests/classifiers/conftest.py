"""ONNX files to be opened, and not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def write_onnx(tmp_path: Path) -> Callable[..., Path]:
    """Write a classifier: the mean of each channel of its input, times ``weight`` (3, K)."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto

    def write(
        name: str = "model.onnx",
        *,
        shape: tuple[Any, ...] = ("batch", 3, 32, 32),
        weight: Any = ((4.0, -4.0), (0.0, 0.0), (0.0, 0.0)),
        softmax: bool = False,
        dtype: int = kinds.FLOAT,
        metadata: dict[str, str] | None = None,
        location: str | None = None,
        more_inputs: tuple[str, ...] = (),
    ) -> Path:
        values = np.array(weight, dtype=np.float32)
        tensor = onnx.numpy_helper.from_array(values, "weight")
        if location is not None:
            tensor.ClearField("raw_data")
            tensor.data_location = kinds.EXTERNAL
            tensor.external_data.add(key="location", value=location)
        axes = [2, 3] if shape[1:2] != (32,) else [1, 2]
        nodes = [
            helper.make_node("Cast", ["pictures"], ["as_float"], to=kinds.FLOAT),
            helper.make_node("ReduceMean", ["as_float"], ["means"], axes=axes[: len(shape) - 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weight"], ["logits"]),
            *([helper.make_node("Softmax", ["logits"], ["scores"], axis=1)] if softmax else []),
        ]
        graph = helper.make_graph(
            nodes,
            "means",
            [
                helper.make_tensor_value_info("pictures", dtype, shape),
                *(helper.make_tensor_value_info(n, kinds.FLOAT, [1]) for n in more_inputs),
            ],
            [
                helper.make_tensor_value_info(
                    "scores" if softmax else "logits", kinds.FLOAT, [shape[0], values.shape[1]]
                )
            ],
            [tensor],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, metadata or {})
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        return path

    return write
