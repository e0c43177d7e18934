"""What a transformed module can be written as, beside TorchScript.

program    a program of `torch.export`, with sizes that vary
compiled   the same compiled by AOTInductor for this machine
onnx       the same as ONNX, for ONNX Runtime
"""
