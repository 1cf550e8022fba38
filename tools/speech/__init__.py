"""Figures of synthesized speech."""
