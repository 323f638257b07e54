"""The portable format: the training step as plain ONNX graphs."""
