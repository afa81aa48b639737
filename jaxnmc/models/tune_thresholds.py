"""Thresholds of a spiking transformer under a budget of spikes per inference.

An inference is one text of the calibration set, all its tokens once.  How far
the model is from another is KL(other || model) of the next token, in nats,
mean over all tokens; the other is usually the one it was converted from.

    judge = Judge(dense, spiking, ids)
    found = tune(judge, budget=2e6)        jaxnmc.spike.budget says how
    params = judge.params(found.best)

`grid` measures multipliers and ticks instead of searching among them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.models import gpt
from jaxnmc.models.gpt_config import Config
from jaxnmc.models.spike_counts import run_with, sites, tally, texts
from jaxnmc.models.threshold_scale import scaled
from jaxnmc.ops.transform import reference
from jaxnmc.spike import budget as budgets
from jaxnmc.spike.budget import Found, Point

__all__ = ["Judge", "grid", "tune"]

# What a budget bounds: all inferences, or their mean.
OVER = ("worst", "mean")
_BATCH = 16


@functools.cache
def _measure(config: Config):
  """A compiled run of one batch: (KL, spikes by site) of each text."""

  @jax.jit
  def measured(params, multipliers, p, ids, mask):
    params = scaled(config, params, multipliers)
    logits, values = run_with(config)(params, ids, mask)
    q = jax.nn.log_softmax(logits)
    real = jnp.ones(ids.shape) if mask is None else mask != 0
    kl = jnp.sum(jnp.exp(p) * (p - q), -1) * real
    sent = tally(config, params, values, mask)
    return jnp.sum(kl, 1), {key: x["rows"] for key, x in sent.items()}

  return measured


class Judge:
  """Spikes and divergence of a model with other thresholds; compiled once.

  Args:
    other: (config, params) of the model to be like.
    model: (config, params) of the spiking one.
    ids: int[B, T], texts.
    mask: int[B, T], 0 for padding; None for none.
    over: "worst" (spikes of the text with the most) or "mean".
    batch: texts of a call.  The logits of the other model are kept, float32
      [B, T, V].

  Raises:
    ConfigError: nothing in the model spikes, models of different vocabularies,
      or there is no such `over`.
    TokenError: no texts.
  """

  def __init__(
    self,
    other: tuple[Config, Any],
    model: tuple[Config, Any],
    ids,
    mask=None,
    *,
    over: str = "worst",
    batch: int = _BATCH,
  ):
    if over not in OVER:
      raise ConfigError(
        f"spike budget: over is {over!r}; allowed are {', '.join(OVER)}"
      )
    if other[0].vocab_size != model[0].vocab_size:
      raise ConfigError(
        f"spike budget: the model to be like has {other[0].vocab_size} tokens,"
        f" this one {model[0].vocab_size}; give the model it was converted from"
      )
    self.config, self.start = model
    self.sites = sites(*model)
    self.over = over
    ids, mask = texts(ids, mask)
    given = jax.jit(reference(gpt.make(other[0])))
    self._parts = []
    for first in range(0, len(ids), batch):
      part = ids[first : first + batch]
      masked = None if mask is None else mask[first : first + batch]
      out, _ = given(other[1], {"ids": part, "mask": masked})
      self._parts.append((jax.nn.log_softmax(out.logits), part, masked))
    self.tokens = int(ids.size if mask is None else (mask != 0).sum())

  def __call__(self, multipliers: Mapping[str, float]) -> Point:
    """What these multipliers come to, measured."""
    given = {k: jnp.float32(m) for k, m in multipliers.items()}
    measure = _measure(self.config)
    spikes, divergence = [], 0.0
    for part in self._parts:
      kl, rows = jax.device_get(measure(self.start, given, *part))
      divergence += float(np.float64(kl).sum())
      spikes.append(sum(np.int64(x) for x in rows.values()))
    each = np.concatenate(spikes)
    found = each.max() if self.over == "worst" else each.mean()
    return Point(dict(multipliers), float(found), divergence / self.tokens)

  def params(self, point: Point):
    """Parameters of the model with these multipliers."""
    return jax.jit(scaled, static_argnums=0)(
      *(self.config, self.start),
      {k: jnp.float32(m) for k, m in point.multipliers.items()},
    )


def tune(
  judge: Judge,
  budget: float,
  *,
  span: float = budgets.SPAN,
  passes: int = 3,
  progress: Callable[[Point], None] = lambda point: None,
) -> Found:
  """The thresholds nearest to the other model within a budget.

  Args:
    judge: of the model.
    budget: most spikes per inference.
    span: multipliers lie between 1 / span and span.
    passes: over all sites, one by one; 0: one multiplier for all.
    progress: is told each measured point.

  Returns:
    What `spike.budget.tune` found; `judge.params(found.best)` has it.

  Raises:
    BudgetError: no thresholds meet the budget.
  """
  names = [site.key for site in judge.sites]
  return budgets.tune(
    judge, names, budget, span=span, passes=passes, progress=progress
  )


def grid(
  judges: Mapping[int, Judge],
  multipliers: Sequence[float],
  budget: float | None = None,
  progress: Callable[[Point], None] = lambda point: None,
) -> list[dict[str, Any]]:
  """Every multiplier, for all sites at once, with every number of ticks.

  Args:
    judges: ticks -> the model converted with so many.
    multipliers: of all thresholds.
    budget: most spikes per inference; None for none.
    progress: is told each measured point.

  Returns:
    Rows {"ticks", "multiplier", "spikes", "divergence", "fits", "best",
    "label"}; fits is None without a budget, best the one of least divergence
    among those that fit.

  Raises:
    ConfigError: no ticks, or no multiplier above 0.
  """
  if not judges or not multipliers or min(multipliers) <= 0:
    raise ConfigError(
      f"threshold grid: found ticks {list(judges)} and multipliers"
      f" {list(multipliers)}; allowed are one or more of each, multipliers"
      " above 0"
    )
  rows: list[dict[str, Any]] = []
  for ticks, judge in judges.items():
    for m in multipliers:
      point = judge({site.key: float(m) for site in judge.sites})
      progress(point)
      rows.append(
        {
          "ticks": ticks,
          "multiplier": float(m),
          "spikes": point.spikes,
          "divergence": point.divergence,
          "fits": None if budget is None else point.spikes <= budget,
          "best": False,
          "label": "measured",
        }
      )
  able = [row for row in rows if row["fits"] is not False]
  if able:
    min(able, key=lambda row: row["divergence"])["best"] = True
  return rows
