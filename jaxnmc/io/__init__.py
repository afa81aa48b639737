"""Checkpoints, tokenizers and the zoo: everything that touches files."""
