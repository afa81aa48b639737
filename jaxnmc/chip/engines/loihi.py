"""The `loihi` interpreter: integers of `fixed` on placed cores, counted."""

from jaxnmc.chip.engines.functional import Functional
from jaxnmc.chip.engines.stepped import Stepped
from jaxnmc.errors import PlacementError, PlanError

ENGINES = ("functional", "stepped")
MODES = ("pipelined", "fall-through")


def loihi(
  fn,
  plan,
  placement,
  *,
  engine: str = "functional",
  mode: str = "pipelined",
  saturation: bool = False,
  histograms: bool = False,
  checked: bool = False,
  donate: bool = False,
  mesh=None,
):
  """Runs a model on the cores of a placement.

  Args:
    fn: model function.
    plan: number formats.
    placement: result of `place`.
    engine: "functional" (whole prompts at a time, the default) or "stepped"
      (the placed network itself, one time step after the other).
    mode: "pipelined" (a new token every step) or "fall-through" (the next
      token when the last one has left); it changes no integer, only when
      things happen.
    saturation: also count the values that each site clipped (functional
      engine only; it then runs the interpreter of `fixed` instead of the
      graph, which takes longer to compile).
    histograms: also count, for every value that is sent, how large its messages
      are and how often each neuron sends (functional engine only).
    checked: refuse at run time what the hardware of the placement cannot hold:
      an accumulator or a message out of its bits, more messages in a step
      than an inbox takes, a state out of its formats.  Takes longer; results
      are the same.
    donate: the memory of a state that is handed in may be overwritten, so it
      must not be used again (functional engine only; the stepped one does
      not take it as it is).
    mesh: `jax.sharding.Mesh` with one axis, over whose devices the machine is
      split (stepped engine only).

  Returns:
    `run(qparams, inputs, state=None) -> (out, state, counters)`: out and state
    are the `Fx` pytrees of `fixed`, counters a `Counters`.  Inputs and errors
    are those of the engine's call.

  Raises:
    PlanError: unknown engine or mode, a plan that is not integers everywhere,
      a placement under another plan,
      saturation or histograms with the stepped engine, a mesh with the
      functional one, or with other than one axis.
    PlacementError: the placement is no result of `place`.
  """
  if engine not in ENGINES:
    raise PlanError(f"engine must be one of {list(ENGINES)}; found {engine!r}")
  if mode not in MODES:
    raise PlanError(f"mode must be one of {list(MODES)}; found {mode!r}")
  plan.need_integers("loihi")
  if not hasattr(placement, "tiles"):
    raise PlacementError(
      f"expected the result of place(...), found {type(placement).__name__}"
    )
  if placement.network.graph.plan != plan.fingerprint:
    raise PlanError(
      "the placement was made under another plan than"
      f" {plan.name!r}; record and place with this one"
    )
  if engine == "functional":
    if mesh is not None:
      raise PlanError(
        "the functional engine runs on one device; use engine='stepped' with a"
        " mesh, or vmap and shard fixed"
      )
    return Functional(
      fn, plan, placement, mode, saturation, histograms, checked, donate
    )
  for asked, what in ((saturation, "saturations"), (histograms, "histograms")):
    if asked:
      raise PlanError(
        f"the stepped engine does not count {what}; use engine='functional'"
      )
  return Stepped(fn, plan, placement, mode, mesh, checked)
