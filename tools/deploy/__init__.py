"""Deployment: ONNX export, inference engines, latency report."""
