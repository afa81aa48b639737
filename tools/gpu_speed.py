"""What `tools/gpu_check.py` measures: kernels, and the 370M shape whole.

A kernel is timed inside one program that runs it many times, each time on what
the last one gave, so that neither the host nor overlap flatters it; the small
kernel that makes the next input counts as well.
"""

import time

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.chip.engines import states
from jaxnmc.kernels import (
  packed,
  pallas_gemv,
  pallas_launch,
  pallas_product,
  pallas_recurrence,
)
from jaxnmc.models import matmulfree
from jaxnmc.models.random_params import random_params
from tools import golden

# (in, out) of the 370M model: i, f, g and o; gate with up; down; head.
SHAPES = [(1024, 1024), (1024, 5632), (2816, 1024), (1024, 32000)]
_LAYERS = 8
_REPEATS = 5
_CHAIN = 64
Row = tuple[str, float | None, str, str]


def recurrence(h, f, u):
  """(last h, all h) of h <- round(f h / 2^15) + u, clipped: int32."""

  def step(h, now):
    f, u = now
    h = jnp.clip(((f * h + (1 << 14)) >> 15) + u, -32639, 32639)
    return h, h

  return pallas_recurrence.scan(step, h, (f, u))


def _median(call) -> float:
  """Seconds of a call, median; the first one, which compiles, apart."""
  jax.block_until_ready(call())
  times = []
  for _ in range(_REPEATS):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return float(np.median(times))


def _add(codes, bits, x, i):
  return pallas_gemv.product(x, bits, i, "add")


def _dot(codes, bits, x, i):
  return pallas_gemv.product(x, bits, i, "dot")


def _int8(codes, bits, x, i):
  return pallas_product._many(codes, None, i, x, 32639)


def forms(rows: int, kernels: bool) -> dict:
  """name -> (codes, packed, x, layer) -> product, for so many rows.

  Args:
    rows: rows of activations.
    kernels: whether those in Pallas can run.
  """
  found = {"int8": _int8}
  if kernels and rows <= pallas_gemv.FEW:
    found["dot"] = _dot
  # More rows of this form take long to compile, and are not used.
  if kernels and rows <= pallas_gemv.FEWEST:
    found["add"] = _add
  return found


def _chained(form, codes, bits, x) -> float:
  """Seconds of one product, each of which waits for the one before."""

  @jax.jit
  def run(codes, bits, x):
    def step(x, i):
      out = form(codes, bits, x, i)
      return x ^ (out[:, :1] & 1), ()

    return lax.scan(step, x, jnp.arange(_CHAIN) % len(codes))[0]

  return _median(lambda: run(codes, bits, x)) / _CHAIN


def _products(small: bool, kernels: bool) -> list[Row]:
  rows: list[Row] = []
  for k, n in [(64, 32)] if small else SHAPES:
    codes = golden.draw(f"speed{k}.{n}", (_LAYERS, n, k), -1, 1)
    codes = codes.astype(np.int8)
    stack, bits = jnp.asarray(codes), jnp.asarray(packed.pack(codes))
    for m in (1, 4) if small else (1, 2, 4, 16, 512, 4096):
      x = jnp.asarray(golden.draw(f"x{m}", (m, k), -32639, 32639), jnp.int32)
      for name, form in forms(m, kernels).items():
        seconds = _chained(form, stack, bits, x)
        what = f"product {m} x {k} x {n}, {name}"
        rows.append((what, seconds * 1e6, "us", "measured"))
        if m >= 512:
          rate = 2 * 2 * m * k * n / seconds / 1e12
          rows.append((what, rate, "int8 TOP/s", "measured"))
  return rows


def _recurrences(small: bool, kernels: bool) -> list[Row]:
  rows: list[Row] = []
  n = 64 if small else 1024
  for length in (16,) if small else (512, 4096):
    f = golden.draw("f", (length, n), 0, 1 << 15).astype(np.int32)
    u = golden.draw("u", (length, n), -32639, 32639).astype(np.int32)
    h, f, u = jnp.zeros(n, jnp.int32), jnp.asarray(f), jnp.asarray(u)

    def plain(h, f, u):
      step = lambda h, now: (
        2
        * (jnp.clip(((now[0] * h + (1 << 14)) >> 15) + now[1], -32639, 32639),)
      )
      return lax.scan(step, h, (f, u))

    ways = {"lax.scan": plain}
    if kernels:
      ways["one launch"] = recurrence
    for name, form in ways.items():
      run = jax.jit(form)
      seconds = _median(lambda run=run, h=h, f=f, u=u: run(h, f, u))
      what = f"recurrence of {n}, {length} steps, {name}"
      rows.append((what, seconds * 1e6, "us", "measured"))
  return rows


class _Whole:
  """A whole model by `loihi` (with its counts) and by `fixed`."""

  def __init__(self, small: bool) -> None:
    start = time.perf_counter()
    if small:
      self.config = golden.tiny().config
      params = golden.tiny_params(self.config)
    else:
      self.config = matmulfree.PRESETS["370M"]
      params = random_params(self.config, 0)
    self.fn = matmulfree.make(self.config)
    most = self.config.vocab_size - 1
    self.ids = lambda b, t: golden.draw("ids", (b, t), 0, most).astype(np.int32)
    stats = nmc.calibrate(self.fn)(params, [self.ids(1, 64)[0]])
    self.plan = nmc.plan(stats, nmc.quantize.W8A16)
    self.qparams = nmc.quantize_params(params, self.plan)
    graph = nmc.record(self.fn, self.plan, self.qparams)
    chips = nmc.chip.loihi2(chips=2 if small else 24)
    placement = nmc.place(graph, chips, head="host")
    self.engine = nmc.loihi(self.fn, self.plan, placement)
    self.prepared = time.perf_counter() - start

  def programs(self):
    """name -> (function (data, ids, state) -> (out, state, rest), data)."""
    fixed = nmc.fixed(self.fn, self.plan)
    # The traced form with its data as arguments: as constants of a program
    # hundreds of megabytes would be compiled into it.
    zeros = lambda ids: states.zeros(self.engine.graph, ids.shape[:-1])
    loihi = lambda data, ids, state: self.engine._core(
      data, {"ids": ids}, None, zeros(ids) if state is None else state
    )
    plain = lambda data, ids, state: (*fixed(data, {"ids": ids}, state), ())
    return {
      "loihi": (loihi, self.engine._load()),
      "fixed": (plain, jax.tree.map(jnp.asarray, self.qparams)),
    }


def _next(run):
  """One greedy step: (data, token [B, 1], state) -> (token, state, counts)."""

  def step(data, token, state):
    out, state, counts = run(data, token, state)
    best = jnp.argmax(out.logits.q[:, -1:], axis=-1).astype(jnp.int32)
    return best, state, counts

  return step


def _decode(name, run, data, ids, state, tokens: int) -> list[Row]:
  """Tokens per second of all sequences, both ways of running a token."""
  batch = ids.shape[0]
  step = _next(run)
  start = time.perf_counter()
  one = jax.jit(step).lower(data, ids, state).compile()
  compiled = time.perf_counter() - start

  def calls():
    token, now = ids, state
    for _ in range(tokens):
      token, now, _ = one(data, token, now)
    return token

  @jax.jit
  def together(data, token, state):
    def body(carry, _):
      token, state, counts = step(data, *carry)
      return (token, state), counts

    return lax.scan(body, (token, state), None, tokens)

  what = f"{name} decode, batch {batch}"
  each = batch * tokens
  rate = each / _median(calls)
  whole = each / _median(lambda: together(data, ids, state))
  return [
    (f"{what}, a call per token", rate, "tokens/s", "measured"),
    (f"{what}, {tokens} tokens per call", whole, "tokens/s", "measured"),
    (f"{what}, compile", compiled, "s", "measured"),
  ]


def _prefill(name, run, data, ids) -> list[Row]:
  start = time.perf_counter()
  program = jax.jit(lambda data, ids: run(data, ids, None))
  program = program.lower(data, ids).compile()
  compiled = time.perf_counter() - start
  rate = ids.size / _median(lambda: program(data, ids))
  what = f"{name} prefill, {ids.shape[0]} x {ids.shape[1]}"
  return [
    (what, rate, "tokens/s", "measured"),
    (f"{what}, compile", compiled, "s", "measured"),
  ]


def _peak() -> Row:
  """Most memory of the device that was in use."""
  stats = jax.devices()[0].memory_stats() or {}
  peak = stats.get("peak_bytes_in_use")
  value = None if peak is None else peak / 1e9
  return ("peak memory of the device", value, "GB", "measured")


def measure(small: bool, late) -> tuple[list[Row], list[str]]:
  """All figures that there is time for.

  Args:
    small: small sizes, to see that everything runs.
    late: says that nothing else may start.

  Returns:
    (what, value, unit, label) rows, and what was left out.
  """
  kernels = pallas_launch.wanted() and not pallas_launch.interpreted()
  rows: list[Row] = []
  if late():
    return rows, ["all speeds"]
  rows += _recurrences(small, kernels)
  if late():
    return rows, ["products", "whole model"]
  # The whole model is what matters most, so it comes before the products.
  whole = _Whole(small)
  rows.append(("model prepared", whole.prepared, "s", "measured"))
  lengths = [(2, 8)] if small else [(1, 512), (1, 4096), (16, 512)]
  batches, tokens = ((2,), 4) if small else ((1, 64), 64)
  left = []
  # Most of the time is compilation.
  programs = whole.programs()
  if small:
    programs.pop("fixed")
  for name, (run, data) in programs.items():
    for batch in batches:
      if late():
        left.append(f"{name} decode, batch {batch}")
        continue
      ids = jnp.asarray(whole.ids(batch, 1))
      like = jax.eval_shape(run, data, ids, None)[1]
      state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
      rows += _decode(name, run, data, ids, state, tokens)
    for batch, length in lengths:
      if late():
        left.append(f"{name} prefill, {batch} x {length}")
        continue
      rows += _prefill(name, run, data, jnp.asarray(whole.ids(batch, length)))
  rows.append(_peak())
  if late():
    return rows, [*left, "products"]
  return rows + _products(small, kernels), left
