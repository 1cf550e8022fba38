"""A stand-in for Cambricon's MagicMind, on ONNX Runtime: what public call sites show of its interface.

It is stricter than the real one may be: whatever is done out of order, to a tensor that is not on
the card, or with a size outside of the built range fails.
"""
