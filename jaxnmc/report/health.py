"""Is this installation, is this model in good health?"""

import importlib.util
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.evaluate import provenance
from jaxnmc.kernels import native, packed, program, tally, ternary, walk
from jaxnmc.numerics import wide
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops import transform

# Extra -> the modules it brings.
EXTRAS = {
  "hf": ("safetensors", "tokenizers", "sentencepiece", "huggingface_hub"),
  "eval": ("lm_eval",),
  "nir": ("nir",),
  "plot": ("matplotlib",),
  "track": ("tensorboardX",),
  "export": ("flatbuffers",),
  "test": ("pytest", "hypothesis", "xdist", "pytest_cov"),
  "dev": ("ruff", "mypy"),
}
CORE = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy")


def _version(name: str) -> str | None:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return None


def installation() -> dict[str, Any]:
  """Versions, devices, an exactness check of the kernels, extras."""
  return {
    "versions": {
      **provenance.versions(),
      **{name: _version(name) for name in (*CORE, "absl-py", "rich")},
    },
    "devices": [
      {"id": d.id, "platform": d.platform, "kind": d.device_kind}
      for d in jax.devices()
    ],
    "x64": bool(jax.config.read("jax_enable_x64")),
    "kernels": kernels(),
    "extras": {
      extra: {name: importlib.util.find_spec(name) is not None for name in all_}
      for extra, all_ in EXTRAS.items()
    },
  }


def kernels() -> dict[str, bool]:
  """Each integer kernel on this device: does it give the exact integers?"""
  draw = np.random.default_rng(0)
  most = ternary.MAX_TWO_PLANES
  x = draw.integers(-most, most + 1, (3, 130)).astype(np.int32)
  w = draw.integers(-1, 2, (37, 130)).astype(np.int8)
  found = ternary.ternary_matmul(jnp.asarray(x), jnp.asarray(w), bound=most)
  product = np.array_equal(found, x.astype(np.int64) @ w.T.astype(np.int64))
  a = draw.integers(-(2**31) + 1, 2**31, 500)
  b = draw.integers(-(2**15), 2**15, 500)
  shifted = wide.mul_shr(
    jnp.asarray(a, jnp.int32),
    jnp.asarray(b, jnp.int32),
    20,
    -(2**31),
    2**31 - 1,
  )
  exact = [(int(p) * int(q) + (1 << 19)) >> 20 for p, q in zip(a, b)]
  clipped = np.clip(np.array(exact, np.int64), -(2**31), 2**31 - 1)
  out = {
    "ternary matrix product": bool(product),
    "multiply and shift": bool(np.array_equal(shifted, clipped)),
  }
  if not native.available():
    return out
  exact_product = x.astype(np.int64) @ w.T.astype(np.int64)
  small = jnp.asarray(packed.pack(w[None]))
  few = packed.product(jnp.asarray(x), small, jnp.int32(0))
  many = packed.product(jnp.asarray(np.tile(x, (16, 1))), small, jnp.int32(0))
  table = np.abs(w[None])  # 1 where a weight is walked
  cut = np.array([0, 64, 130])
  weighed = tally.Table.of(table)
  tallied = tally.native_tally([jnp.asarray(x)], [cut], [weighed])
  sent = (x != 0).astype(np.int64)
  counts = [sent[:, :64].sum(1), sent[:, 64:].sum(1), *(table[0] @ sent.T)]
  rows = walk.Rows(jnp.asarray(w.T), 0)
  sums = walk.native_walk(rows, jnp.asarray(x[0]))
  return out | {
    f"native ternary product ({native.path()})": bool(
      np.array_equal(few, exact_product)
    ),
    f"native ternary product, many rows ({native.path()})": bool(
      np.array_equal(many, np.tile(exact_product, (16, 1)))
    ),
    "native tally": bool(np.array_equal(tallied, np.stack(counts, axis=1))),
    "native walk": bool(np.array_equal(sums, exact_product[0])),
    "native single token": bool(
      np.array_equal(_product_alone(x[:1], small), exact_product[0])
    ),
  }


def _product_alone(x: np.ndarray, weights) -> np.ndarray:
  """A product by the interpreter of single tokens, int32[out]."""
  to = program.Assembler()
  given, out = to.take(x.shape[1]), to.take(weights.shape[1])
  to.products([(out, given, 2, 0)])
  to.write("keep", out.width, None, [out])
  written = to.done([given], (), (), [out.width], ())
  none = jnp.zeros((1, 0), jnp.int32)
  kept, _, _ = program.run(
    written, [jnp.asarray(x)], (), none, (), [weights], ()
  )
  return np.asarray(kept[0])[0, 0]


def sites(
  fn, plan, qparams, ids: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
  """Dead and saturated values of every site on one text.

  Args:
    fn: model function.
    plan: number formats.
    qparams: integer parameters.
    ids: token ids, [T].

  Returns:
    One row per site: `site`, `format`, `features`, `dead` (features that are
    zero at every token), `values`, `saturated` (values that were clipped),
    `used_bits` of the largest magnitude.
  """
  run = transform.fixed(fn, plan, taps=True, saturation=True)
  static: dict[str, tuple[str, int]] = {}  # learned while tracing

  @jax.jit
  def measure(qparams, ids):
    values = run(qparams, {"ids": ids})[2]
    found = {}
    for path, value in values.items():
      if isinstance(value, Fx) and path in plan.formats:
        width = value.q.shape[-1]
        static[path] = (str(plan.formats[path]), width)
        q = value.q.reshape(-1, width)
        saturated = values.get(path + ".saturated", jnp.int32(0))
        dead = jnp.sum(~jnp.any(q != 0, axis=0), dtype=jnp.int32)
        found[path] = (dead, saturated, jnp.max(jnp.abs(q)))
    return found

  found = jax.device_get(measure(qparams, jnp.asarray(ids, jnp.int32)))
  rows = []
  for path, (dead, saturated, top) in found.items():
    fmt, width = static[path]
    rows.append(
      {
        "site": path,
        "format": fmt,
        "features": width,
        "dead": int(dead),
        "values": width * len(ids),
        "saturated": int(saturated),
        "used_bits": int(top).bit_length() + 1,
      }
    )
  return rows
