"""The calibrating interpreter: which range does each site take on real data?

It computes what `reference` computes, and leaves on its tape the largest
magnitude of every site.  On the way it learns which parameter plays which
part, so that `quantize_params` needs no knowledge of any model.
"""

import dataclasses
from typing import Any

import jax
from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.numerics.histogram import magnitude_counts
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops.constants import constant
from jaxnmc.ops.reference import Reference, centred


@dataclasses.dataclass(frozen=True)
class Role:
  """The part one parameter plays.

  Attributes:
    kind: "matrix" (ternary), "dense" (any other), "gain", "table" or "const".
    site: path whose format the parameter takes.
    shape: shape of the parameter.
    transform: name of the constant function, for "const".
  """

  kind: str
  site: str
  shape: tuple[int, ...]
  transform: str | None = None


@dataclasses.dataclass
class Notes:
  """What one trace learned besides ranges (static facts, by path).

  Attributes:
    roles: parameter path -> its part.
    units: sites that lie in [0, 1].
    wholes: site of whole numbers -> their largest magnitude.
    aligns: site -> the site whose fraction bits bound its own.
  """

  roles: dict[str, Role] = dataclasses.field(default_factory=dict)
  units: set[str] = dataclasses.field(default_factory=set)
  wholes: dict[str, int] = dataclasses.field(default_factory=dict)
  aligns: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A parameter that still knows its path; only `ops` may open it."""

  path: str
  value: Any


def path_name(path) -> str:
  """A JAX key path as text: params["layers"][0]["attn"] -> layers.0.attn."""
  return jax.tree_util.keystr(path, simple=True, separator=".")


def label_leaves(params):
  """The same tree with every array (or `Ternary`) wrapped in a `Leaf`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: Leaf(path_name(path), x),
    params,
    is_leaf=lambda x: isinstance(x, Ternary),
  )


# What stands behind a path on the tape, besides its largest magnitude.
HISTOGRAM, CHANNELS = "#histogram", "#channels"


class Observe(Reference):
  """Reference that measures; parameters come as `Leaf`s (`label_leaves`).

  Args:
    notes: filled with static facts while tracing.
    histograms: also count magnitudes, int32[BINS] at `<path>#histogram`.
    channels: also the largest of each channel, [n] at `<path>#channels`.

  Raises (every op that takes a parameter):
    PlanError: it is no `Leaf`, or it is used a second time in another part.
  """

  def __init__(
    self, notes: Notes, histograms: bool = False, channels: bool = False
  ) -> None:
    super().__init__()
    self.notes = notes
    self.histograms = histograms
    self.channels = channels

  def _open(self, leaf, kind: str, site: str, transform: str | None = None):
    if not isinstance(leaf, Leaf):
      raise PlanError(
        f"{site}: expected a parameter as it stands in the params tree, found"
        f" {type(leaf).__name__}; arithmetic on parameters belongs into"
        " ops.const(..., transform=...)"
      )
    role = Role(kind, site, tuple(leaf.value.shape), transform)
    known = self.notes.roles.setdefault(leaf.path, role)
    if known != role:
      raise PlanError(
        f"parameter {leaf.path} is used twice, as {known.kind} at"
        f" {known.site} and as {kind} at {site}; give each use its own copy"
      )
    return leaf.value

  def _measure(self, path: str, x) -> None:
    self.emit(path, jnp.max(jnp.abs(x)).astype(jnp.float32), "max")
    if self.histograms:
      self.emit(path + HISTOGRAM, magnitude_counts(x), "sum")
    if self.channels:
      most = jnp.max(jnp.abs(x), axis=tuple(range(x.ndim - 1)))
      self.emit(path + CHANNELS, most.astype(jnp.float32), "max")

  def site(self, name, x, align=None, unit=False, whole=None):
    """Measures max |x|."""
    path = self.path(name)
    if unit:
      self.notes.units.add(path)
    if whole is not None:
      self.notes.wholes[path] = whole
    if align is not None:
      # A sibling outside of the scan's own scope: the last part is replaced.
      self.notes.aligns[path] = align
    self._measure(path, x)
    return x

  def embed(self, name, table, ids):
    """Measures the whole table, not only the rows seen."""
    path = self.path(name)
    table = self._open(table, "table", path)
    self._measure(path, table)
    return jnp.take(table, ids, axis=0)

  def const(self, name, param, transform=None, unit=False):
    """Measures the constant after its function."""
    path = self.path(name)
    if unit:
      self.notes.units.add(path)
    value = constant(transform)(self._open(param, "const", path, transform))
    self._measure(path, value)
    return value

  def linear(self, name, weight, x):
    """Notes the matrix."""
    weight = self._open(weight, "matrix", self.path(name))
    return super().linear(name, weight, x)

  def dense(self, name, weight, x, bias=None, tied=None):
    """Measures matrix and bias; a tied matrix is the table it is tied to."""
    path = self.path(name)
    if tied is None:
      weight = self._open(weight, "dense", path + ".weight")
      self._measure(path + ".weight", weight)
    else:
      weight = self._open(weight, "table", tied)
    if bias is not None:
      bias = self._bias(path + ".bias", bias)
    return super().dense(name, weight, x, bias)

  def _bias(self, path: str, bias):
    value = self._open(bias, "const", path)
    self._measure(path, value)
    return value

  def layer_norm(self, name, x, gain, bias, eps):
    """Measures gain, bias, mean square, result and what lies on the way."""
    path = self.path(name)
    gain = self._gain(path + ".gain", gain)
    bias = self._bias(path + ".bias", bias)
    self._square(path, centred(x))
    return super().layer_norm(name, x, gain, bias, eps)

  def _gain(self, path: str, gain):
    value = self._open(gain, "gain", path)
    self._measure(path, value)
    return value

  def _square(self, path: str, x) -> None:
    mean = jnp.mean(jnp.square(x), axis=-1)
    self.emit(path + ".mean_square", jnp.max(mean).astype(jnp.float32), "max")

  def norm(self, name, x, gain, eps):
    """Measures gain, mean square and result."""
    path = self.path(name)
    gain = self._gain(path + ".gain", gain)
    self._square(path, x)
    return super().norm(name, x, gain, eps)

  def norms(self, name, x, gains, eps):
    """Measures gains, mean square and results."""
    path = self.path(name)
    gains = {k: self._gain(f"{path}.{k}.gain", g) for k, g in gains.items()}
    self._square(path, x)
    return super().norms(name, x, gains, eps)

  def double_norm(self, name, x, gain, gains, eps1, eps2):
    """Measures all gains, the value between, mean square and results."""
    path = self.path(name)
    gain = self._gain(path + ".gain", gain)
    gains = {k: self._gain(f"{path}.{k}.gain", g) for k, g in gains.items()}
    self._measure(path + ".v", x * gain)
    self._square(path, x * gain)
    return super().double_norm(name, x, gain, gains, eps1, eps2)
