"""ONNX files of one or two operations, as other people's exports declare them."""

import onnx
from onnx import TensorProto, helper

FLOAT, HALF, BYTES = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


def write_onnx(path, shape, *nodes, out_shape=None, types=(FLOAT, FLOAT), constants=(), more=()):
    """Write a network from x to y, by default the identity.

    `nodes` are tuples: operation, inputs, outputs, attributes. `more` are further inputs.
    """
    nodes = nodes or [("Identity", ["x"], ["y"], {})]
    graph = helper.make_graph(
        [helper.make_node(kind, before, after, **given) for kind, before, after, given in nodes],
        "derainer",
        [
            helper.make_tensor_value_info("x", types[0], shape),
            *(helper.make_tensor_value_info(name, FLOAT, its) for name, its in more),
        ],
        [helper.make_tensor_value_info("y", types[1], out_shape or shape)],
        list(constants),
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def constant(name, *values, kind=FLOAT):
    return helper.make_tensor(name, kind, [len(values)], values)
