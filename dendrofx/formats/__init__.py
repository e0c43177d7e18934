"""What a transformed module can be written as, beside TorchScript.

program    a program of `torch.export`, with sizes that vary
compiled   the same compiled by AOTInductor for this machine
onnx       the same as ONNX, for ONNX Runtime; `onnx_checks`, `onnx_guards` are nodes that refuse calls, `onnx_names` what it takes
example    what it is traced with; sizes    what it was traced for; taken    what it is given
"""
