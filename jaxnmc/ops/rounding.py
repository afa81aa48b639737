"""The float model with rounding where a plan has formats, and only there.

For plans that are not integers everywhere: some sites are left in float, or
have a scale that no shift can apply.  Every op computes what `Reference` does;
a site, gain, table or constant with a format is rounded to it.  What else a
plan says is taken over one by one: numbers inside a norm as the chip has them
(mean square of few bits, root of its table and Newton steps), the sigmoid's
table, the dynamic activation quantiser or none, and storage in half precision.

Under half precision (`Plan.dtype`) values and parameters are stored so after
every op, while norms, the activation quantiser, SiLU, sums of products and the
state within a scan are computed in float32, as the public code of Zhu et al.
2024 (arXiv 2406.02528) does.
"""

import jax
from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.numerics import rsqrt, sigmoid
from jaxnmc.numerics.float_formats import rounded
from jaxnmc.numerics.ste import ste
from jaxnmc.numerics.ternary import MIN_SCALE, Ternary
from jaxnmc.ops import attention
from jaxnmc.ops.constants import constant
from jaxnmc.ops.reference import Reference, centred, gelu, product


def in_storage(params, dtype: str | None):
  """Parameters as they are stored: floats cast to `dtype`; None: unchanged."""
  if dtype is None:
    return params

  def cast(x):
    kind = jnp.result_type(x)
    floating = jnp.issubdtype(kind, jnp.floating)
    return jnp.asarray(x).astype(dtype) if floating else x

  return jax.tree.map(cast, params)


def half_ternary(weight) -> jax.Array:
  """Ternary values as half precision has them: +-(1 / (1 / c)), each rounded.

  Args:
    weight: latent [out, in] in half precision, or `Ternary` with such a scale.

  Returns:
    [out, in] of that type; gradient straight through to the latent.
  """
  if isinstance(weight, Ternary):
    return weight.codes.astype(weight.scale.dtype) / (1 / weight.scale)
  wide = jnp.mean(jnp.abs(weight).astype(jnp.float32)).astype(weight.dtype)
  inverse = 1 / jnp.maximum(wide, MIN_SCALE)
  codes = jnp.clip(jnp.round(weight * inverse), -1, 1)
  return ste(codes / inverse, weight)


def _wide(x) -> jax.Array:
  """At least float32."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _floor(x) -> jax.Array:
  return ste(jnp.floor(x), x)


class Rounding(Reference):
  """`Reference` under a plan; ops, shapes and errors as there.

  Args:
    plan: number formats of all sites.
    taps: keep the value of every site on the tape.

  Raises (every op that names a site):
    PlanError: the plan does not know it.
    FormatError: a format that cannot hold what it is for.
  """

  def __init__(self, plan, taps: bool = False) -> None:
    super().__init__(taps)
    self.plan = plan

  def _rounded(self, path: str, x):
    return rounded(x, self.plan.site(path), path)

  def site(self, name, x, align=None, unit=False, whole=None):
    """Rounds to the plan's format of this site, if it has one."""
    x = self._rounded(self.path(name), x)
    return super().site(name, x, align, unit, whole)

  # --- parameters

  def const(self, name, param, transform=None, unit=False):
    """A parameter, rounded after its function."""
    del unit
    return self._rounded(self.path(name), constant(transform)(param))

  def linear(self, name, weight, x):
    """Ternary product, summed up in at least float32."""
    if self.plan.dtype is None:
      return super().linear(name, weight, x)
    self.guard(self.path(name))
    return product(_wide(x), _wide(half_ternary(weight))).astype(x.dtype)

  def matmul(self, a, b):
    """Product of two activations, summed up in at least float32."""
    return jnp.matmul(_wide(a), _wide(b)).astype(a.dtype)

  def sum(self, x):
    """Sum over features, in at least float32."""
    return super().sum(_wide(x)).astype(x.dtype)

  def _stored(self, path, param):
    """Dense matrices, biases and gains of other norms."""
    return self._rounded(path, param)

  def _dense_product(self, x, weight):
    return super()._dense_product(_wide(x), _wide(weight)).astype(x.dtype)

  # --- norms

  def _gain(self, path: str, gain):
    return _wide(self._rounded(path + ".gain", gain))

  def _root(self, path: str, means, eps: float, tiny: bool = False):
    """1 / sqrt(sum of means + eps), with the numbers the plan has inside.

    An eps that underflows is refused, unless it is `tiny` by nature: the
    product of two (docs/numerics.md, 6.2), which rounds up instead.
    """
    inside = self.plan.inside(path)
    if inside is None:
      return 1 / jnp.sqrt(sum(means) + eps)
    unit, limit = 2.0**inside.frac, (1 << inside.bits) - 1
    code = max(1, int(eps * unit + 0.5)) if tiny else inside.eps_code(eps, path)
    codes = [jnp.minimum(_floor(mean * unit + 0.5), limit) for mean in means]
    total = jnp.clip(sum(codes) + code, 1, limit)
    root = ste(rsqrt.inv_sqrt_float(total), 2.0**18 / jnp.sqrt(total))
    return root * 2.0 ** -rsqrt.result_frac(inside.frac)

  def norm(self, name, x, gain, eps):
    """RMSNorm with vector gain; the result is the site `name`."""
    path = self.path(name)
    root = self._root(path, [_mean_square(x)], self.plan.eps or eps)
    y = _wide(x) * root * self._gain(path, gain)
    return self.site(name, y.astype(x.dtype))

  def norms(self, name, x, gains, eps):
    """RMSNorms of one value, one root: site name -> result, as in gains."""
    path = self.path(name)
    root = self._root(path, [_mean_square(x)], self.plan.eps or eps)
    return self._scaled(name, _wide(x) * root, gains, x.dtype)

  def double_norm(self, name, x, gain, gains, eps1, eps2):
    """Two norms with one root; the value between is the site `.v`."""
    path = self.path(name)
    eps1, eps2 = self.plan.eps or eps1, self.plan.eps or eps2
    v = self._between(path + ".v", _wide(x) * self._gain(path, gain))
    means = [_mean_square(v), eps2 * _mean_square(x)]
    root = self._root(path, means, eps1 * eps2, tiny=True)
    return self._scaled(name, v * root, gains, x.dtype)

  def _between(self, path: str, x):
    """A site inside of a norm, which is not stored: it stays as wide."""
    x = self._rounded(path, x)
    if self.taps:
      self.emit(path, x, "stack")
    return x

  def _scaled(self, name: str, x, gains, dtype) -> dict:
    """x times each gain, in `dtype`: the sites `name`.key."""
    with self.at(name):
      return {
        key: self.site(key, (x * self._gain(self.path(key), g)).astype(dtype))
        for key, g in gains.items()
      }

  def layer_norm(self, name, x, gain, bias, eps):
    """LayerNorm; the result is the site `name`."""
    path = self.path(name)
    bias = _wide(self._stored(path + ".bias", bias))
    middle = self._between(path + ".centred", centred(_wide(x)))
    root = self._root(path, [_mean_square(middle)], self.plan.eps or eps)
    scaled = middle * root * self._gain(path, gain)
    y = self._between(path + ".scaled", scaled) + bias
    return self.site(name, y.astype(x.dtype))

  def act_quant(self, name, x):
    """The reference's dynamic quantiser, if the plan keeps it."""
    if not self.plan.dynamic:
      return x
    return super().act_quant(name, _wide(x)).astype(x.dtype)

  # --- element-wise

  def sigmoid(self, x):
    """Sigmoid of the plan's table; exact if it has none."""
    table = self.plan.table
    if table is None:
      return jax.nn.sigmoid(_wide(x)).astype(x.dtype)
    k = _wide(x) * 2.0**table.in_frac
    k = jnp.clip(_floor(k + 0.5), -table.reach, table.reach)
    smooth = sigmoid.sigmoid_float(k, table, floored=False)
    y = ste(sigmoid.sigmoid_float(k, table), smooth)
    return (y * 2.0**-table.out_frac).astype(x.dtype)

  def silu(self, name, x):
    """x * sigmoid(x); the result is the site `name`."""
    wide = _wide(x)
    return self.site(name, (wide * self.sigmoid(wide)).astype(x.dtype))

  def gelu(self, name, x, form="erf"):
    """GELU; the result is the site `name`."""
    return self.site(name, gelu(_wide(x), form).astype(x.dtype))

  def attention(self, name, q, k, v, seen, heads, kv_heads):
    """Softmax attention; the result is the site `name`."""
    out = attention.attend(_wide(q), _wide(k), _wide(v), seen, heads, kv_heads)
    return self.site(name, out.astype(q.dtype))

  # --- state

  def scan(self, name, body, init, xs):
    """Scans over time; within the scan the state is at least float32.

    Raises:
      PlanError: the state handed in is no float state.
      TransformError: called inside a raw JAX transform.
    """
    for leaf in jax.tree.leaves(init):
      if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        raise PlanError(
          f"{self.path(name)}: expected a float state, found"
          f" {jnp.result_type(leaf)}; start from None (zeros) or from the state"
          " of an earlier call of the same transform"
        )
    if self.plan.dtype is None:
      return super().scan(name, body, init, xs)

    def step(ops, carry, x):
      carry, y = body(ops, carry, x)
      return jax.tree.map(_wide, carry), y

    stored = lambda x: x.astype(self.plan.dtype)
    carry, ys = super().scan(name, step, jax.tree.map(_wide, init), xs)
    return jax.tree.map(stored, carry), jax.tree.map(stored, ys)


def _mean_square(x) -> jax.Array:
  """Mean of squares over features, in at least float32: [..., 1]."""
  return jnp.mean(jnp.square(_wide(x)), axis=-1, keepdims=True)
