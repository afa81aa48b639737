"""The float interpreter: what does the model compute?

Equations of Zhu et al. 2024 (arXiv 2406.02528) as the public code runs them:
RMSNorm over the mean of squares with eps inside the root, one 8-bit absmax
activation quantiser per token in front of every ternary product, ternary
weights with one scale per stored matrix, straight-through gradients.

Values are float arrays [T, ..., features]: time first, features last, any
batch axes between.
"""

import jax
from jax import numpy as jnp

from jaxnmc.numerics.ste import ste
from jaxnmc.numerics.ternary import ternary_values
from jaxnmc.ops import attention
from jaxnmc.ops.base import Ops
from jaxnmc.ops.constants import constant
from jaxnmc.ops.memory import (
  check_memory,
  check_tokens,
  memory_width,
  recall,
)
from jaxnmc.ops.settle import settle
from jaxnmc.ops.windows import (
  Windows,
  by_age,
  check_past,
  recall_windows,
  stacked,
  widest,
)

ACT_LEVELS = 127
MIN_ABSMAX = 1e-5


def rms_norm(x: jax.Array, gain: jax.Array, eps: float) -> jax.Array:
  """x * gain / sqrt(mean(x^2) + eps) over the last axis: float[..., n]."""
  mean = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  return x * (1 / jnp.sqrt(mean + eps)) * gain


def layer_norm(
  x: jax.Array, gain: jax.Array, bias: jax.Array, eps: float
) -> jax.Array:
  """(x - mean) / sqrt(var + eps) gain + bias over the last axis: float[..., n].

  The variance is that of the n values (divided by n); Ba et al. 2016 (arXiv
  1607.06450).
  """
  return rms_norm(centred(x), gain, eps) + bias


def centred(x: jax.Array) -> jax.Array:
  """x less its mean over the last axis: float[..., n]."""
  return x - jnp.mean(x, axis=-1, keepdims=True)


def gelu(x: jax.Array, form: str) -> jax.Array:
  """GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415), float[...].

  Form "erf" is x (1 + erf(x / sqrt 2)) / 2; "tanh", as GPT-2 has it,
  x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
  """
  return jax.nn.gelu(x, approximate=form == "tanh")


def act_codes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Per-token 8-bit codes: (q float[..., n] in -128..127, scale [..., 1]).

  scale = 127 / max(max|x|, 1e-5), q = clip(round(x * scale)), ties away from
  zero; the value is q / scale.
  """
  absmax = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
  scale = ACT_LEVELS / jnp.maximum(absmax, MIN_ABSMAX)
  y = x * scale
  q = jnp.trunc(y + jnp.where(y < 0, -0.5, 0.5).astype(y.dtype))
  return jnp.clip(q, -ACT_LEVELS - 1, ACT_LEVELS), scale


def product(x: jax.Array, weight: jax.Array) -> jax.Array:
  """x @ weight.T on flattened leading axes.

  With three-dimensional operands the CPU gradient takes twice as long.

  Args:
    x: float[..., in].
    weight: float[out, in].

  Returns:
    float[..., out].
  """
  out = x.reshape(-1, x.shape[-1]) @ weight.T
  return out.reshape(*x.shape[:-1], weight.shape[0])


class Reference(Ops):
  """Float meaning of every op; differentiable.

  Element-wise ops take float[T, ..., n] that broadcast and keep their dtype.

  Args:
    taps: keep the value of every site (and the activation codes) on the tape.

  Raises (linear, scan and vmap; with taps every op that names a site):
    TransformError: called inside a raw JAX transform.
  """

  def __init__(self, taps: bool = False) -> None:
    super().__init__()
    self.taps = taps

  def site(
    self,
    name: str,
    x,
    align: str | None = None,
    unit: bool = False,
    whole: int | None = None,
  ):
    """Names a value that gets a number format; identity in float.

    Args:
      name: last part of the site's path.
      x: float[T, ..., n].
      align: a sibling site whose fraction bits bound this one's from above.
      unit: the value lies in [0, 1] by construction.
      whole: the value is a whole number of at most this magnitude by
        construction (spikes, counts), which every plan holds exactly.

    Returns:
      x.
    """
    del align, unit, whole
    if self.taps:
      self.emit(self.path(name), x, "stack")
    return x

  # --- parameters

  def embed(self, name: str, table, ids):
    """Rows of `table` float[V, n] for ids int32[T, ...]."""
    return self.site(name, jnp.take(table, ids, axis=0))

  def const(self, name, param, transform: str | None = None, unit=False):
    """A parameter as a value.

    Args:
      name: name of the constant.
      param: float array.
      transform: name of a function of the parameter in `ops.constants`; at
        inference it is computed once, on the host.
      unit: the values lie in [0, 1].

    Returns:
      float array.
    """
    del name, unit
    return constant(transform)(param)

  def index(self, x, i: int):
    """Row `i` of axis 0 of a constant: [L, ...] -> [...]."""
    return x[i]

  # --- synapses

  def linear(self, name: str, weight, x):
    """Ternary product x W^T: float[T, ..., in] -> float[T, ..., out]."""
    self.guard(self.path(name))
    return product(x, ternary_values(weight).astype(x.dtype))

  def linear_split(self, name: str, weight, x, parts: int):
    """Equal blocks of the rows' results: `parts` float[T, ..., out / parts]."""
    return tuple(jnp.split(self.linear(name, weight, x), parts, axis=-1))

  def dense(self, name: str, weight, x, bias=None, tied: str | None = None):
    """Product with a dense matrix, x W^T + b; the result is the site `name`.

    Args:
      name: name of the resulting site.
      weight: float[out, in], used as it is.
      x: float[T, ..., in].
      bias: float[out] or None.
      tied: the weight is the embedding table whose site has this full path.

    Returns:
      float[T, ..., out].
    """
    path = self.path(name)
    self.guard(path)
    weight = self._stored(tied or path + ".weight", weight)
    out = self._dense_product(x, weight.astype(x.dtype))
    if bias is not None:
      out = out + self._stored(path + ".bias", bias)
    return self.site(name, out)

  def _stored(self, path: str, param):
    """A parameter as it is kept; interpreters with formats round it here."""
    del path
    return param

  def _dense_product(self, x, weight):
    return product(x, weight)

  def sum(self, x):
    """Sum over features; float[T, ..., 1]."""
    return jnp.sum(x, axis=-1, keepdims=True)

  def broadcast(self, x, width: int):
    """One value to `width` neurons: [T, ..., 1] -> [T, ..., width]."""
    return jnp.broadcast_to(x, (*x.shape[:-1], width))

  def matmul(self, a, b):
    """Product over the last two axes: [..., n, k] @ [..., k, m]."""
    return jnp.matmul(a, b)

  def outer(self, a, b):
    """Outer product of features: [..., n], [..., m] -> [..., n, m]."""
    return a[..., :, None] * b[..., None, :]

  # --- norms

  def norm(self, name: str, x, gain, eps: float):
    """RMSNorm with vector gain; the result is the site `name`."""
    return self.site(name, rms_norm(x, gain, eps))

  def norms(self, name: str, x, gains, eps: float):
    """RMSNorms of one value with several gains and one root.

    Args:
      name: scope of the resulting sites.
      x: float[T, ..., n].
      gains: site name -> gain float[n].
      eps: eps of all of them.

    Returns:
      site name -> float[T, ..., n].
    """
    with self.at(name):
      return {
        key: self.site(key, rms_norm(x, gain, eps))
        for key, gain in gains.items()
      }

  def double_norm(self, name: str, x, gain, gains, eps1: float, eps2: float):
    """Two norms in a row, computed with one root (exact for vector gains).

    v = gain x;  r = 1 / sqrt(mean v^2 + eps2 (mean x^2 + eps1));
    result k = v gains[k] r.

    Args:
      name: scope of the resulting sites.
      x: float[T, ..., n].
      gain: gain of the first norm, float[n].
      gains: site name -> gain of the second norm, float[n].
      eps1: eps of the first norm.
      eps2: eps of the second norm.

    Returns:
      site name -> float[T, ..., n].
    """
    v = x * gain
    mean_x = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    mean_v = jnp.mean(jnp.square(v), axis=-1, keepdims=True)
    root = 1 / jnp.sqrt(mean_v + eps2 * (mean_x + eps1))
    with self.at(name):
      return {k: self.site(k, v * root * g) for k, g in gains.items()}

  def layer_norm(self, name: str, x, gain, bias, eps: float):
    """LayerNorm: what is centred, then scaled, then has a bias, each a site.

    Args:
      name: name of the result; `name`.centred and `name`.scaled lie on the way.
      x: float[T, ..., n].
      gain: float[n].
      bias: float[n].
      eps: added to the variance, which is that of the n values.

    Returns:
      float[T, ..., n], as the function `layer_norm`.
    """
    middle = self.site(name + ".centred", centred(x))
    scaled = self.site(name + ".scaled", rms_norm(middle, gain, eps))
    return self.site(name, scaled + bias)

  def act_quant(self, name: str, x):
    """The reference's dynamic 8-bit quantiser, one scale per token."""
    codes, scale = act_codes(x)
    if self.taps:
      self.emit(self.path(name + ".codes"), codes, "stack")
      self.emit(self.path(name + ".scale"), scale, "stack")
    return ste(codes / scale, x)

  # --- element-wise

  def add(self, a, b):
    """a + b."""
    return a + b

  def sub(self, a, b):
    """a - b."""
    return a - b

  def mul(self, a, b):
    """a * b."""
    return a * b

  def one_minus(self, x):
    """1 - x."""
    return 1 - x

  def shift(self, x, bits: int):
    """x * 2^-bits, exactly."""
    return x * 2.0**-bits

  def min(self, a, b):
    """Element-wise minimum."""
    return jnp.minimum(a, b)

  def max(self, a, b):
    """Element-wise maximum."""
    return jnp.maximum(a, b)

  def compare(self, a, b, slope=None):
    """1 where a >= b, else 0 (threshold is inclusive).

    Args:
      a: float[T, ..., n], a potential, say.
      b: float that broadcasts, its threshold.
      slope: `slope(a, b)` with this value and a gradient of its own
        (`spike.surrogates.fire`); None: there is no gradient.

    Returns:
      float[T, ..., n] of 0 and 1.
    """
    return (a >= b).astype(a.dtype) if slope is None else slope(a, b)

  def select(self, cond, a, b):
    """`a` where cond is not zero, else `b`."""
    return jnp.where(cond != 0, a, b)

  def keep(self, mask, x):
    """x where mask int[T, ...] is 1 (or None), zero where it is 0."""
    if mask is None:
      return x
    return x * mask[..., None].astype(x.dtype)

  def sigmoid(self, x):
    """1 / (1 + exp(-x)); a table on the chip."""
    return jax.nn.sigmoid(x)

  def silu(self, name: str, x):
    """x * sigmoid(x); the result is the site `name`."""
    return self.site(name, x * jax.nn.sigmoid(x))

  def gelu(self, name: str, x, form: str = "erf"):
    """GELU, form "erf" or "tanh"; the result is the site `name`."""
    return self.site(name, gelu(x, form))

  # --- attention

  def rotate(
    self, name: str, x, positions, heads: int, base: float, pairs: str
  ):
    """Rotary positions; the result is the site `name`.

    Arguments as those of `jaxnmc.ops.attention.rotate`.
    """
    return self.site(name, attention.rotate(x, positions, heads, base, pairs))

  def remember(self, name: str, cache, x, slots, size: int):
    """Writes values into a memory of fixed size.

    Args:
      name: for messages.
      cache: float[size, ..., n] of an earlier call, or None for zeros.
      x: float[T, ..., n].
      slots: int32[T, ...], where each goes; `size` and more is nowhere.
      size: number of slots.

    Returns:
      float[size, ..., n].

    Raises:
      PlanError: the cache is of another model or batch.
    """
    shape = (size, *x.shape[1:])
    if cache is None:
      cache = jnp.zeros(shape, x.dtype)
    attention.check_cache(self.path(name), cache, shape)
    return attention.write_rows(cache, x, slots)

  def attention(self, name: str, q, k, v, seen, heads: int, kv_heads: int):
    """Softmax attention; the result is the site `name`.

    Arguments as those of `jaxnmc.ops.attention.attend`.
    """
    return self.site(name, attention.attend(q, k, v, seen, heads, kv_heads))

  def memory(
    self,
    name: str,
    state,
    q,
    k,
    v,
    heads: int,
    size: int,
    windows: Windows | None = None,
    mask=None,
  ):
    """Attention without softmax over a memory of sums (`jaxnmc.ops.memory`).

    Args:
      name: of the memory, a site of whole numbers.
      state: float[..., heads d d] of an earlier call, or None for zeros; with
        windows {"sums": the same, "past": [k, v], each a list of float[...,
        heads d], those of 1, 2, ... tokens ago}.
      q: float[T, ..., heads d], whole numbers of magnitude at most 1 (spikes).
      k: the same.
      v: the same.
      heads: number of heads.
      size: the most tokens there can be; bounds what is remembered.
      windows: how many of the last tokens each head remembers, None for all; if
        all do, leave it out.
      mask: int[T, ...], 0 for padding, which takes no place in a window; k is
        to be 0 there.  None for none.

    Returns:
      (y float[T, ..., heads d], the next state).

    Raises:
      PlanError: the state is of another model or batch.
      TokenError: more tokens than `size` in one call without padding.
    """
    path = self.path(name)
    check_tokens(path, q.shape[0], size, mask)
    shape = (*q.shape[1:-1], memory_width(q.shape[-1], heads))
    past = None
    if windows is not None and state is not None:
      check_past(path, state, widest(windows), q.shape[1:])
      k_past, v_past = map(stacked, state["past"])
      state, past = state["sums"], (k_past, v_past)
    if state is None:
      state = jnp.zeros(shape, q.dtype)
    check_memory(path, state, shape)
    if windows is None:
      y, state = recall(q, k, v, state, heads)
      return y, self.site(name, state, whole=size)
    y, state, past = recall_windows(q, k, v, state, past, heads, windows, mask)
    state = self.site(name, state, whole=size)
    return y, {"sums": state, "past": [by_age(x) for x in past]}

  def settle(self, x, const):
    """x, computed once (`jaxnmc.ops.settle`)."""
    return settle(x, jnp.ravel(const)[0])

  def literal(self, values: tuple[int, ...], like):
    """Whole numbers as a value, one for each feature, of the type of `like`."""
    return jnp.asarray(values, like.dtype)

  # --- state

  def zeros(self, like):
    """The zero state for values shaped as one step of `like`."""
    return jnp.zeros_like(like[0])
