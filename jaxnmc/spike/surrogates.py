"""Surrogate gradients: the derivative that a step function is given.

A neuron fires at u = h - theta >= 0, and the derivative of a step is useless.
A surrogate g takes its place in the backward pass only (Neftci et al. 2019,
arXiv 1901.09948); sigma(x) = 1 / (1 + e^-x):

| kind | g(u) | defaults | g(0) | area |
| --- | --- | --- | --- | --- |
| atan | (a/2) / (1 + (pi a u / 2)^2) | a 2 | a/2 | 1 |
| fast_sigmoid | 1 / (1 + k abs(u))^2 | k 25 | 1 | 2/k |
| super_spike | a / (1 + abs(u))^2 | a 1 | a | 2a |
| soft_sign | (a/2) / (1 + a abs(u))^2 | a 2 | a/2 | 1 |
| sigmoid | k sigma(ku) (1 - sigma(ku)) | k 4 | k/4 | 1 |
| triangular | max(0, 1 - k abs(u)) | k 2 | 1 | 1/k |
| piecewise_quadratic | max(0, a - a^2 abs(u)) | a 1 | a | 1 |
| piecewise_exp | (a/2) e^(-a abs(u)) | a 1 | a/2 | 1 |
| erf | (a / sqrt(pi)) e^(-(a u)^2) | a 2 | a / sqrt(pi) | 1 |
| slayer | (rho / (2 tau)) e^(-abs(u) / tau) | rho 1, tau 1 | rho / (2 tau) | rho |
| boxcar | height where abs(u) <= width / 2 | width 2, height 1/2 | height | width height |
| spyx_arctan | 1 / (pi (1 + (k pi u)^2)) | k 2 | 1/pi | 1 / (k pi) |
| straight_through | 1 | | 1 | none |

Whose defaults they are: SpikingJelly has atan 2, sigmoid 4, soft_sign 2,
super_spike 1, piecewise_quadratic 1, piecewise_exp 1 and erf 2; snnTorch atan
2, fast_sigmoid 25 and sigmoid 25; Spyx fast_sigmoid 25, triangular 2, boxcar
2 and 1/2, and spyx_arctan, which is not normalised as atan is.  SLAYER's rho
and tau are in thresholds: pass them times theta.
"""  # noqa: E501

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError

__all__ = ["ATAN", "KINDS", "Surrogate", "fire", "heaviside", "surrogate"]


class _Kind(NamedTuple):
  """One row of the table.

  Attributes:
    slope: g(u, *parameters).
    integral: G(u, *parameters), the integral of g from -infinity to u (from 0
      where there is none).
    defaults: parameter -> value.
    area: of g under the parameters.
  """

  slope: Callable[..., jax.Array]
  integral: Callable[..., jax.Array]
  defaults: dict[str, float]
  area: Callable[..., float]


def _ramp(u, k):
  """Integral of max(0, 1 - k |u|)."""
  x = jnp.clip(k * u, -1, 1)
  return (0.5 + x - x * jnp.abs(x) / 2) / k


def _laplace(u, a):
  """Integral of (a / 2) e^(-a |u|)."""
  tail = jnp.exp(-a * jnp.abs(u)) / 2
  return jnp.where(u < 0, tail, 1 - tail)


def _rational(u, k):
  """Integral of 1 / (1 + k |u|)^2."""
  return 1 / k + u / (1 + k * jnp.abs(u))


KINDS = {
  "atan": _Kind(
    lambda u, a: a / 2 / (1 + (math.pi * a / 2 * u) ** 2),
    lambda u, a: 0.5 + jnp.arctan(math.pi * a / 2 * u) / math.pi,
    {"a": 2.0},
    lambda a: 1.0,
  ),
  "fast_sigmoid": _Kind(
    lambda u, k: 1 / (1 + k * jnp.abs(u)) ** 2,
    _rational,
    {"k": 25.0},
    lambda k: 2 / k,
  ),
  "super_spike": _Kind(
    lambda u, a: a / (1 + jnp.abs(u)) ** 2,
    lambda u, a: a * _rational(u, 1.0),
    {"a": 1.0},
    lambda a: 2 * a,
  ),
  "soft_sign": _Kind(
    lambda u, a: a / 2 / (1 + a * jnp.abs(u)) ** 2,
    lambda u, a: a / 2 * _rational(u, a),
    {"a": 2.0},
    lambda a: 1.0,
  ),
  "sigmoid": _Kind(
    lambda u, k: k * jax.nn.sigmoid(k * u) * jax.nn.sigmoid(-k * u),
    lambda u, k: jax.nn.sigmoid(k * u),
    {"k": 4.0},
    lambda k: 1.0,
  ),
  "triangular": _Kind(
    lambda u, k: jnp.maximum(0, 1 - k * jnp.abs(u)),
    _ramp,
    {"k": 2.0},
    lambda k: 1 / k,
  ),
  "piecewise_quadratic": _Kind(
    lambda u, a: jnp.maximum(0, a - a * a * jnp.abs(u)),
    lambda u, a: a * _ramp(u, a),
    {"a": 1.0},
    lambda a: 1.0,
  ),
  "piecewise_exp": _Kind(
    lambda u, a: a / 2 * jnp.exp(-a * jnp.abs(u)),
    _laplace,
    {"a": 1.0},
    lambda a: 1.0,
  ),
  "erf": _Kind(
    lambda u, a: a / math.sqrt(math.pi) * jnp.exp(-((a * u) ** 2)),
    lambda u, a: (1 + jax.lax.erf(a * u)) / 2,
    {"a": 2.0},
    lambda a: 1.0,
  ),
  "slayer": _Kind(
    lambda u, rho, tau: rho / (2 * tau) * jnp.exp(-jnp.abs(u) / tau),
    lambda u, rho, tau: rho * _laplace(u, 1 / tau),
    {"rho": 1.0, "tau": 1.0},
    lambda rho, tau: rho,
  ),
  "boxcar": _Kind(
    lambda u, width, height: jnp.where(jnp.abs(u) <= width / 2, height, 0.0),
    lambda u, width, height: (
      height * (jnp.clip(u, -width / 2, width / 2) + width / 2)
    ),
    {"width": 2.0, "height": 0.5},
    lambda width, height: width * height,
  ),
  "spyx_arctan": _Kind(
    lambda u, k: 1 / (math.pi * (1 + (k * math.pi * u) ** 2)),
    lambda u, k: (math.pi / 2 + jnp.arctan(k * math.pi * u)) / (math.pi**2 * k),
    {"k": 2.0},
    lambda k: 1 / (math.pi * k),
  ),
  "straight_through": _Kind(
    lambda u: jnp.ones_like(u), lambda u: u, {}, lambda: math.inf
  ),
}


@dataclasses.dataclass(frozen=True)
class Surrogate:
  """A row of this file's table with its parameters; `surrogate` makes one.

  It can be hashed, and so be a static argument.

  Attributes:
    kind: name of the row.
    parameters: in the order of the table.
    smooth: the forward pass is the integral of g too, no step at all.  Then
      the gradient is a true one, which finite differences confirm.
  """

  kind: str = "atan"
  parameters: tuple[float, ...] = (2.0,)
  smooth: bool = False

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ConfigError(
        f"surrogate: kind is {self.kind!r}; allowed are {', '.join(KINDS)}"
      )
    names = tuple(KINDS[self.kind].defaults)
    if len(self.parameters) != len(names):
      raise ConfigError(
        f"surrogate {self.kind}: {len(self.parameters)} parameters were given;"
        f" it has {len(names)} ({', '.join(names) or 'none'})"
      )
    for name, value in zip(names, self.parameters):
      if not (math.isfinite(value) and value > 0):
        raise ConfigError(
          f"surrogate {self.kind}: {name} is {value!r}; allowed are finite"
          " numbers above 0"
        )

  def derivative(self, u: jax.Array) -> jax.Array:
    """g(u): float[...] of the shape and dtype of u."""
    g = KINDS[self.kind].slope(u, *self.parameters)
    return g.astype(u.dtype)

  def integral(self, u: jax.Array) -> jax.Array:
    """Integral of g up to u (straight_through: u): float[...]."""
    return KINDS[self.kind].integral(u, *self.parameters).astype(u.dtype)

  @property
  def area(self) -> float:
    """Integral of g over all u; infinite for straight_through."""
    return KINDS[self.kind].area(*self.parameters)

  @property
  def peak(self) -> float:
    """g(0), its largest value."""
    return float(KINDS[self.kind].slope(jnp.zeros(()), *self.parameters))


def surrogate(
  kind: str = "atan", *, smooth: bool = False, **parameters: float
) -> Surrogate:
  """A surrogate by name.

  Args:
    kind: a row of this file's table.
    smooth: as in `Surrogate`.
    **parameters: by the names of the table; what is left out is its default.

  Returns:
    The surrogate.

  Raises:
    ConfigError: an unknown kind or parameter, or one that is not positive.
  """
  defaults = KINDS[kind].defaults if kind in KINDS else {}
  unknown = sorted(set(parameters) - set(defaults))
  if kind in KINDS and unknown:
    raise ConfigError(
      f"surrogate {kind}: there is no parameter {unknown[0]!r}; it has"
      f" {', '.join(defaults) or 'none'}"
    )
  values = tuple(float(v) for v in {**defaults, **parameters}.values())
  return Surrogate(kind, values, smooth)


ATAN = Surrogate()


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def fire(h: jax.Array, theta: jax.Array, shape: Surrogate = ATAN) -> jax.Array:
  """1 where h >= theta, else 0; differentiates as g(h / theta - 1).

  The slope is that of the potential in units of its threshold, so that it is
  the same at every scale, and thresholds can be learned.

  Args:
    h: float[...], potentials.
    theta: float that broadcasts, thresholds above 0.
    shape: the surrogate.

  Returns:
    The dtype of h.
  """
  return (h >= theta).astype(h.dtype)


@fire.defjvp
def _fire_jvp(shape, primals, tangents):
  (h, theta), (dh, dtheta) = primals, tangents
  u = h / theta - 1
  du = (dh - (u + 1) * dtheta) / theta
  return fire(h, theta, shape), shape.derivative(u) * du


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _step(u: jax.Array, shape: Surrogate, strict: bool) -> jax.Array:
  if shape.smooth:
    return shape.integral(u)
  return (u > 0 if strict else u >= 0).astype(u.dtype)


@_step.defjvp
def _step_jvp(shape, strict, primals, tangents):
  (u,), (du,) = primals, tangents
  return _step(u, shape, strict), shape.derivative(u) * du


def heaviside(
  u: jax.Array, shape: Surrogate = ATAN, strict: bool = False
) -> jax.Array:
  """1 where u >= 0, else 0; differentiates as the surrogate.

  Args:
    u: float[...] or int32[...], potential minus threshold.
    shape: the surrogate; without effect on integers, which have no gradient.
    strict: u > 0 instead.  SpikingJelly, snnax and SLAYER fire at the
      threshold itself, snnTorch, Norse and Spyx only above it; the theorems of
      `qcfs` need the former.

  Returns:
    The shape and dtype of u.
  """
  if not jnp.issubdtype(u.dtype, jnp.floating):
    return (u > 0 if strict else u >= 0).astype(u.dtype)
  return _step(u, shape, strict)
