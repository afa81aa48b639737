"""The interpreter `spiking`: what crosses a synapse crosses it as spikes.

The input of every matrix product is an integer q; in `fixed` it is one graded
message.  Here it is spikes s_t of -1, 0 and 1 over the ticks t of a spike code,
and the neurons behind the matrix W integrate their drive W s_t, first tick
first, with a gain g that is 2 where ticks are bits and 1 where they are counts:

    v_t = g v_(t-1) + sign_t W s_t

v_T = W q exactly, and no |v_t| exceeds |W| |q|, so it needs no wider membrane
than `fixed` has.  All that is computed from v_T is as in `fixed`: logits,
states and every site are its integers, bit for bit.

What is no matrix product stays as it is in `fixed`: neurons that hand a value
to one neuron (residual stream, gates, recurrences), and the graded messages of
norms and of sums, which a run names.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.kernels.ternary import ternary_matmul
from jaxnmc.numerics.formats import Format
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.packed import Packed
from jaxnmc.ops import transform
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.stores import IntStore
from jaxnmc.spike import checks, codes
from jaxnmc.spike.traffic import Sent, Spikes

__all__ = ["CODES", "Spiking", "spiking"]

# What `code` names, and the row of `spike.codes` that it is.
CODES = {
  "bitwise": "signed_bitwise",
  "twos": "twos_complement",
  "unary": "ternary",
}
# Nobody wants more without having said so.
_MOST_UNASKED = 1024
_SENT = "spikes:"


class _Misfit(NamedTuple):
  """A site whose integers a code does not hold."""

  site: str
  bits: int
  bound: int
  need: int


class Spiking(Quantized):
  """`Quantized` in integers, with spikes into every matrix.

  Args:
    plan: formats of all sites.
    code: one of `CODES`.
    ticks: for every site, or None: as many as each needs.
    misfits: gets the sites that need more, by path.
    graded: gets the paths of messages that stay graded.
    mask: int[T, ...] of 0 (padding) and 1, or None.
    taps: keep the value of every site.
  """

  def __init__(self, plan, code, ticks, misfits, graded, mask=None, taps=False):
    super().__init__(plan, IntAlu(), IntStore(), taps)
    self.code, self.ticks = code, ticks
    self.misfits, self.graded = misfits, graded
    self.mask = mask

  def _across(self, path: str, x: Fx, matrix, parts: int) -> tuple:
    site = x.site or path
    fmt = self.plan.formats.get(site)
    bits = x.bound.bit_length() + 1
    bits = fmt.bits if isinstance(fmt, Format) else bits
    need = codes.ticks_for(CODES[self.code], max(1, x.bound))
    ticks = need if self.ticks is None else self.ticks
    if need > ticks or (self.ticks is None and need > _MOST_UNASKED):
      self.misfits[site] = _Misfit(site, bits, x.bound, need)
    stored = matrix.codes
    weight = jnp.asarray(
      stored.astype(jnp.int8) if isinstance(stored, Packed) else stored
    )
    trains = codes.encode(CODES[self.code], x.q, ticks)
    self._count(path, x, weight, trains, bits)
    membrane = integrate(self.code, trains, weight)
    return tuple(jnp.split(membrane, parts, axis=-1))

  def _count(self, path: str, x: Fx, weight, trains, bits: int) -> None:
    """Puts what was sent on the tape."""
    sent = jnp.sum(jnp.abs(trains), 0, jnp.int32)
    nonzero = (x.q != 0).astype(jnp.int32)
    tokens = jnp.ones(x.shape[:-1], jnp.int32)
    mask = self.mask
    # Inside of a scan over tokens there is no axis that the mask could meet.
    if mask is not None and len(x.shape) > mask.ndim:
      if x.shape[: mask.ndim] == mask.shape:
        real = jnp.asarray(mask).astype(jnp.int32)
        real = real.reshape(*mask.shape, *(1,) * (tokens.ndim - mask.ndim))
        tokens = tokens * real
    over = tuple(range(tokens.ndim))
    each = lambda v: jnp.sum(v * tokens[..., None], over, jnp.int32)
    value = Sent(
      spikes=each(sent),
      messages=each(nonzero),
      fanout=jnp.sum(weight != 0, 0, jnp.int32),
      tokens=jnp.sum(tokens, None, jnp.int32),
      site=x.site or path,
      ticks=trains.shape[0],
      bits=bits,
      targets=weight.shape[0],
    )
    # Stacked: in a scan or vmap each step may have a matrix of its own.
    self.emit(_SENT + path, value, "stack")

  # --- what stays graded

  def _stays(self, path: str) -> None:
    self.graded[path] = None

  def _sited_as(self, path: str, q, high: int) -> Fx:
    self._stays(path)
    return super()._sited_as(path, q, high)

  def _root(self, path: str, means, eps: int, fmt, width: int) -> Fx:
    self._stays(path + ".root")
    return super()._root(path, means, eps, fmt, width)

  def sum(self, x) -> Fx:
    """Sum over features; its inputs stay graded."""
    self._stays(getattr(x, "site", None) or self._here())
    return super().sum(x)

  def broadcast(self, x, width: int) -> Fx:
    """One value to `width` neurons, graded."""
    self._stays(getattr(x, "site", None) or self._here())
    return super().broadcast(x, width)

  def matmul(self, a, b) -> Fx:
    """Product of two activations; both stay graded."""
    for x in (a, b):
      self._stays(getattr(x, "site", None) or self._here())
    return super().matmul(a, b)

  def outer(self, a, b) -> Fx:
    """Outer product of two activations; both stay graded."""
    for x in (a, b):
      self._stays(getattr(x, "site", None) or self._here())
    return super().outer(a, b)


def integrate(code: str, trains: jax.Array, weight: jax.Array) -> jax.Array:
  """Potentials behind a matrix after the last tick (this file's head).

  Args:
    code: one of `CODES`.
    trains: int8[ticks, ..., in] of -1, 0 and 1.
    weight: int8[out, in].

  Returns:
    int32[..., out], the product of the integers that the spikes stand for.
  """
  row = codes.weights(CODES[code], trains.shape[0])
  signs = jnp.asarray([1 if w > 0 else -1 for w in row], jnp.int32)
  gain = 1 if code == "unary" else 2

  def tick(membrane, now):
    spikes, sign = now
    drive = ternary_matmul(spikes, weight, 1)
    return gain * membrane + sign * drive, None

  start = jnp.zeros((*trains.shape[1:-1], weight.shape[0]), jnp.int32)
  return lax.scan(tick, start, (trains, signs))[0]


def _refuse(misfits: dict[str, _Misfit], code: str, ticks: int | None) -> None:
  """Says which site does not fit its ticks, if one does not."""
  if not misfits:
    return
  worst = max(misfits.values(), key=lambda one: one.need)
  others = len(misfits) - 1
  more = f" ({others} more do not fit, either)" if others else ""
  has = (
    f"without ticks at most {_MOST_UNASKED} are taken"
    if ticks is None
    else f"ticks is {ticks}"
  )
  other = "" if code == "bitwise" else ", or take code 'bitwise'"
  raise FormatError(
    f"{worst.site}: codes of {worst.bits} bits, up to {worst.bound}, take"
    f" {worst.need} ticks as spike code {code!r}, but {has}{more}; give more"
    " ticks, or the site fewer bits (jaxnmc bits, quantize.adjust)"
    f"{other}"
  )


def spiking(
  fn, plan, ticks: int | None = None, code: str = "bitwise", taps: bool = False
):
  """The same activations as spikes over ticks.

  The integers of `fixed`, exactly, whatever the code; what differs is what is
  sent for them.

  Args:
    fn: model function.
    plan: number formats, integers everywhere.
    ticks: of every value; None: as many as the code needs for each site.
    code: "bitwise" (bits of the magnitude, with its sign), "twos" (two's
      complement), or "unary" (|q| spikes, with the sign).
    taps: also return the value of every site.

  Returns:
    `run(qparams, inputs, state=None) -> (out, state, spikes)`, with taps
    `(out, state, spikes, {path: value})`; out, state and values are those of
    `fixed`, spikes is a `Spikes` (`jaxnmc.spike.traffic`), whose leaves have
    the batch axis in front if ids are [B, T].  Padding is not counted, but
    inside of a scan over tokens.

  Raises:
    ConfigError: ticks below 1, over 31 for a code of bits, or another code; of
      `run`: the model has no matrix product that spikes could drive.
    FormatError: of `run`, before anything is computed: the integers of a site
      do not fit the ticks; or as `fixed`, as for `PlanError` and `TokenError`.
  """
  if code not in CODES:
    raise ConfigError(
      f"spiking: code {code!r} is unknown; allowed are {', '.join(CODES)}"
    )
  if ticks is not None:
    ticks = checks.ticks("spiking", ticks)
    codes.limits(CODES[code], ticks)

  def run(qparams, inputs, state=None):
    transform.check_inputs(fn, inputs, state)
    plan.need_integers("spiking")
    state = transform.first_state(state)
    tree = transform.checked_tree(qparams, plan)
    misfits: dict[str, _Misfit] = {}

    def one(inputs, state):
      graded: dict[str, None] = {}
      mask = inputs.get("mask") if isinstance(inputs, dict) else None
      ops = Spiking(plan, code, ticks, misfits, graded, mask, taps)
      out, after = fn(ops, tree, inputs, state)
      spikes = _spikes(ops, inputs, mask)
      values = {
        k: v for k, v in ops.tape.values.items() if not k.startswith(_SENT)
      }
      return (out, after, spikes, values) if taps else (out, after, spikes)

    # Only shapes: what does not fit is refused before anything runs.
    again = lambda: transform.over_batch(one, inputs, state)
    spikes = jax.eval_shape(again)[2]
    _refuse(misfits, code, ticks)
    if not spikes.products:
      raise ConfigError(
        "spiking: the model has no matrix product (ops.linear), so there is"
        " nothing that spikes could drive; use fixed"
      )
    return again()

  run.context = getattr(fn, "context", None)  # type: ignore[attr-defined]
  return run


def _spikes(ops: Spiking, inputs: Any, mask) -> Spikes:
  """What one sequence sent."""
  products = {
    path.removeprefix(_SENT): value
    for path, value in ops.tape.values.items()
    if path.startswith(_SENT)
  }
  length = jax.tree.leaves(inputs)[0].shape[0]
  tokens = jnp.int32(length) if mask is None else jnp.sum(mask, dtype=jnp.int32)
  return Spikes(products, tokens, tuple(products), tuple(ops.graded))
