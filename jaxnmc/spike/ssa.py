"""Causal spiking attention: thresholds by position, state, bounds.

A neuron fires on the ticks of Y_i (`attention`), from rest for every token, so
that one token at a time gives what all at once give.  The state of decoding is
S, d x d integers per head and tick.

|Y_i| grows with the tokens seen.  Instead of Y_i, the threshold is scaled:

    position    theta_i = theta_(i-1) + theta = (i + 1) theta
    constant    theta_i = theta / scale            (Spikformer: scale 1/8)
    none        theta_i = theta

which is exact, as a neuron from rest gives the same spikes for (Y c; theta) and
(Y; theta / c), and needs one adder a token in place of a division.  Scaling by
the power of two below 1/i is a trap: the rate jumps where the power does.

Bounds, for spikes of magnitude at most 1: |S| <= N (decayed: 2^m), |Y| <= d
times that, and T ticks charge a neuron with T times that.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError, TokenError
from jaxnmc.spike import attention, checks
from jaxnmc.spike.neurons import IF, LIF, run

__all__ = [
  "Places",
  "SSA",
  "SSAState",
  "attend",
  "check_state",
  "fire",
  "init_state",
  "place_tokens",
  "spikes_of",
]

SCALINGS = ("position", "constant", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSA:
  """Static facts of one attention (equations: this file's head).

  Attributes:
    head_size: d.
    context: the most tokens; the static bounds follow from it.
    neuron: fires on Y, from rest for every token; IF or LIF, with rest 0.
    scaling: of the threshold: "position", "constant" or "none".
    scale: of "constant": 2^-j with a whole j from 0 to 30.
    decay: m of the decayed memory, 1 to 30; None for sums.  Only for spikes 0
      and 1: a floor shift forgets negative sums faster.
    frac: fraction bits of integer potentials: Y is shifted left by them, and
      theta is in units of 2^-frac.  A LIF with tau = 2 needs one per tick, and
      those of theta, to give the spikes of exact arithmetic.
    state_bits: width of a word of S.
    causal: False lets every token see all (Spikformer); then there is no state.

  Raises:
    ConfigError: a field that cannot be.
    FormatError: a context for which S or Y may overflow.
  """

  head_size: int
  context: int
  neuron: IF | LIF = LIF()
  scaling: str = "position"
  scale: float = 0.125
  decay: int | None = None
  frac: int = 0
  state_bits: int = 32
  causal: bool = True

  def __post_init__(self):
    ranges = {"head_size": (1, 2**16), "context": (1, checks.WORD)}
    ranges |= {"frac": (0, 30), "state_bits": (2, 32)}
    if self.decay is not None:
      ranges["decay"] = (1, 30)
    for field, (low, high) in ranges.items():
      checks.whole("SSA", field, getattr(self, field), low, high)
    if not isinstance(self.neuron, IF | LIF):
      raise ConfigError(
        f"SSA: neuron is {self.neuron!r}; allowed are an IF or a LIF"
      )
    if self.neuron.v_reset != 0:
      raise ConfigError(
        f"SSA: the neuron's v_reset is {self.neuron.v_reset}; allowed is 0, as"
        " a rest elsewhere does not scale with the threshold"
      )
    if self.scaling not in SCALINGS:
      raise ConfigError(
        f"SSA: scaling is {self.scaling!r}; allowed are {', '.join(SCALINGS)}"
      )
    if self.scale not in (2.0**-j for j in range(31)):
      raise ConfigError(
        f"SSA: scale is {self.scale!r}; allowed are 1, 1/2, 1/4, ... 2^-30,"
        " which scale a threshold exactly"
      )
    if not self.causal and self.decay is not None:
      raise ConfigError(
        "SSA: decay is set with causal=False; a memory that forgets has an"
        " order of tokens, so use causal=True"
      )
    self.check(1)

  @property
  def memory_bound(self) -> int:
    """The largest |S|."""
    if self.decay is None:
      return self.context
    return min(self.context, 1 << self.decay)

  @property
  def drive_bound(self) -> int:
    """The largest |Y|, before it is shifted by frac."""
    return self.head_size * self.memory_bound

  def check(self, ticks: int) -> None:
    """Refuses numbers of ticks for which 32 bits do not hold the charge.

    Raises:
      FormatError: S, or the charge of a neuron over the ticks, may overflow.
    """
    word = (1 << self.state_bits - 1) - 1
    if self.memory_bound > word:
      raise FormatError(
        f"SSA: {self.context} tokens can fill a word of the memory to"
        f" {self.memory_bound}; its {self.state_bits} bits allow {word} tokens:"
        " use a shorter context, wider words or decay"
      )
    if self._charge(ticks) >= checks.WORD:
      one = self._charge(ticks) // self.memory_bound
      raise FormatError(
        f"SSA: {self.context} tokens of {self.head_size} features can charge a"
        f" potential to {self._charge(ticks)} in {ticks} ticks with"
        f" {self.frac} fraction bits; 32 bits allow {checks.WORD // one}"
        " tokens: use a shorter context, fewer fraction bits or decay"
      )

  def _charge(self, ticks: int) -> int:
    return ticks * self.drive_bound << self.frac

  def units(self, rank: jax.Array) -> jax.Array:
    """theta_i / theta of the tokens of these ranks, 1 for the first: int32."""
    if self.scaling == "position":
      return jnp.clip(rank, 1, self.context)
    constant = round(1 / self.scale) if self.scaling == "constant" else 1
    return jnp.full_like(rank, constant)


@struct.dataclass
class SSAState:
  """What attention remembers.

  Attributes:
    memory: S, int32[T, ..., d, d'] (float for float spikes).
    seen: tokens so far, int32[].
  """

  memory: jax.Array
  seen: jax.Array


def init_state(
  config: SSA, ticks: int, batch: tuple[int, ...] = (), dtype=jnp.int32
) -> SSAState:
  """The state before any token.

  Args:
    config: the attention.
    ticks: T.
    batch: axes between ticks and tokens, heads among them.
    dtype: int32, or float for float spikes.
  """
  shape = (checks.ticks("SSA", ticks), *batch, config.head_size)
  zeros = jnp.zeros((*shape, config.head_size), dtype)
  return SSAState(zeros, jnp.int32(0))


class Places(NamedTuple):
  """Where the tokens of a call stand.

  Attributes:
    rank: int32[N, 1], real tokens up to and with each.
    fits: bool[N, 1], whether it is real and inside the context.
    after: int32[], tokens seen after the call.
  """

  rank: jax.Array
  fits: jax.Array
  after: jax.Array


def place_tokens(config: SSA, state: SSAState | None, tokens: int, mask):
  """The `Places` of some tokens after those of a state.

  Raises:
    ConfigError: a mask of another shape, or a state where there is no order.
    TokenError: it is known that some have no place.
  """
  if state is not None and not config.causal:
    raise ConfigError(
      "SSA: a state was given with causal=False, where every token sees all;"
      " give none"
    )
  if mask is not None and np.shape(mask) != (tokens,):
    raise ConfigError(
      f"SSA: the shape of mask is {list(np.shape(mask))}; allowed is"
      f" {[tokens]}, one per token (a batch by vmap)"
    )
  # In numpy, as under jit even constants are traced; what is unknown is 0.
  before = None if state is None else checks.known(state.seen)
  given = np.ones(tokens) if mask is None else checks.known(mask)
  least = 0 if given is None else int(np.sum(given != 0))
  least += 0 if before is None else int(before)
  if least > config.context:
    raise TokenError(
      f"SSA: {least} tokens were given; the bounds of its state were made for a"
      f" context of {config.context}: give fewer, or make it with a longer"
      " context"
    )
  seen = jnp.int32(0) if state is None else state.seen
  real = jnp.ones(tokens, bool) if mask is None else jnp.asarray(mask) != 0
  rank = (seen + jnp.cumsum(real, dtype=jnp.int32))[:, None]
  fits = real[:, None] & (rank <= config.context)
  after = seen + real.sum(dtype=jnp.int32)
  return Places(rank, fits, jnp.minimum(after, config.context))


def attend(
  config: SSA,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  theta,
  state: SSAState | None = None,
  mask=None,
) -> tuple[jax.Array, SSAState | None]:
  """Spikes of causal attention, and the state to decode from.

  Integers and floats give the same spikes while floats are exact; the
  surrogate of a float spike sees Y / (theta_i / theta), the normalised drive.

  Args:
    config: the attention.
    q: int[T, ..., N, d] or float, spikes of magnitude at most 1.
    k: the same shape.
    v: the same shape.
    theta: the threshold, a number or an array that broadcasts against
      [..., N, d]; a whole number of 2^-frac for integers.
    state: of the tokens before; None for none.
    mask: [N], 0 for padding, which sends no spikes and is not remembered; None
      for none.

  Returns:
    (s, state): spikes [T, ..., N, d]; the state is None where not causal.  A
    token beyond the context is treated as padding; where that is known
    beforehand, it is refused.

  Raises:
    ConfigError: shapes that do not match, or a threshold that cannot be one.
    FormatError: ticks for which 32 bits do not hold the charge.
    TokenError: more tokens than the context has.
  """
  q, k, v = spikes_of(config, "SSA", q, k, v)
  config.check(checks.ticks("SSA", q.shape[0]))
  places = place_tokens(config, state, q.shape[-2], mask)
  q, k, v = (x * places.fits.astype(x.dtype) for x in (q, k, v))
  if not config.causal:
    # Every token sees as many as the last.
    y = attention.linear(q, k, v)
    return fire(config, y, theta, places.rank[-1:]), None
  if state is None and config.decay is None:
    y = attention.quadratic(q, k, v)
    memory = attention.product(jnp.swapaxes(k, -1, -2), v)
  else:
    old = None
    if state is not None:
      shape = (*v.shape[:-2], config.head_size, config.head_size)
      check_state("SSA", state.memory, shape, v.dtype)
      old = state.memory
    real = places.fits[:, 0]
    memory, y = attention.prefix(q, k, v, old, config.decay, real)
  spikes = fire(config, y, theta, places.rank)
  return spikes, SSAState(memory, places.after)


def spikes_of(config: SSA, owner: str, *qkv) -> list[jax.Array]:
  """q, k and v as int32 or float.

  Raises:
    ConfigError: shapes that do not match, or (where it is known) a value that
      is no spike.
  """
  q, k, v = attention.wide(*qkv)
  if not q.shape == k.shape == v.shape or q.shape[-1] != config.head_size:
    raise ConfigError(
      f"{owner}: the shapes of q, k, v are {list(q.shape)}, {list(k.shape)},"
      f" {list(v.shape)}; allowed is [T, ..., N, {config.head_size}] for all"
    )
  for name, x in zip("qkv", (q, k, v)):
    values = checks.known(x)
    if values is not None and np.abs(values).max(initial=0) > 1:
      raise ConfigError(
        f"{owner}: {name} holds {values[np.abs(values) > 1].flat[0]}; allowed"
        " are spikes of magnitude at most 1, from which all bounds follow"
      )
  return [q, k, v]


def check_state(owner: str, memory: jax.Array, shape, dtype) -> None:
  """Refuses the memory of another model, batch or type.

  Raises:
    ConfigError: it is one.
  """
  if (memory.shape, memory.dtype) != (tuple(shape), dtype):
    raise ConfigError(
      f"{owner}: the state's memory is {memory.dtype}{list(memory.shape)};"
      f" these spikes need {dtype}{list(shape)}: start with init_state of the"
      " same ticks, batch and type"
    )


def fire(config: SSA, y: jax.Array, theta, rank: jax.Array) -> jax.Array:
  """Spikes on a drive, under the thresholds of its tokens.

  Args:
    config: the attention: neuron, scaling, frac.
    y: [T, ..., N, d], |y| <= config.drive_bound.
    theta: as in `attend`.
    rank: int32[N, 1] or [1, 1], the tokens that each sees, itself among them.

  Returns:
    Shape and dtype of y.
  """
  theta = checks.threshold("SSA", theta, y)
  unit = config.units(rank)
  if jnp.issubdtype(y.dtype, jnp.floating):
    unit = unit.astype(y.dtype)
    return run(config.neuron, y, None, theta * unit, unit=unit)[1]
  # A threshold above 32 bits is never reached: the charge stays below.
  most = checks.WORD // unit
  threshold = jnp.where(theta > most, checks.WORD, theta * unit)
  charge = config._charge(y.shape[0])
  if config.neuron.half:
    charge += 1 << 30
  y = y << config.frac
  return run(config.neuron, y, None, threshold, charge=charge)[1]
