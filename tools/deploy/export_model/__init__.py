"""Models to ONNX graphs."""
