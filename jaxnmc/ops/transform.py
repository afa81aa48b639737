"""The transforms: function in, function out, like `jax.grad`.

A model function takes time first, `[T, ...]`.  The functions made here take
`inputs["ids"]` of shape [T] or [B, T]; a batch is `vmap`ped, and then the state
has the batch axis first.
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.numerics.formats import Format
from jaxnmc.numerics.fx import Fx, is_fx
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.alu_float import FloatAlu
from jaxnmc.ops.observe import (
  CHANNELS,
  HISTOGRAM,
  Notes,
  Observe,
  label_leaves,
)
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.reference import Reference
from jaxnmc.ops.rounding import Rounding, in_storage
from jaxnmc.ops.stores import FloatStore, IntStore, check_qparams


def over_batch(run, inputs, state):
  """Runs `run(inputs, state)`, mapped over axis 0 if ids are [B, T].

  Args:
    run: function of one sequence.
    inputs: dict of arrays; other inputs follow the rank of "ids".
    state: state pytree or None.

  Returns:
    What `run` returns, with a batch axis in front if there was one.
  """
  ids = inputs.get("ids") if isinstance(inputs, dict) else None
  inputs = (
    {k: v for k, v in inputs.items() if v is not None}
    if isinstance(inputs, dict)
    else inputs
  )
  if ids is None or ids.ndim == 1:
    return run(inputs, state)
  return jax.vmap(run)(inputs, state)


def first_state(state):
  """None in place of a model's `init_state()`, else the state itself.

  Zeros are zeros in every format, so the zeros that a model starts from start
  every transform; any other float state belongs to `reference` alone.
  """

  def zero(x) -> bool:
    # As NumPy's: under jit even the zeros of a constant would be traced.
    known = not isinstance(x, Fx | jax.core.Tracer)
    return known and not np.any(np.asarray(x))

  leaves = jax.tree.leaves(state, is_leaf=is_fx)
  return None if leaves and all(map(zero, leaves)) else state


def check_inputs(fn, inputs, state=None) -> None:
  """Lets the model refuse bad inputs while they are still concrete.

  Raises:
    UserError: whatever `fn.check_inputs` raises; a `TokenError` of language
      models.
  """
  check = getattr(fn, "check_inputs", None)
  if check is not None:
    check(inputs, state)


def _about(run, fn):
  """Lets callers of `run` see how long a sequence the model takes."""
  run.context = getattr(fn, "context", None)
  return run


def _finish(ops, out, taps: bool):
  return (*out, ops.tape.values) if taps else out


def reference(fn, taps: bool = False):
  """What does the model compute?  Float, differentiable.

  Args:
    fn: model function.
    taps: also return the value of every site.

  Returns:
    `run(params, inputs, state=None) -> (out, state)`, with taps
    `(out, state, {path: value})`; values are float[T, ..., n] of the dtype of
    the params, with the batch axis in front if ids are [B, T].  It raises
    `TokenError` for inputs that the model cannot read, `TransformError` for
    raw JAX transforms inside of the model.
  """

  def run(params, inputs, state=None):
    check_inputs(fn, inputs, state)

    def one(inputs, state):
      ops = Reference(taps)
      return _finish(ops, fn(ops, params, inputs, state), taps)

    return over_batch(one, inputs, state)

  return _about(run, fn)


def observe(fn, histograms: bool = False, channels: bool = False):
  """Float run that measures the range of every site.

  Args:
    fn: model function.
    histograms: also count the magnitudes of every site.
    channels: also measure every channel (last axis) of every site.

  Returns:
    `run(params, inputs) -> (ranges, notes, counts, most)`: path -> largest
    magnitude over all tokens and features, a float; the static facts of the
    trace; path -> int64[BINS] (`numerics.histogram`) and path -> float32[n],
    both empty where not asked for.  It raises as the one of `reference`, and
    `PlanError` for params used twice or not as they stand in the tree.
  """
  notes = Notes()

  @jax.jit
  def ranges(params, inputs):
    def one(inputs, state):
      ops = Observe(notes, histograms, channels)
      fn(ops, label_leaves(params), inputs, state)
      return ops.tape.values

    values = over_batch(one, inputs, None)
    return {path: _over_sequences(path, x) for path, x in values.items()}

  def run(params, inputs):
    check_inputs(fn, inputs)
    found: dict[str, dict] = {"": {}, HISTOGRAM: {}, CHANNELS: {}}
    for key, value in jax.device_get(ranges(params, inputs)).items():
      path, mark, kind = key.partition("#")
      found[mark + kind][path] = value
    largest = {k: float(v) for k, v in found[""].items()}
    counts = {k: v.astype(np.int64) for k, v in found[HISTOGRAM].items()}
    return largest, notes, counts, found[CHANNELS]

  return run


def _over_sequences(path: str, x):
  """One measurement of all sequences of a batch."""
  if path.endswith(HISTOGRAM):
    return jnp.sum(x, axis=0) if x.ndim > 1 else x
  if path.endswith(CHANNELS):
    return jnp.max(x, axis=0) if x.ndim > 1 else x
  return jnp.max(x)


def fake_quant(fn, plan, taps: bool = False):
  """What does this plan cost?  Floats that hold the plan's integers.

  In float64 every value equals the one of `fixed`; gradients pass straight
  through roundings.  A plan that is not integers everywhere (`Plan.integers`)
  is the float model with the plan's roundings (`ops.rounding`).

  Args:
    fn: model function.
    plan: number formats.
    taps: also return the value of every site.

  Returns:
    `run(params, inputs, state=None) -> (out, state)` on float params; outputs
    are `Fx` pytrees whose codes are floats (docs/numerics.md, 9), or plain
    floats where the plan is not integers everywhere.  It raises `TokenError` as
    `reference`, `PlanError` for params without floats or a plan of another
    model, `FormatError` where a format does not do.
  """

  def run(params, inputs, state=None):
    check_inputs(fn, inputs, state)
    dtype = _float_dtype(params)
    plan.check_params(params)
    state = first_state(state)
    if not plan.integers:
      params = in_storage(params, plan.dtype)

    def one(inputs, state):
      ops = simulated(plan, dtype, taps)
      return _finish(ops, fn(ops, params, inputs, state), taps)

    return over_batch(one, inputs, state)

  return _about(run, fn)


def simulated(plan, dtype, taps: bool = False) -> Quantized | Rounding:
  """The interpreter of `fake_quant`: of the plan's integers, or roundings."""
  if plan.integers:
    return Quantized(plan, FloatAlu(dtype), FloatStore(dtype), taps)
  return Rounding(plan, taps)


def on_grids(fn, plan, watch=()):
  """What would other formats cost?  One program for all plans of these sites.

  The float model with the plan's roundings, as `fake_quant` has it for a plan
  that is not integers everywhere, but the formats are data: to try others
  compiles nothing.  Shifts and products are exact here, so it is not the
  integers of `fixed` to the last bit.

  Args:
    fn: model function.
    plan: its sites that have a `Format` take a grid; the rest is as it says.
    watch: sites whose values that are not zero are counted.

  Returns:
    `run(params, grids, inputs, state=None) -> (out, state, counts)`; grids is
    a `Grid` of float[n], of the sites `on_grids(...).sites` in order; counts is
    {site: int32[T] or [B, T]}.  It raises as `fake_quant`.
  """
  sites = tuple(k for k, f in plan.formats.items() if isinstance(f, Format))
  unknown = [path for path in watch if path not in sites]
  if unknown:
    raise PlanError(
      f"site {unknown[0]}: plan {plan.name!r} gives it no bits, so there is"
      " nothing to watch; name one that has some"
    )

  def run(params, grids, inputs, state=None):
    check_inputs(fn, inputs, state)
    plan.check_params(params)
    each = (jax.tree.map(lambda x, k=k: x[k], grids) for k in range(len(sites)))
    tried = plan.replace(
      formats={**plan.formats, **dict(zip(sites, each, strict=True))}
    )
    params = in_storage(params, plan.dtype)

    def one(inputs, state):
      ops = Rounding(tried, taps=bool(watch))
      out, state = fn(ops, params, inputs, state)
      values = ops.tape.values if watch else {}
      counts = {p: jnp.sum(values[p] != 0, -1, jnp.int32) for p in watch}
      return out, state, counts

    return over_batch(one, inputs, first_state(state))

  run.sites = sites  # type: ignore[attr-defined]
  return _about(run, fn)


def _float_dtype(params):
  """The widest float type among the parameters."""
  kinds = [x.dtype for x in jax.tree.leaves(params)]
  floats = [d for d in kinds if jnp.issubdtype(d, jnp.floating)]
  if not floats:
    raise PlanError("fake_quant takes float params, found none")
  return jnp.result_type(*floats)


def fixed(fn, plan, taps: bool = False, saturation: bool = False):
  """Which integers does the chip compute?

  Args:
    fn: model function.
    plan: number formats.
    taps: also return the value of every site.
    saturation: also return, per site, how many values were clipped.

  Returns:
    `run(qparams, inputs, state=None) -> (out, state)`; logits and state are
    `Fx` pytrees of int32 (docs/numerics.md).  With taps or saturation
    `(out, state, {path: value})`.  It raises `TokenError` as `reference`,
    `PlanError` for float params or another plan or model, and `FormatError`
    where a value could leave 32 bits.
  """

  def run(qparams, inputs, state=None):
    check_inputs(fn, inputs, state)
    plan.need_integers("fixed")
    state = first_state(state)
    tree = checked_tree(qparams, plan)

    def one(inputs, state):
      ops = Quantized(plan, IntAlu(), IntStore(), taps, saturation)
      return _finish(ops, fn(ops, tree, inputs, state), taps or saturation)

    return over_batch(one, inputs, state)

  return _about(run, fn)


def checked_tree(qparams, plan):
  """The parameter tree of qparams that belong to this plan, as JAX arrays.

  Raises:
    PlanError: float params, or qparams of another plan.
  """
  check_qparams(qparams, plan)
  return jax.tree.map(
    lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, qparams.tree
  )
