"""Counters of a run: events by tile, folded to steps and totals."""
