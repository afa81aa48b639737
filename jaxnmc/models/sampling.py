"""Choosing the next token: greedy, sampled in integers, sampled in floats.

`Greedy` and `IntegerSample` use integers only, so the same logits codes give
the same token on every machine.  `Sample` divides by a float temperature: it
is host work in float32, good for any backend and exact for none.

All random bits are Threefry-2x32 blocks of (seed, row, step): no state is
carried, so row 3 of step 7 draws the same bits in any batch and after any
restart.
"""

import abc
import dataclasses
import math

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import TokenError
from jaxnmc.numerics.formats import mantissa
from jaxnmc.numerics.fx import Fx, codes
from jaxnmc.numerics.wide import MAX_SHIFT, mul_shr, mul_wide

# Weights are powers of two in steps of 1 / 64 octave.
_OCTAVE = 64
_MAX_OCTAVES = 31
# Sums of weights stay below 2^30.
_SUM_BITS = 30
_MAX_WEIGHT_BITS = 24


def random_word(seed: int, row, step) -> jax.Array:
  """Thirty-two random bits, a pure function of three integers.

  The key (0, seed mod 2^32) is hashed with `row`, then with `step`, by
  Threefry-2x32 (Salmon et al. 2011); the first word is returned.

  Args:
    seed: any integer.
    row: int32[], sequence within the batch.
    step: int32[], number of the generated token.

  Returns:
    uint32[].
  """
  data = jnp.array([0, seed & 0xFFFFFFFF], jnp.uint32)
  key = jax.random.wrap_key_data(data, impl="threefry2x32")
  key = jax.random.fold_in(jax.random.fold_in(key, row), step)
  return jax.random.key_data(key)[0]


@dataclasses.dataclass(frozen=True)
class Greedy:
  """The largest logit; of equal ones the smallest id.  Exact on integers."""

  label = "greedy: the largest logit"

  def __call__(self, logits, step) -> jax.Array:
    """Tokens int32[B] for logits [B, V]."""
    del step
    return jnp.argmax(codes(logits), axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class _Sampled(abc.ABC):
  """Parameters that both samplers share.

  Attributes:
    temperature: > 0; logits are divided by it.
    top_k: keep this many of the largest logits (0: all).
    top_p: of those, keep the fewest whose share reaches this, 0 < top_p <= 1.
    seed: any integer.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0

  def __post_init__(self):
    t = self.temperature
    if not (math.isfinite(t) and t > 0):
      raise TokenError(
        f"temperature must be a positive number; found {t!r}; use greedy"
        " decoding (temperature 0 on the command line) for no randomness"
      )
    if not isinstance(self.top_k, int) or self.top_k < 0:
      raise TokenError(
        f"top_k must be an integer >= 0 (0 keeps all); found {self.top_k!r}"
      )
    if not 0 < self.top_p <= 1:
      raise TokenError(f"top_p must lie in (0, 1]; found {self.top_p!r}")
    if not isinstance(self.seed, int):
      raise TokenError(f"seed must be an integer; found {self.seed!r}")

  def _keep_k(self, size: int) -> int:
    if self.top_k > size:
      raise TokenError(
        f"top_k = {self.top_k} is more than the vocabulary of {size}"
      )
    return self.top_k or size

  def __call__(self, logits, step) -> jax.Array:
    """Tokens int32[B] for logits [B, V] at generation step int32[]."""
    rows = jnp.arange(codes(logits).shape[0], dtype=jnp.int32)
    draw = lambda row: random_word(self.seed, row, step)
    return jax.vmap(self._pick)(logits, jax.vmap(draw)(rows))

  @abc.abstractmethod
  def _pick(self, logits, word) -> jax.Array:
    """Token int32[] for logits [V] and a random word."""


@dataclasses.dataclass(frozen=True)
class Sample(_Sampled):
  """Sampling in float32 on the host; reproducible by seed, not bit-exact."""

  label = "sampled with a float temperature on the host (not exact)"

  def _pick(self, logits, word) -> jax.Array:
    x = logits.to_float() if isinstance(logits, Fx) else logits
    x = x.astype(jnp.float32) / self.temperature
    order = jnp.argsort(-x, stable=True)
    kept = jnp.arange(x.shape[0]) < self._keep_k(x.shape[0])
    p = jnp.where(kept, jax.nn.softmax(x[order]), 0)
    p = p / jnp.sum(p)
    # The token that crosses top_p is the last one kept.
    p = jnp.where(jnp.cumsum(p) - p < self.top_p, p, 0)
    ends = jnp.cumsum(p)
    share = (word >> 8).astype(jnp.float32) * 2.0**-24
    index = jnp.sum(ends <= share * ends[-1])
    # Rounding may leave the last end at the draw itself.
    last = jnp.sum(p > 0) - 1
    return order[jnp.minimum(index, last)].astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class IntegerSample(_Sampled):
  """Sampling from logits codes with integers only; exact everywhere.

  For codes l_v with `frac` fraction bits, largest code L and V tokens:

      c = 64 log2(e) / (temperature 2^frac)  as a 16-bit mantissa m 2^-s,
      e_v = min(round((L - l_v) m / 2^s), 64 * 31)     (halves up)
      w_v = floor(2^(b - (e_v mod 64) / 64)) >> (e_v div 64)
      b = min(24, 30 - ceil(log2 V))

  so w_v / 2^b is exp((l_v - L) / temperature) within one part in 90 (half of
  1/64 octave), and zero below 2^-b.  Tokens are ordered by code, then by id;
  `top_k` keeps the first k, `top_p` those before whom less than
  floor(round(2^16 top_p) W / 2^16) of the weight W left by top_k lies.  With
  the new sum W and 32 random bits u, the token is the first whose running sum
  exceeds floor(floor(u / 2) W / 2^31).
  """

  label = "sampled by the integer sampler (exact)"

  def table(self, size: int) -> np.ndarray:
    """int32[64]: floor(2^(b - i/64)), by six exact square roots."""
    bits = min(_MAX_WEIGHT_BITS, _SUM_BITS - (size - 1).bit_length())
    values = []
    for i in range(_OCTAVE):
      value = 1 << (_OCTAVE * bits - i)
      for _ in range(_OCTAVE.bit_length() - 1):
        value = math.isqrt(value)
      values.append(value)
    return np.array(values, np.int32)

  def _pick(self, logits, word) -> jax.Array:
    if not isinstance(logits, Fx):
      raise TokenError(
        "the integer sampler takes logits codes (backends fixed and loihi);"
        " found floats; use the float sampler"
      )
    codes = logits.q.astype(jnp.int32)
    size = codes.shape[0]
    order = jnp.argsort(-codes, stable=True)
    codes = codes[order]
    unit = _OCTAVE * math.log2(math.e) / self.temperature
    mult, shift = mantissa(unit * 2.0**-logits.frac)
    if shift < 1:  # so cold that one code decides
      mult, shift = 65535, 1
    shift = min(shift, MAX_SHIFT)
    top = _OCTAVE * _MAX_OCTAVES
    e = mul_shr(codes[0] - codes, mult, shift, 0, top)
    # A gather of 64 entries: host work, once per token.
    w = jnp.asarray(self.table(size))[e & (_OCTAVE - 1)] >> (e >> 6)
    w = jnp.where(jnp.arange(size) < self._keep_k(size), w, 0)
    ends = jnp.cumsum(w, dtype=jnp.int32)
    if self.top_p < 1:
      share = max(1, round(self.top_p * 65536))
      limit = _shift_product(ends[-1], share, 16)
      w = jnp.where(ends - w < jnp.maximum(limit, 1), w, 0)
      ends = jnp.cumsum(w, dtype=jnp.int32)
    half = (word >> 1).astype(jnp.int32)
    draw = _shift_product(half, ends[-1], 31)
    index = jnp.sum((ends <= draw).astype(jnp.int32), dtype=jnp.int32)
    return order[index].astype(jnp.int32)


def _shift_product(a, b, bits: int) -> jax.Array:
  """floor(a * b / 2^bits) for 0 <= a, b < 2^31 whose result fits int32."""
  hi, lo = mul_wide(a, b)
  return (hi << (32 - bits)) | (lo >> bits).astype(jnp.int32)


def sampler(
  temperature: float = 0.0,
  top_k: int = 0,
  top_p: float = 1.0,
  seed: int = 0,
  integer: bool = False,
):
  """The sampler for the usual parameters; temperature 0 is greedy.

  Args:
    temperature: >= 0.
    top_k: largest logits to keep, 0 for all.
    top_p: share of probability to keep.
    seed: any integer.
    integer: sample in integers (backends with integer logits only).

  Returns:
    A callable `(logits [B, V], step int32[]) -> int32[B]`.

  Raises:
    TokenError: an impossible parameter.
  """
  # The other parameters are checked even where greedy has no use for them.
  kind = IntegerSample if integer else Sample
  chosen = kind(temperature or 1.0, top_k, top_p, seed)
  return chosen if temperature else Greedy()
