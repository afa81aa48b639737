"""How synapses are stored, and what that costs.

    dense: 2, 4 or 8 bits for every position of the matrix
    sparse: the same bits and an index for every weight that is not zero

A weight over 8 bits is several digits (`digits`), each stored and walked. The
index of 21 bits is what the paper's "sparse takes 7.5 times dense" says of a
ternary matrix with 35.4 % zeros (`hardware.LOIHI2_FACTS`).
"""

from typing import Any

from jaxnmc.chip.hardware import Hardware
from jaxnmc.chip.network import Synapse
from jaxnmc.chip.placement import digits
from jaxnmc.chip.placement.tiles import Encoding

__all__ = ["PAPER_ZEROS", "dense_bits", "encode", "options"]

# Share of zeros of the 370M model's ternary matrices (Abreu et al. 2025, 2).
PAPER_ZEROS = 0.354

_DENSE_BITS = (2, 4, 8)


def dense_bits(low: int, high: int, hardware: Hardware) -> tuple[int, int]:
  """(bits of a stored weight, digits) of weights from `low` to `high`."""
  most = hardware.weight_bits_max
  parts = digits.count(low, high, most)
  if parts > 1:
    return most, parts
  widths = [bits for bits in _DENSE_BITS if bits < most] + [most]
  return next(b for b in widths if digits.count(low, high, b) == 1), 1


def encode(
  synapse: Synapse, width: int, hardware: Hardware, choice: str = "auto"
) -> Encoding:
  """The encoding of a synapse with the fewest bits, or the one asked for.

  Args:
    synapse: the synapse.
    width: neurons of its source.
    hardware: the chip.
    choice: of dense synapses: `dense`, `sparse`, or `auto`: the smaller one.
  """
  if synapse.kind in ("relay", "gather"):
    return Encoding("dense", 1, _DENSE_BITS[0])
  if synapse.weights is None:
    return Encoding("dense", width, _DENSE_BITS[0])
  bits, parts = synapse.bits, 1
  if bits is None:
    bits, parts = dense_bits(*synapse.span, hardware)
  dense = Encoding("dense", width * parts, bits)
  index = hardware.sparse_index_bits
  if index is None or choice == "dense":
    return dense
  rows = synapse.weights.shape[0]
  entries = -(-synapse.nonzero * parts // rows)
  sparse = Encoding("sparse", entries, bits + index)
  if choice == "sparse":
    return sparse
  smaller = sparse.entries * sparse.bits < dense.entries * dense.bits
  return sparse if smaller else dense


def options(
  rows: int, columns: int, zeros: float, hardware: Hardware
) -> list[dict[str, Any]]:
  """What a matrix takes in each encoding, headers and padding left out.

  Args:
    rows: of the matrix.
    columns: of the matrix.
    zeros: share of its weights that are zero.
    hardware: the chip.

  Returns:
    Rows (encoding, weights, bits: of a stored weight, entries: stored weights,
    bytes, ratio: to dense with the same weights). Without a known
    `sparse_index_bits` there are no sparse ones.
  """
  found: list[dict[str, Any]] = []
  for low, high, what in (
    (-1, 1, "ternary"),
    (-8, 7, "-8 to 7"),
    (-128, 127, "-128 to 127"),
    (-32896, 32639, "-32,896 to 32,639"),
  ):
    bits, parts = dense_bits(low, high, hardware)
    dense = rows * columns * parts
    kinds = [("dense", dense, bits)]
    if hardware.sparse_index_bits is not None:
      stored = round(rows * columns * (1 - zeros)) * parts
      kinds.append(("sparse", stored, bits + hardware.sparse_index_bits))
    for kind, entries, width in kinds:
      found.append(
        {
          "encoding": kind,
          "weights": what,
          "bits": width,
          "entries": entries,
          "bytes": entries * width // 8,
          "ratio": entries * width / (dense * bits),
        }
      )
  return found
