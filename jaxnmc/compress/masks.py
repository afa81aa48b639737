"""Single weights that are zero: by magnitude, N of M, or more while training.

A mask is a pytree as the parameters are, bool[out, in] for the matrices of the
layers' projections and bool[] (true) for all else; true stays.  Zeros take no
memory away, but no synapse has to be walked for them and no event is counted:
of what shrinks a model there is `shrink`.
"""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax
import optax
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.ops.observe import path_name

__all__ = ["Gradual", "Hold", "apply", "magnitude", "n_of_m", "zeros"]

_MATRIX = re.compile(r"layers\.\d+\.(attn|mlp)\.\w+\.weight")


def _each(params: Any, make) -> Any:
  """A mask: `make` of each matrix of the layers, true for all else."""

  def mask(path, leaf):
    if _MATRIX.fullmatch(path_name(path)):
      return make(leaf)
    return jnp.ones((), bool)

  return jax.tree_util.tree_map_with_path(mask, params)


def _largest(size: jax.Array, gone) -> jax.Array:
  """All but the `gone` smallest; of equals the first go first."""
  order = jnp.argsort(size.reshape(-1), stable=True)
  rank = jnp.zeros(size.size, jnp.int32).at[order].set(jnp.arange(size.size))
  return (rank >= gone).reshape(size.shape)


def magnitude(params: Any, sparsity: float) -> Any:
  """Without the smallest weights of each matrix (Han et al. 2015).

  Args:
    params: float parameters of a model.
    sparsity: share of each matrix that goes, 0 to below 1, rounded to whole
      weights.

  Returns:
    A mask.

  Raises:
    ConfigError: no such share, or one that leaves a matrix without weights.
  """
  _share("sparsity", sparsity)

  def make(leaf):
    gone = math.floor(sparsity * leaf.size + 0.5)
    if gone == leaf.size:
      raise ConfigError(
        f"sparsity: {sparsity} removes all {gone:,} weights of a matrix of"
        f" shape {list(leaf.shape)}; allowed is what leaves at least 1"
      )
    return _largest(jnp.abs(leaf), gone)

  return _each(params, make)


def n_of_m(params: Any, n: int, m: int) -> Any:
  """The n largest of every m weights in a row, along the inputs.

  N:M sparsity (Mishra et al. 2021, arXiv 2104.08378).  Inputs left over at the
  end of a row are a shorter group, which keeps n, too.

  Args:
    params: float parameters of a model.
    n: weights that stay, 1 to m.
    m: weights in a group.

  Returns:
    A mask.

  Raises:
    ConfigError: no such n and m.
  """
  whole = all(isinstance(x, int) and not isinstance(x, bool) for x in (n, m))
  if not whole or not 1 <= n <= m:
    raise ConfigError(
      f"mask: found {n}:{m}, allowed are whole numbers N:M with 1 <= N <= M:"
      " how many of every M weights stay, as 2:4"
    )

  def make(leaf):
    rows, width = leaf.shape
    size = jnp.abs(leaf)
    # Nothing is smaller than what is not there.
    size = jnp.pad(size, ((0, 0), (0, -width % m)), constant_values=-1)
    groups = size.reshape(rows, -1, m)
    order = jnp.argsort(-groups, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)
    return (rank < n).reshape(rows, -1)[:, :width]

  return _each(params, make)


def apply(params: Any, masks: Any) -> Any:
  """Parameters with zeros where a mask is false."""
  blank = lambda x, mask: jnp.where(mask, x, jnp.zeros((), x.dtype))
  return jax.tree.map(blank, params, masks)


def zeros(params: Any) -> dict[str, tuple[int, int]]:
  """Zero weights and all weights of each matrix that masks are for, by path."""
  found = {}
  for key, leaf in jax.tree_util.tree_leaves_with_path(params):
    path = path_name(key)
    if _MATRIX.fullmatch(path):
      found[path] = (int(jnp.sum(leaf == 0)), int(leaf.size))
  return found


def _share(what: str, value: float) -> None:
  if not 0 <= value < 1:  # also refuses NaN
    raise ConfigError(
      f"{what}: found {value}, allowed is a share from 0 to below 1 (0.5 makes"
      " half of all weights zero)"
    )


class State(NamedTuple):
  """Of a transform: int32[] steps done, and the mask."""

  step: jax.Array
  masks: Any


def _kept(updates: Any, params: Any, masks: Any) -> Any:
  """Updates after which what is masked is exactly 0."""
  keep = lambda u, p, mask: jnp.where(mask, u, (-p).astype(u.dtype))
  return jax.tree.map(keep, updates, params, masks)


def _need(params: Any) -> None:
  if params is None:
    raise ConfigError(
      "masks: update(updates, state) was called without params, found None;"
      " pass them as a third argument"
    )


@dataclasses.dataclass(frozen=True)
class Hold:
  """What is zero at the start of training stays zero: of pruned parameters."""

  @property
  def reached(self) -> int:
    """Steps after which the mask is the last one."""
    return 0

  def transform(self) -> optax.GradientTransformation:
    """The last one of an `optax.chain`, behind the optimiser."""

    def init(params):
      masks = _each(params, lambda leaf: leaf != 0)
      return State(jnp.zeros((), jnp.int32), masks)

    def update(updates, state, params=None):
      _need(params)
      made = _kept(updates, params, state.masks)
      return made, State(state.step + 1, state.masks)

    return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradual:
  """A share of zeros that grows while training (Zhu & Gupta 2017).

      s_t = s_f + (s_i - s_f) (1 - (t - b) / (e - b))^3

  in steps t = b, b + every, ... and e (arXiv 1710.01878, eq. 1); in between
  masks stay, and a weight that is masked stays so.

  Attributes:
    final: share of each matrix that is zero in the end, s_f.
    begin: first step of training that masks, b.
    end: the last one, e.
    every: steps between new masks.
    initial: share in step b, s_i.

  Raises:
    ConfigError: a share that is none, or steps that are out of order.
  """

  final: float
  begin: int = 0
  end: int = 1000
  every: int = 100
  initial: float = 0.0

  def __post_init__(self) -> None:
    """Refuses what is no schedule."""
    _share("final", self.final)
    _share("initial", self.initial)
    if self.initial > self.final:
      raise ConfigError(
        f"initial: found {self.initial}, allowed is at most final"
        f" ({self.final}): what is masked stays so"
      )
    if not 0 <= self.begin < self.end or self.every < 1:
      raise ConfigError(
        f"begin, end, every: found {self.begin}, {self.end}, {self.every};"
        " allowed is 0 <= begin < end, and every from 1"
      )

  @property
  def reached(self) -> int:
    """Steps after which the mask is the last one."""
    return self.end + 1

  def sparsity(self, step) -> jax.Array:
    """The share of zeros behind a step from `begin` on, float32[]."""
    past = (jnp.asarray(step, jnp.float32) - self.begin) / (
      self.end - self.begin
    )
    left = (1 - jnp.clip(past, 0, 1)) ** 3
    return self.final + (self.initial - self.final) * left

  def transform(self) -> optax.GradientTransformation:
    """The last one of an `optax.chain`, behind the optimiser.

    Masks are chosen by the magnitudes in front of the step.
    """

    def init(params):
      masks = _each(params, lambda leaf: jnp.ones(leaf.shape, bool))
      return State(jnp.zeros((), jnp.int32), masks)

    def grown(params, masks, step):
      share = self.sparsity(step)

      def mask(leaf, old):
        if not old.ndim:
          return old
        gone = jnp.floor(share * leaf.size + 0.5).astype(jnp.int32)
        return _largest(jnp.where(old, jnp.abs(leaf), -1), gone)

      return jax.tree.map(mask, params, masks)

    def update(updates, state, params=None):
      _need(params)
      t = state.step
      due = (t >= self.begin) & ((t - self.begin) % self.every == 0)
      due = (due & (t < self.end)) | (t == self.end)
      masks = lax.cond(
        due, lambda: grown(params, state.masks, t), lambda: state.masks
      )
      return _kept(updates, params, masks), State(t + 1, masks)

    return optax.GradientTransformation(init, update)
