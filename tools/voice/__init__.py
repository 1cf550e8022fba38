"""Training of a voice on a card: ``tools/train_voice.py``."""
