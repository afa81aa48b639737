"""What number formats cost: a model under plans, beside itself in float.

Every plan is run by `fake_quant`, in float32; one that is integers everywhere
by `fixed`, too, which refuses the others by name.  All of them predict the same
ids as the float model (`closeness`), which runs once.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxnmc.errors import UserError
from jaxnmc.evaluate.closeness import Closeness, Comparison
from jaxnmc.ops import transform
from jaxnmc.quantize.params import quantize_params
from jaxnmc.quantize.plan import Plan

__all__ = ["BACKENDS", "Cost", "Costs"]

BACKENDS = ("fake_quant", "fixed")
# The float model's logits are held up to here, else computed for every plan.
_MOST_KEPT = 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
  """What a plan does to a model in one interpreter.

  Attributes:
    backend: "fake_quant" or "fixed".
    close: how close to the float model; None where the interpreter refuses.
    refused: why it does, one sentence; None where it does not.
  """

  backend: str
  close: Closeness | None
  refused: str | None = None


class Costs:
  """Measures plans of one model on one text.

  Args:
    fn: model function.
    params: float parameters.
    documents: ids of each text, int32[n].
    vocab_size: tokens of the model.
    bos: token in front of every text.
    batch: texts side by side.
    chunk: positions of a call.

  Raises:
    DataError: there is nothing to predict.
  """

  def __init__(
    self,
    fn: Callable,
    params: Any,
    documents: Sequence[np.ndarray],
    *,
    vocab_size: int,
    bos: int,
    batch: int = 16,
    chunk: int = 128,
  ):
    self._fn, self._params = fn, params
    base = transform.reference(fn)
    logits = 4 * vocab_size * sum(map(len, documents))
    self._compare = Comparison(
      *((base, params), base, documents),
      bos=bos,
      batch=batch,
      chunk=chunk,
      keep=logits <= _MOST_KEPT,
    )

  @property
  def ids(self) -> int:
    """Ids that are predicted under every plan."""
    return self._compare.ids

  def _ready(self, plan: Plan, backend: str) -> tuple[Callable, Any]:
    """(run, parameters); raises a `UserError` where the plan has no such."""
    if backend == "fake_quant":
      run, params = transform.fake_quant(self._fn, plan), self._params
    else:
      params = quantize_params(self._params, plan)
      run = transform.fixed(self._fn, plan)
    one = {"ids": jax.ShapeDtypeStruct((1,), np.int32)}
    jax.eval_shape(run, params, one)
    return run, params

  def refused(self, plan: Plan, backend: str) -> str | None:
    """Why an interpreter cannot run a plan, None where it can; runs nothing."""
    try:
      self._ready(plan, backend)
    except UserError as error:
      return str(error)
    return None

  def __call__(
    self,
    plan: Plan,
    backend: str,
    progress: Callable[[int], None] | None = None,
  ) -> Cost:
    """Runs a plan in one interpreter.

    Args:
      plan: of this model.
      backend: one of `BACKENDS`.
      progress: called with the number of ids done since the last call.

    Returns:
      What it costs, or why it is refused.
    """
    try:
      run, params = self._ready(plan, backend)
    except UserError as error:
      return Cost(backend, None, str(error))
    compare = self._compare.beside(run)
    return Cost(backend, compare(params, progress)[0])
