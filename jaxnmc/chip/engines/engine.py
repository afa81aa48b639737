"""What both engines of `loihi` share: what they run, and what they refuse."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.counting.folding import Segment
from jaxnmc.chip.counting.histograms import Histogram
from jaxnmc.chip.routing import traffic
from jaxnmc.errors import PlanError, TransformError
from jaxnmc.ops.stores import check_qparams
from jaxnmc.ops.transform import check_inputs, first_state


class Engine:
  """A placed model.

  Args:
    fn: model function.
    plan: number formats.
    placement: where the recorded network lies.
    mode: "pipelined" (a token every step) or "fall-through" (the next token
      when the last one has left): the default injection steps.

  Attributes:
    watch: called with every segment of a run, which has the counts token by
      token, before they are folded; None (the default): nobody looks.
  """

  def __init__(self, fn, plan, placement, mode: str) -> None:
    self.fn, self.plan, self.placement, self.mode = fn, plan, placement, mode
    self.network = placement.network
    self.graph = placement.network.graph
    self.routes = traffic.routes(placement)
    self.watch: Callable[[Segment], None] | None = None

  def fold(
    self,
    segments: Sequence[Segment],
    saturations: Mapping[str, int] | None = None,
    histograms: Mapping[str, Histogram] | None = None,
  ) -> Counters:
    """Counters of a call, once `watch` has seen its segments."""
    if self.watch is not None:
      for segment in segments:
        self.watch(segment)
    return Counters.of(segments, self.placement, saturations, histograms)

  def check(self, qparams, inputs, state=None) -> None:
    """Refuses what does not belong to this placement.

    Raises:
      TokenError: inputs that the model cannot read, after this state.
      PlanError: parameters of another plan, or other weights.
    """
    check_inputs(self.fn, inputs, state)
    self.check_params(qparams)

  def check_params(self, qparams) -> None:
    """Refuses parameters of another plan, or other weights.

    Raises:
      PlanError: see there.
    """
    check_qparams(qparams, self.plan)
    if qparams.weights != self.graph.weights:
      raise PlanError(
        "the placement was made from other weights than these qparams; record"
        " and place them again"
      )

  def begin(self, qparams, inputs, state):
    """The state to start from, after every check.

    Raises:
      TokenError: inputs that the model cannot read.
      PlanError: parameters of another plan, or other weights.
      TransformError: called inside a JAX transform.
    """
    self.check(qparams, inputs, state)
    leaves = jax.tree.leaves((inputs, state))
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
      raise TransformError(
        "loihi counts on the host and cannot be traced (jit, vmap, grad); call"
        " it outside of them, it compiles itself; fixed has the same integers"
        " and can be traced"
      )
    return first_state(state)

  def default_inject(self, tokens: int) -> np.ndarray:
    """Injection steps of the mode, int64[tokens]."""
    pipelined = self.mode == "pipelined"
    stride = 1 if pipelined else self.network.steps_per_token
    return np.arange(tokens, dtype=np.int64) * stride
