"""Networks without a model behind them, and traffic without an engine."""

from jaxnmc.chip.outline import Builder, matmulfree, ternary, traffic

__all__ = ["STEPS", "Builder", "matmulfree", "ternary", "traffic"]

STEPS = 15  # of a block with fused double norms and one relay hop
