"""Guards over sizes in an ONNX graph say what they say in Python."""

from importlib import import_module
from itertools import product

import pytest
import torch

from dendrofx.formats.onnx_checks import PREFIX, add_size_checks
from dendrofx.values.guards import broken

GUARDS = [
    "x.size(0) % 7 != 0", "x.size(0) // 4 == y.size(0)", "max(1, -1 + x.size(0)) > 1", "2 < x.size(0) <= 5",
    "x.size(0) == 3 or y.size(0) >= 2", "math.ceil(x.size(0) / 2) == 2", "round(x.size(0) / 2) == 2",
    "math.trunc(x.size(0) / 2) > 1", "x.size(0) % y.size(0) == 1", "-3 // 2 + x.size(0) == 1", "x.dim() == 2",
    "x.size(0) / y.size(0) == 2", "min(x.size(0), y.size(0), 2) == 2", "x.size(0) ** 2 == 9", "x.size(1) == 2",
]  # fmt: skip


@pytest.mark.peers
@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_holds_in_onnx_where_it_holds_in_python(guard: str) -> None:
    from onnx import TensorProto, helper

    onnxruntime = import_module("onnxruntime")
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b"]),
        helper.make_tensor_value_info("y", TensorProto.BOOL, ["c"]),
    ]
    taken = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "g", given, taken)
    add_size_checks(graph, [guard])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for rows, others in product(range(8), range(4)):
        x, y = torch.zeros(rows, 2), torch.zeros(others, dtype=torch.bool)
        try:
            (found,) = session.run(None, {"x": x.numpy(), "y": y.numpy()})
            said = ""
        except Exception as error:
            found, said = None, str(error)
        held = broken([guard], {"x": x, "y": y}) is None
        assert (found is not None) == held
        assert held or f"Name:'{PREFIX}0: a call is to have {guard}'" in said
        assert found is None or found.shape == (rows, 2)
