"""ATen operators to ONNX operators that every stock ONNX Runtime from 1.18 on executes."""
