"""Matrix products of a step: how many operations, and how fast they could go.

The share of the peak ("mfu") is the operations of all matrix products of a
step, over the time of the step, over the rate of a large product on the same
devices in the same type. Everything else a step does makes it smaller.
"""

import functools
import math
import time
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh

from jaxnmc import _compat

# Sizes of the square products tried, and how long one may take: larger ones
# are no faster after that, and the start of a run should not wait.
_SIZES = (512, 1024, 2048, 4096, 8192)
_SECONDS = 0.02
_REPEATS = 5


def flops(jaxpr: _compat.ClosedJaxpr | _compat.Jaxpr) -> int | None:
  """Multiplications and additions of all matrix products of a program.

  Each `dot_general` is counted as often as it runs: 2 m n k for [m, k] @
  [k, n]. Of the gradient too, because it is in the program; convolutions and
  calls of foreign code are not matrix products here.

  Args:
    jaxpr: a traced function.

  Returns:
    The number, or None where it depends on the data: a product in a loop of
    unknown length, or in branches that differ.
  """
  inner = jaxpr.jaxpr if isinstance(jaxpr, _compat.ClosedJaxpr) else jaxpr
  total = 0
  for eqn in inner.eqns:
    found = _flops_of(eqn)
    if found is None:
      return None
    total += found
  return total


def _flops_of(eqn: _compat.JaxprEqn) -> int | None:
  name = eqn.primitive.name
  if name == "dot_general":
    (contracted, _), _ = eqn.params["dimension_numbers"]
    (left, _), (out,) = map(_shapes, (eqn.invars, eqn.outvars))
    return 2 * math.prod(out) * math.prod(left[i] for i in contracted)
  below = [flops(sub) for sub in _below(eqn.params)]
  if None in below:
    return None
  counts = [n for n in below if n is not None]
  if name == "scan":
    return eqn.params["length"] * sum(counts)
  if name == "while":
    return None if any(counts) else 0
  if name == "cond":
    return counts[0] if len(set(counts)) == 1 else None
  return sum(counts)


def _shapes(values) -> list[tuple[int, ...]]:
  return [value.aval.shape for value in values]


def _below(params: dict[str, Any]):
  """The programs inside an equation."""
  for param in params.values():
    for leaf in param if isinstance(param, (tuple, list)) else (param,):
      if isinstance(leaf, (_compat.ClosedJaxpr, _compat.Jaxpr)):
        yield leaf


def narrow_dot(a: jax.Array, b: jax.Array) -> jax.Array:
  """a @ b.T with sums in float32: [m, k], [n, k] of one type -> [m, n]."""
  return lax.dot_general(
    a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
  )


@functools.cache
def peak(dtype: str, mesh: Mesh) -> float:
  """Measured rate of matrix products on all devices at once.

  Square products of growing size, each device its own; the best of all
  repetitions and sizes counts, so other work on the machine disturbs little.

  Args:
    dtype: of the operands; sums are float32.
    mesh: the devices.

  Returns:
    Multiplications and additions per second, all devices together.
  """
  devices = list(mesh.devices.flat)
  dot, best = jax.jit(narrow_dot), 0.0
  for n in _SIZES:
    ones = [jax.device_put(jnp.ones((n, n), dtype), d) for d in devices]
    run = lambda ones=ones: jax.block_until_ready([dot(x, x) for x in ones])
    run()
    seconds = min(_clock(run) for _ in range(_REPEATS))
    best = max(best, 2 * n**3 * len(devices) / seconds)
    if seconds > _SECONDS:
      break
  return best


def _clock(run) -> float:
  started = time.perf_counter()
  run()
  return time.perf_counter() - started
