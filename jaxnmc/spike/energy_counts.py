"""How many operations a layer has: dense, or driven by spikes."""

import dataclasses
from typing import Any

import numpy as np

from jaxnmc.errors import ConfigError


def positive(name: str, value: Any) -> None:
  """Refuses what is no positive integer.

  Raises:
    ConfigError: it is none.
  """
  whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
  if not whole or value < 1:
    raise ConfigError(f"{name} must be a positive integer; found {value!r}")


def synops(spikes: Any, fanout: Any) -> int:
  """Pairs of a spike and a synapse that it goes to: sum_t spikes[t] @ fanout.

  Additions of biases, residuals and norms are not among them.

  Args:
    spikes: [..., n] of -1, 0 and 1 (a negative spike is a spike).
    fanout: targets of each source, integers[n]; or which there are, [n, m] of
      0 and 1.

  Returns:
    The exact count.

  Raises:
    ConfigError: values that are no spikes, or other shapes.
  """
  sent = np.abs(np.asarray(spikes).astype(np.float64))
  targets = np.asarray(fanout, np.int64)
  if targets.ndim == 2:
    targets = targets.sum(axis=1)
  if not np.isin(sent, (0, 1)).all():
    raise ConfigError(
      "spikes: found values other than -1, 0 and 1; count amplitudes apart"
    )
  if targets.ndim != 1 or sent.ndim < 1 or sent.shape[-1] != len(targets):
    raise ConfigError(
      f"spikes {list(sent.shape)} and fanout {list(np.shape(fanout))} do not"
      " fit: allowed are [..., n] and [n] or [n, m]"
    )
  per_source = sent.reshape(-1, len(targets)).astype(np.int64).sum(axis=0)
  return int(per_source @ targets)


@dataclasses.dataclass(frozen=True)
class Product:
  """One matrix product of a layer, over a whole sequence.

  Attributes:
    name: what it is.
    macs: multiply-accumulates of the dense form.
    driver: whose spikes drive it: a key of `rates`.
    inputs: numbers that drive it, each read once (a spike is one packet).
    outputs: sums that it makes.
    operand: what an addition fetches: "weight", "spike" (one bit) or "sum".
    stores: what an output is: "potential" or "sum".
    in_place: every addition reads and writes an output (else every output is
      read and written once a tick).
  """

  name: str
  macs: int
  driver: str
  inputs: int
  outputs: int
  operand: str = "weight"
  stores: str = "potential"
  in_place: bool = False


def dense(name: str, tokens: int, inp: int, out: int, driver: str) -> Product:
  """The product of `tokens` rows with a matrix [out, inp]."""
  return Product(name, tokens * inp * out, driver, tokens * inp, tokens * out)


@dataclasses.dataclass(frozen=True)
class Attention:
  """Sizes of self-attention over one sequence.

  Attributes:
    tokens: N.
    width: D.
    heads: H, which divides D.
    causal: a token sees itself and those before, N (N + 1) / 2 pairs; else
      all N^2 are counted, as papers do.

  Raises:
    ConfigError: a size below 1, or D that H does not divide.
  """

  tokens: int
  width: int
  heads: int
  causal: bool = True

  def __post_init__(self):
    for field in ("tokens", "width", "heads"):
      positive(field, getattr(self, field))
    if self.width % self.heads:
      raise ConfigError(
        f"width ({self.width}) must be a multiple of heads ({self.heads})"
      )

  @property
  def pairs(self) -> int:
    """(query, key) pairs of one head."""
    n = self.tokens
    return n * (n + 1) // 2 if self.causal else n * n

  def core(self, form: str = "quadratic") -> tuple[Product, ...]:
    """Products of the core; softmax and scaling are not among them.

    Args:
      form: "quadratic", Q K^T and A V; or "linear", the running sum of
        K^T V and Q times it, which only attention without softmax has.

    Raises:
      ConfigError: another form, or "linear" where it is not causal.
    """
    many, d = self.tokens * self.width, self.width // self.heads
    if form == "quadratic":
      macs, scores = self.pairs * self.width, self.pairs * self.heads
      return (
        Product("scores", macs, "q", many, scores, "spike", "sum"),
        Product("values", macs, "v", many, many, "sum"),
      )
    if form != "linear" or not self.causal:
      raise ConfigError(
        f"form {form!r} with causal = {self.causal}: allowed are 'quadratic',"
        " and 'linear' (a running sum over tokens) where it is causal"
      )
    return (
      Product("state", many * d, "k", many, many * d, "spike", "sum", True),
      Product("read", many * d, "q", many, many, "sum"),
    )

  def block(self, form: str = "quadratic") -> tuple[Product, ...]:
    """The core and its four projections, 4 N D^2 more."""
    n, d = self.tokens, self.width
    before = tuple(dense(name, n, d, d, "x") for name in "qkv")
    return (*before, *self.core(form), dense("o", n, d, d, "y"))

  def core_share(self, mlp: int | None = None) -> float:
    """Share of the core in the arithmetic of dense attention.

    Args:
      mlp: width of the channel mixer, to take the share of a whole layer
        (two matrices of it); None for that of the attention block.
    """
    core = sum(p.macs for p in self.core())
    rest = 4 * self.width + 2 * (mlp or 0)
    return core / (core + self.tokens * self.width * rest)
