"""Costs by simulation, and the choice of what to train. No torch, no onnx."""
