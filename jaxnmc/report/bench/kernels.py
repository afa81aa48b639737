"""Cases of single products, and of reading memory."""

import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.kernels import stack
from jaxnmc.kernels.read import read
from jaxnmc.kernels.ternary import MAX_TWO_PLANES, ternary_matmul
from jaxnmc.report.bench.case import Case, jitted

# (in, out) of the 370M shape: attention, gate and up, down, head.
SHAPES = ((1024, 1024), (1024, 5632), (2816, 1024), (1024, 32000))
QUICK_SHAPES = ((256, 256),)
ROWS, QUICK_ROWS = (1, 8, 512), (1, 16)
# Copies that a product goes through, so that none is left in a cache.
_COPIES_BYTES = 1 << 26


def memory_case(quick: bool) -> Case:
  """Reads as many bytes as the packed weights of the 370M shape have."""
  size = 341_500_000 // 4 if not quick else 1 << 25
  array = jnp.ones(size, jnp.uint8)
  return Case("read memory", "memory", jitted(read, array), weight_bytes=size)


def kernel_cases(quick: bool) -> list[Case]:
  """The exact ternary product, as it is used, and a float product beside."""
  draw = np.random.default_rng(0)
  cases = []
  for k, n in QUICK_SHAPES if quick else SHAPES:
    for m in QUICK_ROWS if quick else ROWS:
      if m > 8 and n > 8192:
        continue  # nobody wants the logits of a whole prompt at once
      cases += _products(draw, m, k, n, 1 if m > 8 else _copies(k, n, quick))
  return cases


def _copies(k: int, n: int, quick: bool) -> int:
  return 2 if quick else max(1, _COPIES_BYTES // (k * n))


def _products(draw, m: int, k: int, n: int, copies: int) -> list[Case]:
  codes = draw.integers(-1, 2, (copies, n, k), np.int8)
  weights = stack.stack(list(codes))
  planes = jnp.asarray(codes)
  real = planes.astype(jnp.float32)
  x = draw.integers(-MAX_TWO_PLANES, MAX_TWO_PLANES + 1, (m, k), np.int32)
  layers = jnp.arange(copies)
  pick = lambda w, i: lax.dynamic_index_in_dim(w, i, keepdims=False)

  def over(product):
    """All copies one after the other, as a model's layers are."""

    def run(x, weights):
      def one(carry, layer):
        out = product(x + carry, weights, layer)
        # The next one waits for this one.
        return (out[0, 0] != out[0, 0]).astype(x.dtype), ()

      return lax.scan(one, jnp.zeros((), x.dtype), layers)[0]

    return run

  used = over(lambda x, w, i: stack.product(w, i, x, MAX_TWO_PLANES))
  xla = over(lambda x, w, i: ternary_matmul(x, pick(w, i), MAX_TWO_PLANES))
  plain = over(lambda x, w, i: x @ pick(w, i).T)
  shape = f"{m} x {k} x {n}"
  size = stack.nbytes(weights, m)
  facts = lambda: {"copies": copies}
  beside = f"float32 {shape}"
  case = lambda name, run, size, beside=None: Case(
    f"{name} {shape}", "kernel", run, size, beside=beside, facts=facts
  )
  ints = jnp.asarray(x)
  return [
    case("ternary", jitted(used, ints, weights), size, beside),
    case("ternary, XLA", jitted(xla, ints, planes), planes.nbytes, beside),
    case("float32", jitted(plain, ints.astype(jnp.float32), real), real.nbytes),
  ]
