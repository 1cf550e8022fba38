"""Parts of ``tools/make_corpus.py``."""
