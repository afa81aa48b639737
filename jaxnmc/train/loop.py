"""The training loop: resumes, trains, evaluates, keeps the best, exports."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jaxnmc.compress import masks
from jaxnmc.errors import ConfigError
from jaxnmc.io.tokenizer import Tokenizer
from jaxnmc.quantize.plan import Plan
from jaxnmc.train import (
  checkpoints,
  data,
  evalrange,
  export,
  logs,
  mixed,
  schedules,
  speed,
)
from jaxnmc.train import step as step_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What determines the result of a run, beside model and text.

  Attributes:
    steps: optimiser steps in all.
    batch: windows per step.
    seq: ids per window.
    lr: peak learning rate.
    schedule: one of `schedules.SCHEDULES`.
    warmup: steps of linear warm-up.
    weight_decay: on matrices only.
    clip: largest gradient norm.
    seed: of the initial weights and of the order of windows.
    alpha: weight of the teacher's soft targets, 0 ... 1.
    cosine: weight of 1 - cos of the last hidden states, the teacher's and ours.
    only: train parameters whose path has a match of this regular expression
      and leave the others as they are; None: all.
    dtype: of the operands of ternary products, `float32` or `bfloat16`; what
      is kept in float32 then, `train.mixed` says.
  """

  steps: int = 1000
  batch: int = 8
  seq: int = 256
  lr: float = 4e-3
  schedule: str = "wsd"
  warmup: int = 50
  weight_decay: float = 0.01
  clip: float = 1.0
  seed: int = 0
  alpha: float = 0.0
  cosine: float = 0.0
  only: str | None = None
  dtype: str = "float32"

  def __post_init__(self) -> None:
    """Refuses values that make no run."""
    mixed.interpreter(self.dtype)
    for name in ("steps", "batch", "seq"):
      if getattr(self, name) < 1:
        raise ConfigError(
          f"{name}: found {getattr(self, name)}, allowed is 1 or more"
        )
    for name in ("lr", "clip"):
      if not 0 < getattr(self, name) < math.inf:
        raise ConfigError(
          f"{name}: found {getattr(self, name)}, allowed is more than 0"
        )
    for name in ("warmup", "weight_decay", "cosine"):
      if not 0 <= getattr(self, name) < math.inf:
        raise ConfigError(
          f"{name}: found {getattr(self, name)}, allowed is 0 or more"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rhythm:
  """How often what happens; it does not change the result.

  Attributes:
    checkpoint_every: steps between checkpoints.
    log_every: steps between log records.
    eval_every: steps between evaluations of the held-out text.
    tensorboard: also write TensorBoard files.
    progress: draw a bar.
    devices: devices to use; None: all.
  """

  checkpoint_every: int = 500
  log_every: int = 10
  eval_every: int = 500
  tensorboard: bool = False
  progress: bool = True
  devices: int | None = None

  def __post_init__(self) -> None:
    """Refuses a rhythm that never comes round."""
    for name in ("checkpoint_every", "log_every", "eval_every"):
      if getattr(self, name) < 1:
        raise ConfigError(
          f"{name}: found {getattr(self, name)}, allowed is 1 or more steps"
        )


def train(
  *,
  fn: Callable,
  init_params: Callable[[], Any],
  model_config: dict[str, Any],
  tokenizer: Tokenizer,
  documents: Sequence[str],
  held: Sequence[str],
  recipe: Recipe,
  rhythm: Rhythm,
  workdir: str,
  teacher: tuple[Callable, Any] | None = None,
  plan: Plan | None = None,
  mask: masks.Gradual | masks.Hold | None = None,
) -> dict[str, Any]:
  """Trains a language model, or continues a run that was stopped.

  In `workdir`: `checkpoints/`, `log.jsonl`, `best.npz` (the parameters with
  the lowest bits per byte on `held`) and, at the end, `final.npz`.

  Args:
    fn: model function (ops, params, inputs, state) -> (out, state).
    init_params: called for a new run only.
    model_config: JSON description of the model, stored with the parameters.
    tokenizer: encodes the documents.
    documents: training text.
    held: text for model selection; may be empty.
    recipe: what determines the result.
    rhythm: how often what happens.
    workdir: an existing folder.
    teacher: (fn, params) with the same vocabulary, for recipe.alpha or
      recipe.cosine > 0.
    plan: number formats that the model is trained and scored under.
    mask: which weights are zero after every step; the best parameters are
      those of steps behind the last change of the mask.

  Returns:
    A summary: steps, best held bits per byte and its step, seconds, tokens/s
    of the whole run, and what `speed.Meter.summary` says of the steps alone.

  Raises:
    UserError: the text, the recipe or the folder cannot be used.
  """
  work = pathlib.Path(workdir)
  stream = data.pack(documents, tokenizer)
  windows = data.Windows(stream, recipe.seq, recipe.batch, recipe.seed)
  schedule = schedules.make(
    recipe.schedule, recipe.lr, recipe.steps, recipe.warmup
  )
  optimizer = step_lib.adamw(
    schedule, recipe.weight_decay, recipe.clip, recipe.only
  )
  if mask is not None:
    _check_mask(mask, recipe)
    optimizer = optax.chain(optimizer, mask.transform())
  mesh = step_lib.make_mesh(rhythm.devices)
  whole, split = step_lib.shardings(mesh)
  step_fn = step_lib.make_step(
    fn,
    optimizer,
    schedule,
    mesh,
    batch=recipe.batch,
    teacher=teacher,
    alpha=recipe.alpha,
    cosine=recipe.cosine,
    dtype=recipe.dtype,
    plan=plan,
  )
  score_fn = evalrange.score(fn, plan)
  held_bytes = evalrange.cut(held, None)

  fingerprint = {
    "model": model_config,
    "recipe": dataclasses.asdict(recipe),
    "stream": stream.fingerprint(),
  }
  if teacher is not None:
    fingerprint["teacher"] = checkpoints.digest(teacher[1])
  if plan is not None:
    fingerprint["plan"] = plan.fingerprint
  if mask is not None:
    kind = type(mask).__name__
    fingerprint["mask"] = {"kind": kind, **dataclasses.asdict(mask)}
  store = checkpoints.Checkpoints(work, fingerprint)
  export.remove_unfinished(work)
  # Placed once: a state placed otherwise would compile the step again.
  # Copied: a step gives its arrays away, and the caller may need its own.
  state = jax.device_put(
    step_lib.init(init_params(), optimizer), whole, may_alias=False
  )
  best: dict[str, Any] = {"bpb": None, "step": None}
  restored = store.restore(state)
  if restored is not None:
    state, best = restored[0], restored[1]["best"]
  first = int(state.step)
  log = logs.JsonLines(work / "log.jsonl", first)
  board = (
    logs.TensorBoard(work / "tensorboard", first)
    if rhythm.tensorboard
    else None
  )

  def record(step: int, **values: Any) -> None:
    log.write(step=step, **values)
    if board is not None:
      board.write(step, **values)

  def evaluate(step: int, params: Any) -> None:
    nonlocal best
    if not held_bytes:
      return
    result = evalrange.bits_per_byte(score_fn, params, tokenizer, held_bytes)
    record(step, held_bpb=result["bpb"], held_perplexity=result["perplexity"])
    if mask is not None and step < mask.reached:
      return
    if best["bpb"] is None or result["bpb"] < best["bpb"]:
      best = {"bpb": result["bpb"], "step": step}
      # Before the checkpoint: a run killed between the two comes here again
      # and writes the same file.
      export.save(work / "best.npz", params, _meta(model_config, recipe, best))

  started, tokens = time.monotonic(), recipe.batch * recipe.seq
  meter = speed.Meter(step_fn, mesh, recipe.dtype, tokens)
  to_bits = 1.0 / math.log(2) / stream.bytes_per_id
  place = lambda step: jax.device_put(windows.batch(step - 1), split)
  if first < recipe.steps:
    record(first, **meter.start(state, place(first + 1)))
  with logs.progress(recipe.steps, first, rhythm.progress) as advance:
    for step in range(first + 1, recipe.steps + 1):
      state, metrics = step_fn(state, place(step))
      last = step == recipe.steps
      meter.stepped()
      if last or step % rhythm.log_every == 0:
        values = {k: float(v) for k, v in vars(metrics).items()}
        if not math.isfinite(values["loss"]):
          raise ConfigError(
            f"step {step}: the loss is {values['loss']}; training diverged: "
            "lower --lr or raise --warmup"
          )
        now = meter.read()
        bpb = values["nats"] * to_bits
        epoch = step * recipe.batch / windows.per_epoch
        record(step, **values, bpb=bpb, epoch=epoch, **now)
        advance(step, **now, loss=values["loss"], bpb=bpb)
      if last or step % rhythm.eval_every == 0:
        with meter.paused(state):
          evaluate(step, state.params)
      if last or step % rhythm.checkpoint_every == 0:
        with meter.paused(state):
          store.save(step, state, {"best": best})
  params = jax.tree.map(np.asarray, state.params)
  if not (work / "best.npz").exists():
    export.save(work / "best.npz", params, _meta(model_config, recipe, best))
  export.save(work / "final.npz", params, _meta(model_config, recipe, best))
  store.close()
  log.close()
  if board is not None:
    board.close()
  seconds = time.monotonic() - started
  done = recipe.steps - first
  return {
    "steps": recipe.steps,
    "best_step": best["step"],
    "held_bpb": best["bpb"],
    "epochs": recipe.steps * recipe.batch / windows.per_epoch,
    "train_ids": len(stream.ids),
    "train_bytes": stream.text_bytes,
    "seconds": round(seconds, 1),
    "tokens_per_s": round(done * tokens / max(seconds, 1e-9), 1),
    **meter.summary(),
    "params_digest": checkpoints.digest(params),
  }


def _check_mask(mask: masks.Gradual | masks.Hold, recipe: Recipe) -> None:
  """Refuses a schedule that the run would not reach.

  Raises:
    ConfigError: it ends later.
  """
  if mask.reached > recipe.steps:
    raise ConfigError(
      f"mask: its last change is in step {mask.reached - 1}, counted from 0,"
      f" but there are {recipe.steps} steps; give an earlier end, or more steps"
    )


def _meta(
  model_config: dict[str, Any], recipe: Recipe, best: dict[str, Any]
) -> dict[str, Any]:
  return {
    "config": model_config,
    "recipe": dataclasses.asdict(recipe),
    "best": best,
  }
