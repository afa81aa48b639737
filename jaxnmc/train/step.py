"""One training step: loss, gradient, AdamW; jitted over a device mesh."""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import optax
from jax import numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnmc.errors import ConfigError
from jaxnmc.numerics.fx import real
from jaxnmc.ops.observe import path_name
from jaxnmc.ops.transform import simulated
from jaxnmc.quantize.plan import Plan
from jaxnmc.train import mixed
from jaxnmc.train.compiled import Compiled
from jaxnmc.train.schedules import Schedule

Params = Any
HIDDEN = "norm"  # the site of the last hidden states


@flax.struct.dataclass
class TrainState:
  """All that changes while training.

  Attributes:
    step: int32[], steps done.
    params: float parameters (the latents of the ternary matrices).
    opt: the optimiser's state.
  """

  step: jax.Array
  params: Params
  opt: optax.OptState


@flax.struct.dataclass
class Metrics:
  """Of one step; all f32[].

  Attributes:
    loss: what was minimised, nats per id.
    nats: cross-entropy with the text itself, nats per id.
    grad_norm: before clipping.
    rate: learning rate.
  """

  loss: jax.Array
  nats: jax.Array
  grad_norm: jax.Array
  rate: jax.Array


def cross_entropy(
  logits: jax.Array, targets: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """Mean over unmasked positions, nats, in float32.

  Args:
    logits: [..., V].
    targets: int32[...].
    mask: [...] of 0/1, 0 leaves the position out; None takes all.

  Returns:
    float32[]; 0 if everything is masked.
  """
  nats = optax.softmax_cross_entropy_with_integer_labels(
    logits.astype(jnp.float32), targets
  )
  return _mean(nats, mask)


def distillation(
  logits: jax.Array, teacher: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """Mean KL(teacher || student), nats, in float32; no gradient to teacher.

  Args:
    logits: of the student, [..., V].
    teacher: its logits, [..., V].
    mask: as for `cross_entropy`.

  Returns:
    float32[].
  """
  student = jax.nn.log_softmax(logits.astype(jnp.float32))
  target = jax.nn.log_softmax(
    jax.lax.stop_gradient(teacher).astype(jnp.float32)
  )
  return _mean((jnp.exp(target) * (target - student)).sum(-1), mask)


def similarity(
  hidden: jax.Array, teacher: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """Mean cosine of the angles between two hidden states, in float32.

  Args:
    hidden: of the student, [..., D].
    teacher: its hidden states, [..., D]; no gradient goes there.
    mask: as for `cross_entropy`.

  Returns:
    float32[], -1 to 1.
  """
  teacher = jax.lax.stop_gradient(teacher).astype(jnp.float32)
  cosines = optax.cosine_similarity(
    hidden.astype(jnp.float32), teacher, epsilon=1e-12
  )
  return _mean(cosines, mask)


def _mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
  if mask is None:
    return values.mean()
  mask = mask.astype(jnp.float32)
  # An all-masked batch is worth 0, not NaN.
  return (values * mask).sum() / jnp.maximum(mask.sum(), 1.0)


def adamw(
  schedule: Schedule,
  weight_decay: float = 0.01,
  clip: float = 1.0,
  only: str | None = None,
) -> optax.GradientTransformation:
  """AdamW, b1 0.9, b2 0.95, clipped; decay on matrices only.

  Gains and lower bounds are no matrices: pulling them to zero would change
  what the layer means, not how large its weights are.

  Args:
    schedule: learning rate by step.
    weight_decay: of matrices.
    clip: largest gradient norm, that of the trained parameters.
    only: regular expression; parameters whose path has no match stay as they
      are.  None: all are trained.

  Raises (`init` of the result):
    ConfigError: `only` is no regular expression, or matches no parameter.
  """

  def matrices(params: Params) -> Params:
    return jax.tree_util.tree_map_with_path(
      lambda path, _: getattr(path[-1], "key", None) == "weight", params
    )

  trained = optax.chain(
    optax.clip_by_global_norm(clip),
    optax.adamw(
      schedule, b1=0.9, b2=0.95, weight_decay=weight_decay, mask=matrices
    ),
  )
  if only is None:
    return trained
  return optax.partition(
    {"trained": trained, "frozen": optax.set_to_zero()},
    lambda params: _labels(params, only),
  )


def _labels(params: Params, only: str) -> Params:
  """For every parameter, whether it is "trained" or "frozen"."""
  try:
    pattern = re.compile(only)
  except re.error as error:
    raise ConfigError(
      f"only: {only!r} is no regular expression ({error})"
    ) from error

  def label(path, _):
    return "trained" if pattern.search(path_name(path)) else "frozen"

  labels = jax.tree_util.tree_map_with_path(label, params)
  if "trained" not in jax.tree.leaves(labels):
    some = [
      path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    raise ConfigError(
      f"only: {only!r} matches no parameter, so nothing would be trained; there"
      f" are {', '.join(some[:3])}, ..."
    )
  return labels


def init(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
  """Returns the state before the first step."""
  return TrainState(
    step=jnp.zeros((), jnp.int32), params=params, opt=optimizer.init(params)
  )


def make_mesh(devices: int | None = None) -> Mesh:
  """Returns a mesh with the one axis `data` over the first devices.

  Raises:
    ConfigError: there are fewer devices.
  """
  count = devices or jax.device_count()
  if count > jax.device_count():
    raise ConfigError(
      f"devices: found {count}, allowed is up to {jax.device_count()} here"
    )
  # Auto: the compiler places the intermediate values, models say nothing.
  return jax.make_mesh(
    (count,),
    ("data",),
    axis_types=(AxisType.Auto,),
    devices=jax.devices()[:count],
  )


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
  """Returns (replicated, batch): batch splits axis 1 of [T + 1, B]."""
  return (
    NamedSharding(mesh, PartitionSpec()),
    NamedSharding(mesh, PartitionSpec(None, "data")),
  )


def _run(fn: Callable, ops, params: Params, inputs: dict, taps: bool):
  """(logits, hidden states in front of the head or None) of a model."""
  ops.taps = taps
  logits = fn(ops, params, inputs, None)[0].logits
  return logits, ops.tape.values.get(HIDDEN)


def _need_hidden(name: str, hidden: jax.Array | None) -> jax.Array:
  if hidden is None:
    raise ConfigError(
      f"cosine: {name} has no site {HIDDEN!r}, whose values would be"
      " compared; leave --cosine out"
    )
  return hidden


def make_step(
  fn: Callable,
  optimizer: optax.GradientTransformation,
  schedule: Schedule,
  mesh: Mesh,
  *,
  batch: int,
  pad_id: int | None = None,
  teacher: tuple[Callable, Params] | None = None,
  alpha: float = 0.0,
  cosine: float = 0.0,
  dtype: str = "float32",
  plan: Plan | None = None,
) -> Compiled:
  """Returns `step(state, ids int32[T + 1, B]) -> (state, metrics)`.

  The loss is (1 - alpha) * cross-entropy + alpha * KL(teacher || student) +
  cosine * (1 - cos(hidden states)).
  The batch is split over the mesh; gradients are summed by the compiler. The
  old state is donated. It compiles once; what it compiles after that it says
  in the log (`Compiled`).

  Args:
    fn: model function (ops, params, inputs, state) -> (out, state).
    optimizer: from `adamw`.
    schedule: reported in the metrics only.
    mesh: from `make_mesh`.
    batch: B.
    pad_id: targets with this id do not count; None: all count.
    teacher: (fn, params) with the same vocabulary, or None.
    alpha: weight of the teacher's logits, 0 ... 1.
    cosine: weight of the angle to the teacher's last hidden states, those of
      the site "norm" of both.
    dtype: of the operands of ternary products (`mixed` says what that means).
    plan: number formats that the model is trained under (`fake_quant`, whose
      gradients go straight through roundings); the teacher stays float.

  Raises:
    ConfigError: batch is no multiple of the mesh, alpha or cosine do not go
      with the teacher, there is no such dtype, or it is not float32 under a
      plan; of the step: a model has no site "norm".
  """
  if batch % mesh.size:
    raise ConfigError(
      f"batch: found {batch} on {mesh.size} devices, allowed is a multiple "
      "of the device count; change --batch or --devices"
    )
  if not 0.0 <= alpha <= 1.0 or (alpha and teacher is None):
    raise ConfigError(
      f"alpha: found {alpha}, allowed is 0 ... 1, and 0 without a teacher"
    )
  if cosine < 0 or (cosine and (teacher is None or plan is not None)):
    raise ConfigError(
      f"cosine: found {cosine}, allowed is 0 or more, and 0 without a teacher"
      " or under a plan"
    )

  mixed.interpreter(dtype)  # refuses a wrong one before anything is traced
  if plan is not None and dtype != "float32":
    raise ConfigError(
      f"dtype: found {dtype!r} with a plan, whose roundings need float32;"
      " leave --dtype or --qat out"
    )

  floats = functools.partial(mixed.interpreter, dtype)

  def loss_fn(params: Params, ids: jax.Array):
    inputs, targets = {"ids": ids[:-1]}, ids[1:]
    hidden = None
    if plan is None:
      logits, hidden = _run(fn, floats(), params, inputs, cosine > 0)
    else:
      ops = simulated(plan, jnp.float32)
      logits = real(fn(ops, params, inputs, None)[0].logits)
    mask = None if pad_id is None else targets != pad_id
    nats = cross_entropy(logits, targets, mask)
    if teacher is None or alpha == cosine == 0.0:
      return nats, nats
    teach, frozen = teacher
    wanted, aim = _run(teach, floats(), frozen, inputs, cosine > 0)
    loss = (1.0 - alpha) * nats
    if alpha:
      loss = loss + alpha * distillation(logits, wanted, mask)
    if cosine:
      hidden = _need_hidden("the model", hidden)
      aim = _need_hidden("the teacher", aim)
      loss = loss + cosine * (1.0 - similarity(hidden, aim, mask))
    return loss, nats

  def step(state: TrainState, ids: jax.Array):
    grad = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, nats), grads = grad(state.params, ids)
    updates, opt = optimizer.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = Metrics(
      loss=loss,
      nats=nats,
      grad_norm=optax.tree.norm(grads),
      rate=schedule(state.step),
    )
    return TrainState(state.step + 1, params, opt), metrics

  whole, split = shardings(mesh)
  return Compiled(
    jax.jit(
      step,
      in_shardings=(whole, split),
      out_shardings=whole,
      donate_argnums=0,
    )
  )
