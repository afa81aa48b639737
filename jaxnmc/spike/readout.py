"""Read-out: T ticks of output drives or spikes become a token.

Each token has an output neuron.  With drive x_t[v] of neuron v in tick t and
what a tick is worth, w_t (1 for counts, powers of two for bits):

    potential   argmax_v sum_t w_t x_t[v]
    activity    argmax_v of the number of spikes, of equals the largest membrane
                potential after the last tick

What is equal then is decided by the smallest id.  T ticks give a count of T + 1
values at most, so among thousands of neurons most often several have the most
spikes (`Read.tied`, `tie_rate`); a potential has the digits that a count lacks.
They choose the same neuron where a count never falls as the summed drive grows:
equal neurons and constant drives (Theorem A of `qcfs`).

Early exit.  After tick t, with P_t the potential so far, token a is certain
once no other can pass it by all that may still come:

    P_t[a] + least rest[a]  >  P_t[v] + most rest[v]     for all v != a

(or equal, if a < v).  Rests are those of static bounds low <= x_t[v] <= high.
A count is certain when it leads by more than the ticks that are left.  Either
way the token is the one of all ticks, always.  Integers only: rounded sums have
no such bound.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.spike import checks
from jaxnmc.spike.neurons import Neuron

__all__ = [
  "Read",
  "Saved",
  "activity",
  "activity_early",
  "bounds",
  "potential",
  "potential_early",
  "saved",
  "tie_rate",
]

# Below every potential: |potential| <= checks.WORD.
_LEAST = -checks.WORD - 1
Drive = Callable[[jax.Array], jax.Array]


@struct.dataclass
class Read:
  """What was read at each position, int32[...] each.

  Attributes:
    token: the id.
    ticks: how many were read until it was certain.
    tied: neurons that had the most (potential or spikes) when it was read,
      itself included, before anything else decides; 1: no tie.
  """

  token: jax.Array
  ticks: jax.Array
  tied: jax.Array


class Saved(NamedTuple):
  """Ticks of some positions.

  Attributes:
    positions: how many.
    used: ticks that were read.
    whole: ticks that there would have been.
  """

  positions: int
  used: int
  whole: int

  @property
  def ticks(self) -> int:
    """Ticks that were saved."""
    return self.whole - self.used

  @property
  def share(self) -> float:
    """Of the whole, 0 to 1."""
    return self.ticks / self.whole


def potential(
  x: jax.Array, worth: Any = None, *, charge: int | None = None
) -> Read:
  """Reads the accumulated potential of all ticks.

  Args:
    x: float[T, ..., V] or int32[T, ..., V], the drives; T, V >= 1.
    worth: whole numbers [T], what a tick counts (`codes.weights`); None: 1.
    charge: for integers that are traced, a static bound of the sum over ticks
      of |worth x|.

  Returns:
    `Read` [...].

  Raises:
    ConfigError: no ticks or neurons, another number of worths, or integers
      that nothing bounds.
    FormatError: the potential could leave 32 bits.
  """
  x = _drives("potential", x)
  ticks = x.shape[0]
  weights = _worths("potential", worth, ticks)
  if x.dtype == jnp.int32:
    values = checks.known(x)
    bound = charge
    if bound is None and values is not None:
      wide = np.abs(values.astype(np.int64))
      bound = int(np.tensordot(np.abs(weights), wide, 1).max(initial=0))
    if bound is None:
      raise ConfigError(
        "potential: integer drives are traced and nothing bounds them; give"
        " charge, a bound of the sum over ticks of |worth x|"
      )
    _fits("potential", ticks, bound)
  scale = jnp.asarray(weights, x.dtype)
  # Tick after tick, as a neuron adds them.
  body = lambda p, row: (p + row[0] * row[1], None)
  whole, _ = lax.scan(body, jnp.zeros_like(x[0]), (scale, x))
  return Read(
    token=_first_of_most(whole),
    ticks=jnp.full(whole.shape[:-1], ticks, jnp.int32),
    tied=_number_of_most(whole),
  )


def activity(spikes: jax.Array, v: jax.Array) -> Read:
  """Reads the neuron with the most spikes, of equals the one closest to more.

  Args:
    spikes: [T, ..., V] of 0 and 1 (-1, too: they are subtracted), any dtype.
    v: [..., V], the potentials after the last tick.

  Returns:
    `Read` [...].

  Raises:
    ConfigError: no ticks or neurons, or potentials of another shape.
  """
  spikes, v = jnp.asarray(spikes), jnp.asarray(v)
  _axes("activity", spikes)
  if v.shape != spikes.shape[1:]:
    raise ConfigError(
      f"activity: the potentials have the shape {list(v.shape)}; allowed is"
      f" that of one tick of spikes, {list(spikes.shape[1:])}"
    )
  counts = jnp.sum(spikes.astype(jnp.int32), 0, jnp.int32)
  return Read(
    token=_most_active(counts, v),
    ticks=jnp.full(v.shape[:-1], spikes.shape[0], jnp.int32),
    tied=_number_of_most(counts),
  )


def bounds(
  weight: Any, most: int = 1, signed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """(low, high) of the drive W s that one tick of spikes can give.

  Args:
    weight: int[V, D], known while the program is made.
    most: the largest |s|.
    signed: spikes are -most ... most; else 0 ... most.

  Returns:
    int64[V] each: sums of negative and of positive weights of each row; of
    signed spikes the L1 norm.

  Raises:
    ConfigError: traced or no integers [V, D], or most is below 1.
  """
  values = checks.known(weight)
  if (
    values is None
    or values.ndim != 2
    or not np.issubdtype(values.dtype, np.integer)
  ):
    found = "traced" if values is None else f"{values.dtype}{[*values.shape]}"
    raise ConfigError(
      f"bounds: the weights are {found}; allowed are known integers [V, D]"
    )
  most = checks.whole("bounds", "most", most, 1)
  wide = values.astype(np.int64)
  down, up = (np.where(s * wide > 0, wide, 0).sum(1) for s in (-1, 1))
  if signed:
    down, up = down - up, up - down
  return down * most, up * most


def potential_early(
  drive: jax.Array | Drive, ticks: int, low: Any, high: Any, worth: Any = None
) -> Read:
  """`potential`, with no more ticks than it takes to be certain.

  The loop ends when every position is certain; `Read.ticks` is of each.

  Args:
    drive: int32[T, ..., V], or a function of the tick, int32[], that gives
      int32[..., V] of it and is called for the ticks that are read.
    ticks: T.
    low: the least that a drive can be: a whole number, or [V] of them; known
      while the program is made (`bounds`).
    high: the most, in the same way.  What a function gives is believed to lie
      within; so are traced arrays.
    worth: as in `potential`.

  Returns:
    `Read` [...], with the token of `potential`.

  Raises:
    ConfigError: floats, no ticks or neurons, other shapes, bounds that are
      traced or the wrong way round, or a drive outside of them.
    FormatError: the potential could leave 32 bits.
  """
  owner = "potential_early"
  ticks = checks.ticks(owner, ticks)
  weights = _worths(owner, worth, ticks)
  step, shape = _steps(owner, drive, ticks)
  low, high = _limits(owner, low, high, shape[-1])
  far = int(np.maximum(np.abs(low), np.abs(high)).max())
  _fits(owner, ticks, far * int(np.abs(weights).sum()))
  if not callable(drive):
    _within(owner, drive, low, high)
  # What all ticks behind t are worth, positive and negative ones apart.
  up, down = (
    _behind(part) for part in (weights.clip(0), weights.clip(None, 0))
  )
  scale, least, most = (
    jnp.asarray(a.astype(np.int32)) for a in (weights, low, high)
  )

  def body(carry):
    t, p, read, sure = carry
    p = p + scale[t] * step(t)
    best = _first_of_most(p)
    its = _at(p + up[t] * least + down[t] * most, best)
    others = jnp.arange(shape[-1]) != best[..., None]
    tops = jnp.where(others, p + up[t] * most + down[t] * least, _LEAST)
    rival = _first_of_most(tops)
    top = _at(tops, rival)
    now = (its > top) | ((its == top) & (best < rival))
    found = Read(best, jnp.full_like(best, t + 1), _number_of_most(p))
    keep = lambda old, new: jnp.where(sure, old, new)
    return t + 1, p, jax.tree.map(keep, read, found), sure | now

  return _loop(body, ticks, jnp.zeros(shape, jnp.int32))


def activity_early(
  neuron: Neuron,
  drive: jax.Array | Drive,
  ticks: int,
  threshold: Any = None,
  *,
  charge: int | None = None,
) -> Read:
  """`activity` of a neuron, with no more ticks than it takes to be certain.

  Args:
    neuron: `IF` or `LIF`, from rest.
    drive: as in `potential_early`.
    ticks: T.
    threshold: as in `Neuron.step`.
    charge: of a function or traced drives, a static bound of |v(0)| plus the
      sum over ticks of |x|.

  Returns:
    `Read` [...], with the token of `activity`.

  Raises:
    ConfigError: as `potential_early`; another neuron, or drives that nothing
      bounds.
    FormatError: the potential could leave 32 bits.
  """
  owner = "activity_early"
  if not isinstance(neuron, Neuron):
    raise ConfigError(
      f"{owner}: the neuron is {type(neuron).__name__}; allowed are IF and LIF,"
      " whose spikes are 0 and 1"
    )
  ticks = checks.ticks(owner, ticks)
  step, shape = _steps(owner, drive, ticks)
  start = neuron.init(shape, jnp.int32, threshold)
  if callable(drive):
    if charge is None:
      raise ConfigError(
        f"{owner}: a function of drives, and nothing bounds them; give charge,"
        " a bound of |v(0)| plus the sum over ticks of |x|"
      )
    _fits(owner, ticks, charge)
  else:
    checks.charge(neuron, jnp.asarray(drive, jnp.int32), start, charge)

  def body(carry):
    t, (state, counts), read, sure = carry
    state, spikes = neuron.step(state, step(t), threshold)
    counts = counts + spikes
    best = _most_active(counts, state.v)
    others = jnp.arange(shape[-1]) != best[..., None]
    rival = jnp.max(jnp.where(others, counts, -1), -1)
    # A tie would leave the last word to potentials that are not known yet.
    now = _at(counts, best) - rival > ticks - 1 - t
    found = Read(best, jnp.full_like(best, t + 1), _number_of_most(counts))
    keep = lambda old, new: jnp.where(sure, old, new)
    return t + 1, (state, counts), jax.tree.map(keep, read, found), sure | now

  return _loop(body, ticks, (start, jnp.zeros(shape, jnp.int32)))


def tie_rate(read: Read) -> float:
  """Share of positions at which several neurons had the most, 0 to 1.

  Raises:
    ConfigError: no positions, or a traced `Read`.
  """
  return float(np.mean(_counted("tie_rate", read.tied) > 1))


def saved(read: Read, ticks: int) -> Saved:
  """Ticks that were read of `ticks` a position, as whole numbers.

  Raises:
    ConfigError: no positions, a traced `Read`, or no ticks.
  """
  used = _counted("saved", read.ticks)
  whole = used.size * checks.ticks("saved", ticks)
  return Saved(used.size, int(used.sum(dtype=np.int64)), whole)


def _loop(body, ticks: int, start) -> Read:
  """Runs `body` over ticks until all positions are certain."""
  leaf = jax.tree.leaves(start)[0]
  zeros = jnp.zeros(leaf.shape[:-1], jnp.int32)
  sure = jnp.zeros(zeros.shape, bool)
  first = jnp.int32(0), start, Read(zeros, zeros, zeros), sure
  open_ = lambda carry: (carry[0] < ticks) & ~jnp.all(carry[3])
  return lax.while_loop(open_, body, first)[2]


def _at(x: jax.Array, index: jax.Array) -> jax.Array:
  return jnp.take_along_axis(x, index[..., None], -1)[..., 0]


def _first_of_most(x: jax.Array) -> jax.Array:
  return jnp.argmax(x, -1).astype(jnp.int32)


def _number_of_most(x: jax.Array) -> jax.Array:
  return jnp.sum(x == jnp.max(x, -1, keepdims=True), -1, jnp.int32)


def _most_active(counts: jax.Array, v: jax.Array) -> jax.Array:
  first = counts == jnp.max(counts, -1, keepdims=True)
  whole = jnp.issubdtype(v.dtype, jnp.integer)
  none = jnp.iinfo(v.dtype).min if whole else -jnp.inf
  top = jnp.max(jnp.where(first, v, none), -1, keepdims=True)
  return _first_of_most(first & (v == top))


def _behind(weights: np.ndarray) -> jax.Array:
  """Sum of what comes after each tick: int32[T]."""
  after = weights[::-1].cumsum()[::-1] - weights
  return jnp.asarray(after.astype(np.int32))


def _axes(owner: str, x) -> None:
  """Refuses what has no ticks or no neurons."""
  checks.ticks(owner, x.shape[0] if x.ndim else 0)
  if x.ndim < 2 or x.shape[-1] < 1:
    raise ConfigError(
      f"{owner}: found the shape {list(x.shape)}; allowed is [T, ..., V], with"
      " ticks first and a neuron per token last"
    )


def _drives(owner: str, x) -> jax.Array:
  x = checks.drive(owner, x)
  _axes(owner, x)
  return x


def _steps(owner: str, drive, ticks: int) -> tuple[Drive, tuple[int, ...]]:
  """(drive of a tick, its shape); integers."""
  if not callable(drive):
    x = _drives(owner, drive)
    if x.shape[0] != ticks:
      raise ConfigError(
        f"{owner}: found drives of {x.shape[0]} ticks; allowed are {ticks}"
      )
    _whole(owner, x)
    return lambda t: x[t], x.shape[1:]
  one = jax.eval_shape(drive, jnp.int32(0))
  _whole(owner, one)
  if not one.ndim or not one.shape[-1]:
    raise ConfigError(
      f"{owner}: the drive of a tick has the shape {list(one.shape)}; allowed"
      " is [..., V], with a neuron per token last"
    )
  return lambda t: drive(t).astype(jnp.int32), one.shape


def _whole(owner: str, x) -> None:
  if not jnp.can_cast(x.dtype, jnp.int32) or x.dtype == bool:
    raise ConfigError(
      f"{owner}: the drives are {x.dtype}; allowed are integers that fit int32:"
      " a rounded sum has no bound that is safe to stop at"
    )


def _worths(owner: str, worth, ticks: int) -> np.ndarray:
  """What ticks count: int64[T]."""
  if worth is None:
    return np.ones(ticks, np.int64)
  values = checks.known(worth)
  if (
    values is None
    or values.shape != (ticks,)
    or not np.issubdtype(values.dtype, np.integer)
  ):
    found = "traced" if values is None else f"{values.dtype}{[*values.shape]}"
    raise ConfigError(
      f"{owner}: worth is {found}; allowed are known whole numbers, one for"
      f" each of {ticks} ticks"
    )
  return values.astype(np.int64)


def _limits(owner: str, low, high, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Bounds of every neuron: int64[V] each."""
  found = []
  for name, value in (("low", low), ("high", high)):
    values = checks.known(value)
    if (
      values is None
      or values.shape not in ((), (width,))
      or not np.issubdtype(values.dtype, np.integer)
    ):
      what = "traced" if values is None else f"{values.dtype}{[*values.shape]}"
      raise ConfigError(
        f"{owner}: {name} is {what}; allowed is a known whole number, or one"
        f" for each of {width} neurons"
      )
    found.append(np.broadcast_to(values.astype(np.int64), (width,)))
  wrong = np.flatnonzero(found[0] > found[1])
  if wrong.size:
    k = int(wrong[0])
    raise ConfigError(
      f"{owner}: neuron {k} has low {found[0][k]} above high {found[1][k]};"
      " give the least and the most that a drive can be"
    )
  return found[0], found[1]


def _within(owner: str, drive, low: np.ndarray, high: np.ndarray) -> None:
  """Refuses a known drive outside of its bounds: it could change the token."""
  values = checks.known(drive)
  if values is None:
    return
  wrong = np.argwhere((values < low) | (values > high))
  if wrong.size:
    place = tuple(int(i) for i in wrong[0])
    k = place[-1]
    raise ConfigError(
      f"{owner}: the drive of neuron {k} in tick {place[0]} is"
      f" {values[place]}; allowed by its bounds are {low[k]} to {high[k]}; give"
      " the bounds of these weights"
    )


def _fits(owner: str, ticks: int, bound: int) -> None:
  if bound > checks.WORD:
    raise FormatError(
      f"{owner}: {ticks} ticks can charge a potential to {bound}, which is over"
      f" {checks.WORD}, the most of 32 bits; use fewer ticks or a coarser scale"
    )


def _counted(owner: str, x) -> np.ndarray:
  values = checks.known(x)
  if values is None or not values.size:
    raise ConfigError(
      f"{owner}: found {'a traced' if values is None else 'an empty'} read-out;"
      " allowed is one with values, outside of jit"
    )
  return values
