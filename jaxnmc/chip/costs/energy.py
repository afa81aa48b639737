"""Energy constants: two forms, fitted on Table 4 of Abreu et al. 2025.

No energy per operation of Loihi 2 is public. The table has four figures for 24
MatMul-free blocks of 12,845,056 weights, one per chip: prefill and generation,
measured on 24 chips, and extrapolated by the authors from one chip. Both forms
charge static power and joules per weight walked; they differ in what a chip
draws for taking part:

    step:     joules per chip and time step, and per message to another chip;
              four unknowns, four equations, solved exactly ("model B+L")
    running:  watts per chip; three unknowns, least squares of the relative
              error, which leaves up to 7 % ("model C")

In `step`, time steps much shorter than the 50 to 150 us of the table would draw
more than the chip can; there `running` is the better guess.
"""

import dataclasses
import functools

import numpy as np

from jaxnmc.chip.hardware import Hardware
from jaxnmc.errors import UserError

__all__ = ["BLOCK_WEIGHTS", "BLOCKS", "Energy", "STEPS_PER_BLOCK", "constants"]

BLOCKS = 24
BLOCK_WEIGHTS = 4 * 1024**2 + 3 * 1024 * 2816
_WIDTH = 1024  # activations that cross from chip to chip
STEPS_PER_BLOCK = 15  # of the graph that the paper describes
# Rows of the table: tokens/s, J/token, generation?, measured on 24 chips?
_TABLE4 = (
  (6632.0, 3.7e-3, False, True),
  (41.5, 405e-3, True, True),
  (13965.0, 2.8e-3, False, False),
  (71.3, 59e-3, True, False),
)
_SOURCE = "Abreu et al. 2025, Table 4"


@dataclasses.dataclass(frozen=True)
class Energy:
  """Energy and power of events; None is unknown and counts as nothing.

  Attributes:
    name: `step`, `running` or `given`.
    source: origin of the constants.
    static_w: W per chip that is switched on.
    running_w: W per chip that takes part in the time steps.
    chip_step_j: J per chip and time step.
    synop_j: J per stored weight walked.
    crossing_j: J per message to another chip.
    neuron_j: J per neuron pass.
    message_j: J per message sent.
  """

  name: str
  source: str
  static_w: float | None = None
  running_w: float | None = None
  chip_step_j: float | None = None
  synop_j: float | None = None
  crossing_j: float | None = None
  neuron_j: float | None = None
  message_j: float | None = None

  @property
  def fitted(self) -> bool:
    """Whether these are the constants fitted on the paper's table."""
    return self.name in ("step", "running")

  def joules(self, chips: int, time, steps, counts):
    """Energy of a while.

    Args:
      chips: chips in use.
      time: seconds.
      steps: time steps in it.
      counts: (weights walked, messages to other chips, neuron passes, messages
        sent); numbers or arrays like `time`.

    Returns:
      Joules, a number or an array like `time`.
    """
    each = (self.synop_j, self.crossing_j, self.neuron_j, self.message_j)
    total = chips * ((self.static_w or 0) + (self.running_w or 0)) * time
    total = total + chips * (self.chip_step_j or 0) * steps
    return total + sum((j or 0) * n for j, n in zip(each, counts))


@functools.cache
def _step_form(steps_per_block: float) -> tuple[float, float, float, float]:
  """(W/chip, J/chip/step, J/token, J/token for crossings), solved exactly."""
  rows, power = [], []
  for rate, joule, generation, many in _TABLE4:
    steps = rate * (BLOCKS * steps_per_block if generation else 1)
    # The authors' one-chip generation lets a single chip step at a time.
    chips = BLOCKS if many or not generation else 1
    rows.append([BLOCKS, chips * steps, rate, rate if many else 0.0])
    power.append(rate * joule)
  return tuple(np.linalg.solve(np.array(rows), np.array(power)).tolist())


@functools.cache
def _running_form() -> tuple[float, float, float]:
  """(static W/chip, running W/chip, J/token), least squares."""
  rows = []
  for rate, joule, generation, many in _TABLE4:
    chips = BLOCKS if many or not generation else 1
    rows.append(np.array([BLOCKS, chips, rate]) / (rate * joule))
  return tuple(np.linalg.lstsq(np.array(rows), np.ones(4))[0].tolist())


def constants(form: str, steps_per_block: float = STEPS_PER_BLOCK) -> Energy:
  """The fitted constants.

  Args:
    form: `step` or `running`.
    steps_per_block: time steps per block of the compiled graph; the table
      knows only its product with the energy per step.

  Returns:
    The constants, in the units of `Energy`.

  Raises:
    UserError: unknown form, or so few steps that a constant is negative.
  """
  weights = BLOCKS * BLOCK_WEIGHTS
  if form == "running":
    static, running, token = _running_form()
    return Energy(
      form,
      f"fitted on {_SOURCE}, form C (largest residual 7 %)",
      static_w=static,
      running_w=running,
      synop_j=token / weights,
    )
  if form != "step":
    raise UserError(f"energy form {form!r} must be 'step' or 'running'")
  static, step, token, links = _step_form(float(steps_per_block))
  if min(static, step, token, links) < 0:
    raise UserError(
      f"with {steps_per_block} steps per block, Table 4 has no solution without"
      " negative energies; use the form 'running'"
    )
  return Energy(
    form,
    f"fitted on {_SOURCE}, form B+L at {steps_per_block:g} steps per block",
    static_w=static,
    chip_step_j=step,
    synop_j=token / weights,
    crossing_j=links / ((BLOCKS - 1) * _WIDTH),
  )


def candidates(
  hardware: Hardware, steps_per_block: float
) -> tuple[Energy, ...]:
  """What can be said of a chip's energy, best first; empty if nothing.

  Constants given with the hardware win. The fits are for Loihi 2 only; `step`
  is taken at the paper's steps where these have no solution.
  """
  names = [f.name for f in dataclasses.fields(Energy)[2:]]
  given = {name: getattr(hardware, name) for name in names}
  if any(value is not None for value in given.values()):
    return (Energy("given", f"given with {hardware.name}", **given),)
  if hardware.fact("static_w").kind != "fitted":
    return ()
  try:
    step = constants("step", steps_per_block)
  except UserError:
    step = constants("step")
  return (step, constants("running"))
