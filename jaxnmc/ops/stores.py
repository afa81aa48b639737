"""Where an interpreter gets its integer parameters from.

`IntStore` takes leaves that `quantize_params` made.  `FloatStore` makes the
same integers from float leaves while tracing, with gradients, for `fake_quant`.
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.numerics.formats import SYNAPSE_BITS, Format
from jaxnmc.numerics.ste import ste
from jaxnmc.numerics.ternary import Ternary, scale_of
from jaxnmc.numerics.weights import QDense, QMatrix, QVector
from jaxnmc.ops.constants import constant


def check_qparams(qparams, plan) -> None:
  """Refuses what is not the result of `quantize_params` under this plan.

  Raises:
    PlanError: float params, or qparams of another plan.
  """
  if not hasattr(qparams, "check"):
    raise PlanError(
      "expected the result of quantize_params, found"
      f" {type(qparams).__name__}; integers come in as integers"
    )
  qparams.check(plan)


class IntStore:
  """Parameters as `quantize_params` left them.

  Raises (every method):
    PlanError: the leaf at this path is something else.
  """

  def _need(self, path: str, leaf, kind: type):
    if not isinstance(leaf, kind):
      raise PlanError(
        f"{path}: expected a quantised parameter ({kind.__name__}), found"
        f" {type(leaf).__name__}; pass the result of quantize_params"
      )
    return leaf

  def matrix(self, path: str, leaf) -> QMatrix:
    """An integer matrix, codes int8[out, in]."""
    return self._need(path, leaf, QMatrix)

  def dense(self, path: str, leaf, fmt: Format) -> QDense:
    """A dense integer matrix, codes int8[out, in]."""
    del fmt
    return self._need(path, leaf, QDense)

  def tied(self, path: str, leaf, fmt: Format, table: str) -> QDense:
    """A table [V, n] as the matrix of the product at `path`.

    Args:
      path: the product.
      leaf: the table.
      fmt: its format.
      table: path of the site that has it.

    Raises:
      PlanError: it has more bits than a synapse.
    """
    leaf = self._need(path, leaf, QVector)
    if leaf.l1 is None:
      raise PlanError(
        f"{path}: its matrix is the table of {table}, which has {fmt.bits}"
        f" bits, but a synapse has {SYNAPSE_BITS}; give the table"
        f" {SYNAPSE_BITS} bits (table_bits={SYNAPSE_BITS}), or this product a"
        " matrix of its own"
      )
    return QDense(leaf.q.astype(np.int8), frac=leaf.frac, l1=leaf.l1)

  def table(self, path: str, leaf, fmt: Format) -> QVector:
    """An integer embedding table, [V, n]."""
    del fmt
    return self._need(path, leaf, QVector)

  def gain(self, path: str, leaf, plan) -> QVector:
    """The integer gain of a norm, [n]."""
    del plan
    return self._need(path, leaf, QVector)

  def const(self, path: str, leaf, fmt: Format, transform) -> QVector:
    """A constant; its function was applied by `quantize_params`."""
    del fmt, transform
    return self._need(path, leaf, QVector)


class FloatStore:
  """Float parameters rounded on the fly, straight-through.

  The integers are those of `quantize_params`, as floats (docs/numerics.md, 4, 5
  and 9).

  Args:
    dtype: float type of the results.
  """

  def __init__(self, dtype) -> None:
    self.dtype = dtype

  def matrix(self, path: str, leaf) -> QMatrix:
    """Ternary codes and the 16-bit multiplier, as floats.

    Args:
      path: not used.
      leaf: latent float[out, in] or `Ternary`.

    Returns:
      `QMatrix` with float codes [out, in] and mult [], exp 0.
    """
    del path
    if isinstance(leaf, Ternary):
      codes, scale = leaf.codes.astype(self.dtype), leaf.scale
    else:
      leaf = leaf.astype(self.dtype)
      scale = jax.lax.stop_gradient(scale_of(leaf))
      latent = leaf / scale
      codes = ste(jnp.clip(jnp.round(latent), -1, 1), latent)
    fraction, exponent = jnp.frexp(scale.astype(self.dtype))
    mult = jnp.ldexp(jnp.floor(fraction * 65536 + 0.5), exponent - 16)
    # Bounds are the business of `fixed`; floats do not overflow here.
    return QMatrix(codes, mult, exp=0, l1=0)

  def _round(self, x, fmt: Format) -> QVector:
    scaled = x.astype(self.dtype) * 2.0**fmt.frac
    q = jnp.clip(ste(jnp.floor(scaled + 0.5), scaled), fmt.low, fmt.high)
    return QVector(q, frac=fmt.frac, low=fmt.low, high=fmt.high)

  def dense(self, path: str, leaf, fmt: Format) -> QDense:
    """Rounded dense matrix, of any number of bits."""
    del path
    return QDense(self._round(leaf, fmt).q, frac=fmt.frac, l1=0)

  def tied(self, path: str, leaf, fmt: Format, table: str) -> QDense:
    """Rounded table as a dense matrix."""
    del table
    return self.dense(path, leaf, fmt)

  def table(self, path: str, leaf, fmt: Format) -> QVector:
    """Rounded embedding table."""
    del path
    return self._round(leaf, fmt)

  def gain(self, path: str, leaf, plan) -> QVector:
    """Rounded gain."""
    return self._round(leaf, plan.format(path))

  def const(self, path: str, leaf, fmt: Format, transform) -> QVector:
    """Rounded constant."""
    del path
    return self._round(constant(transform)(leaf), fmt)
