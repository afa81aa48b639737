"""Synapses that equal Lava's, and the weight rules behind them."""

from jaxnmc.chip.synapses.lava import Dense, Sparse

__all__ = ["Dense", "Sparse"]
