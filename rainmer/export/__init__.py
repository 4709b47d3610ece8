"""Exports of the derainer: one graph for ONNX Runtime, OpenVINO, TensorRT or TorchScript."""
