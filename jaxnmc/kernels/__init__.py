"""Exact integer matrix products."""
