"""The layer that learns: integer weights, biases and their formats.

    z_i = clip(R(sum_j w_ij h_j + B_i, Fh + Fw - Fz), low, high)
    B_i = R(b_i, Fb - Fh - Fw)

which is the dense layer of docs/numerics.md, 4.1, with R its one rounding
rule; so a head of a model and the same head here give the same logits.
"""

import dataclasses

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.kernels.ternary import MAX_TWO_PLANES, ternary_matmul
from jaxnmc.numerics.formats import Format
from jaxnmc.numerics.weights import QDense, QVector
from jaxnmc.numerics.wide import round_shift
from jaxnmc.quantize.params import with_dense

WORD = 2**31


@dataclasses.dataclass(frozen=True)
class Formats:
  """Binary points and widths of a head.

  Attributes:
    hidden: of the inputs h, at most 16 bits.
    weight: of the weights, at most 8 bits.
    logits: of the results z.
    bias: of the biases, None without.
  """

  hidden: Format
  weight: Format
  logits: Format
  bias: Format | None = None

  def __post_init__(self):
    for field, most in (("hidden", 16), ("weight", 8), ("logits", 16)):
      found: Format = getattr(self, field)
      if found.bits > most or found.low >= 0:
        raise FormatError(
          f"the format of {field} is {found.bits} bits from {found.low} to"
          f" {found.high}; a layer that learns takes signed formats of at most"
          f" {most} bits"
        )
    if self.bias is not None and self.bias.bits > 24:
      raise FormatError(
        f"the format of bias has {self.bias.bits} bits; allowed are 24"
      )

  @property
  def sum_frac(self) -> int:
    """Fraction bits of a sum of products."""
    return self.hidden.frac + self.weight.frac


@struct.dataclass
class Head:
  """A layer of weights and biases, in integers.

  Attributes:
    weight: int8[V, D].
    bias: int32[V], or None.
    formats: static.
  """

  weight: jax.Array
  bias: jax.Array | None
  formats: Formats = struct.field(pytree_node=False)

  @classmethod
  def of(cls, weight, formats: Formats, bias=None) -> "Head":
    """A head of arrays, checked.

    Args:
      weight: int[V, D] codes.
      formats: of everything.
      bias: int[V] codes, or None.

    Raises:
      ConfigError: other shapes or no integers, or a bias without a format.
      FormatError: codes out of their format, or sums that could leave 32 bits.
    """
    weight = np.asarray(weight)
    if weight.ndim != 2 or not np.issubdtype(weight.dtype, np.integer):
      raise ConfigError(
        f"weight is {weight.dtype}{list(weight.shape)}; allowed are integer"
        " codes [rows, columns]"
      )
    in_format("weight", weight, formats.weight)
    if (bias is None) != (formats.bias is None):
      raise ConfigError(
        f"bias is {'absent' if bias is None else 'given'}, its format"
        f" {'absent' if formats.bias is None else 'given'}; give both or none"
      )
    if bias is not None:
      bias = np.asarray(bias)
      wanted = weight.shape[:1]
      if bias.shape != wanted or not np.issubdtype(bias.dtype, np.integer):
        raise ConfigError(
          f"bias is {bias.dtype}{list(bias.shape)}; allowed are integer codes"
          f" {list(wanted)}"
        )
      assert formats.bias is not None
      in_format("bias", bias, formats.bias)
      bias = jnp.asarray(bias, jnp.int32)
    head = cls(jnp.asarray(weight, jnp.int8), bias, formats)
    head.check_sums(formats.hidden.high)
    return head

  def check_sums(self, largest: int) -> None:
    """Refuses sums that could leave 32 bits, whatever the weights become.

    Args:
      largest: |h| never exceeds it.

    Raises:
      FormatError: they could.
    """
    formats, columns = self.formats, self.weight.shape[1]
    bound = columns * formats.weight.high * largest
    if formats.bias is not None:
      shift = formats.bias.frac - formats.sum_frac
      top = formats.bias.high
      bound += top << -shift if shift < 0 else (top >> shift) + 1
    if bound >= WORD:
      raise FormatError(
        f"sums over {columns} columns could reach {bound}, but accumulators end"
        f" at {WORD - 1}; give hidden or weight fewer bits, or bias fewer"
        " fraction bits"
      )


def in_format(name: str, codes: np.ndarray, fmt: Format) -> None:
  """Refuses codes out of a format.

  Raises:
    FormatError: there are some; the first is named.
  """
  wrong = np.argwhere((codes < fmt.low) | (codes > fmt.high))
  if len(wrong):
    at = [int(i) for i in wrong[0]]
    raise FormatError(
      f"{name}{at} is {codes[tuple(at)]}; its format holds {fmt.low} to"
      f" {fmt.high}"
    )


def sums(weight: jax.Array, hidden: jax.Array) -> jax.Array:
  """Exact products: int8[V, D], int32[..., D] -> int32[..., V]."""
  return ternary_matmul(hidden, weight, MAX_TWO_PLANES)


def finish(formats: Formats, total: jax.Array, bias) -> jax.Array:
  """Logits of sums: the bias is added and the site rounds.

  Args:
    formats: of the head.
    total: int32[..., V], sums of products.
    bias: int32[V], or None.

  Returns:
    int32[..., V].
  """
  if bias is not None and formats.bias is not None:
    shift = formats.bias.frac - formats.sum_frac
    total = total + round_shift(bias, shift, 1 - WORD, WORD - 1)
  fmt = formats.logits
  return round_shift(total, formats.sum_frac - fmt.frac, fmt.low, fmt.high)


def logits(head: Head, hidden: jax.Array) -> jax.Array:
  """z of the equations above: int32[..., D] -> int32[..., V]."""
  total = sums(head.weight, jnp.asarray(hidden, jnp.int32))
  return finish(head.formats, total, head.bias)


@jax.jit
def predict(head: Head, hidden: jax.Array) -> jax.Array:
  """Row with the largest logit, of equal ones the first: int32[...].

  Args:
    head: the layer.
    hidden: int[..., D] codes.
  """
  return jnp.argmax(logits(head, hidden), axis=-1).astype(jnp.int32)


def _leaf(qparams, name: str):
  found = qparams.tree.get(name) if isinstance(qparams.tree, dict) else None
  weight = None if found is None else found.get("weight")
  if not isinstance(weight, QDense):
    raise ConfigError(
      f"parameters {name!r} are no dense layer of 8-bit weights; what learns is"
      " an untied dense head (tie_word_embeddings=False, not ternary)"
    )
  return found, weight


def from_model(plan, qparams, *, hidden: str, name: str = "head") -> Head:
  """The dense head of a quantised model.

  Args:
    plan: its plan.
    qparams: its integers.
    hidden: the site that the head reads, as of `fixed(..., taps=True)`.
    name: of the layer, in the parameters and among the sites.

  Raises:
    ConfigError: the layer is none that can learn.
    FormatError: see `Head.of`.
    PlanError: unknown sites.
  """
  found, weight = _leaf(qparams, name)
  codes, fmt = np.asarray(weight.codes), plan.format(f"{name}.weight")
  bias: QVector | None = found.get("bias")
  formats = Formats(
    hidden=plan.format(hidden),
    weight=fmt,
    logits=plan.format(name),
    bias=None if bias is None else plan.format(f"{name}.bias"),
  )
  return Head.of(codes, formats, None if bias is None else np.asarray(bias.q))


def into_model(qparams, head: Head, name: str = "head"):
  """The quantised model with another head.

  Args:
    qparams: its integers.
    head: of the same shape and formats.
    name: as for `from_model`.

  Returns:
    `QParams` with a fingerprint of its own.  A placement holds weights, so
    `record` and `place` them again, or hand them to the cores (`Learner`).

  Raises:
    ConfigError: a layer of another shape, or none that can learn.
  """
  _, weight = _leaf(qparams, name)
  codes = np.asarray(head.weight)
  if codes.shape != tuple(weight.shape):
    raise ConfigError(
      f"the head is {list(codes.shape)}, that of the model"
      f" {list(weight.shape)}; allowed are equal shapes"
    )
  bias = None if head.bias is None else np.asarray(head.bias)
  return with_dense(qparams, name, codes, bias)
