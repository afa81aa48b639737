"""Interpreters of `ops`, the instruction sets below them, recorded graphs."""
