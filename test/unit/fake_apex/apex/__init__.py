"""A stand-in for apex, which cannot be installed here: the part of its interface that common/precision.py uses.

It behaves as apex's documentation and the issues about it say. No real apex has met this repository.
"""
