"""Backward operators in terms of forward ones, so that an inference runtime can execute them.

PyTorch differentiates; its own decompositions reduce most backward operators to arithmetic. What
remains is written here on tensors, where it can be checked against autograd without any ONNX.
"""
