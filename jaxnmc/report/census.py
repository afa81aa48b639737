"""What the arithmetic of a model is made of: a count of operations per token.

Counted are the instructions of the recorded network, so what a chip executes:
a product with a ternary matrix adds or subtracts where the weight is not
zero, and multiplies nothing; multiplications are in the programs of neurons.
"""

import dataclasses

import numpy as np

from jaxnmc.ops.graph import Graph

# Multiplications that one neuron does in an instruction.
_MULTIPLIES = {"mul": 1, "mul_shr": 1, "mean_square": 1, "sigmoid": 1}
# Five Newton steps of three products each (docs/numerics.md, 6.1).
_MULTIPLIES["inv_sqrt"] = 15


@dataclasses.dataclass(frozen=True)
class Census:
  """Operations per token.

  Attributes:
    additions: in matrix products, one per weight that is not zero.
    product_multiplications: in matrix products, one per weight that is not
      -1, 0 or 1.
    neuron_multiplications: in neuron programs.
    matrices: number of matrices.
    zeros: mean share of zero weights over matrices.
    zeros_spread: its standard deviation over matrices.
  """

  additions: int
  product_multiplications: int
  neuron_multiplications: int
  matrices: int
  zeros: float
  zeros_spread: float


def census(graph: Graph) -> Census:
  """Counts the operations of a recorded network."""
  additions = multiplied = neurons = 0
  zeros = []
  for node in graph.nodes:
    if node.op == "dense" and node.data is not None:
      codes = np.asarray(node.data)
      additions += int(np.count_nonzero(codes))
      multiplied += int((np.abs(codes) > 1).sum())
      zeros.append(float((codes == 0).mean()))
    neurons += _MULTIPLIES.get(node.op, 0) * node.width
  share = np.array(zeros or [0.0])
  return Census(
    additions,
    multiplied,
    neurons,
    len(zeros),
    float(share.mean()),
    float(share.std()),
  )
