"""The price of a run: one pure function of constants and work.

    T = max(synop_s x weights that the busiest core walks,
            neuron_s x neuron passes of the busiest core,
            host_message_s x messages from and to the host,
            link_message_s x messages on the busiest link between chips,
            mesh_word_s x words on the busiest link of a mesh,
            barrier)

is the time of a step (the form of Timcheck et al. 2026, Eq. 1), and

    E = chips x ((static_w + running_w) x T + chip_step_j x steps)
        + synop_j x walked + crossing_j x crossed + neuron_j x passes
        + message_j x messages

the energy of a while (`jaxnmc.chip.costs.energy`). `price` runs on NumPy in
float64 for reports, and on JAX arrays under `jit`, `vmap` and `grad` for
sweeps and fits. All figures of 370M in float32 are within 1e-6 of those in
float64.
"""

from typing import Any

from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.costs.constants import Constants

__all__ = ["TERMS", "Loads", "Prices", "Work", "price", "step_seconds", "terms"]

# What may set the time of a step, in order of `terms`.
TERMS = ("walk", "passes", "host", "chip link", "mesh link", "barrier")
# Whiles that are priced, in order of the first axis of `Work.times`.
SPANS = ("prefill", "generate", "ttft", "run")


@struct.dataclass
class Loads:
  """What sets the time of steps; float[n] each.

  Attributes:
    walk: stored weights that the busiest core walks.
    passes: neuron passes of the busiest core.
    host: messages from and to the host.
    link: messages on the busiest link between chips.
    mesh: 32-bit words on the busiest link between routers of a chip.
  """

  walk: Any
  passes: Any
  host: Any
  link: Any
  mesh: Any


@struct.dataclass
class Work:
  """What counters and placement say; made by `jaxnmc.chip.costs.work.work_of`.

  The whiles on the first axis are `SPANS`: a step of the full pipeline (which
  is one token), one token alone, the first stretch, the whole run.

  Attributes:
    chips: chips in use, float.
    loads: of n different steps.
    times: how often each step is in each while, float[4, n].
    steps: time steps that energy is charged for, float[4].
    events: weights walked, messages to other chips, neuron passes and messages
      sent in each while, float[4, 4].
    stored: stored weights that all cores walk in each step, float[n].
    crossings: messages to other chips in each step, float[n].
    passes: neuron passes of all cores in a step, float.
    known: 1 where `stored` was counted step by step, else 0: float[n].
  """

  chips: Any
  loads: Loads
  times: Any
  steps: Any
  events: Any
  stored: Any
  crossings: Any
  passes: Any
  known: Any


@struct.dataclass
class Prices:
  """What a run costs, in s, J and W; 0 W where there is no time.

  Attributes:
    prefill_s: step of a full pipeline.
    generate_s: one token alone.
    ttft_s: first stretch.
    run_s: whole run.
    prefill_j: J per token of the full pipeline.
    generate_j: J per token alone.
    run_j: J of the run.
    prefill_w: power of the full pipeline.
    generate_w: power of one token alone.
    mean_w: power of the run.
    peak_w: power of the step with the highest; of the two modes where the
      counters know no steps.
  """

  prefill_s: Any
  generate_s: Any
  ttft_s: Any
  run_s: Any
  prefill_j: Any
  generate_j: Any
  run_j: Any
  prefill_w: Any
  generate_w: Any
  mean_w: Any
  peak_w: Any


def terms(constants: Constants, loads: Loads, chips, xp: Any = jnp):
  """Seconds that each of `TERMS` would take: [6, n] of the array kind `xp`."""
  c = constants
  barrier = xp.where(chips > 1, c.barrier_system_s, c.barrier_s)
  each = [
    c.synop_s * loads.walk,
    c.neuron_s * loads.passes,
    c.host_message_s * loads.host,
    c.link_message_s * loads.link,
    c.mesh_word_s * loads.mesh,
    barrier,
  ]
  return xp.stack(xp.broadcast_arrays(*(xp.asarray(t) for t in each)))


def step_seconds(constants: Constants, loads: Loads, chips, xp: Any = jnp):
  """Seconds of steps: the largest of `terms`.

  Args:
    constants: of the chip.
    loads: of the steps, [n] each.
    chips: chips in use.
    xp: `numpy` or `jax.numpy`.

  Returns:
    Seconds, [n].
  """
  return xp.max(terms(constants, loads, chips, xp), axis=0)


def _joules(c: Constants, chips, time, steps, events):
  """J of whiles; events: weights, crossings, passes, messages."""
  walked, crossed, passes, messages = events
  return (
    chips * ((c.static_w + c.running_w) * time + c.chip_step_j * steps)
    + (c.synop_j * walked + c.crossing_j * crossed)
    + (c.neuron_j * passes + c.message_j * messages)
  )


def _watts(joules, time, xp):
  """joules / time, 0 where there is no time; its gradient is finite."""
  some = time > 0
  return xp.where(some, joules / xp.where(some, time, 1.0), 0.0)


def _sum(values, xp):
  """Sum over the last axis in pairs, which float32 stands for long runs."""
  while values.shape[-1] > 1:
    if values.shape[-1] % 2:
      values = xp.concatenate([values, xp.zeros_like(values[..., :1])], -1)
    half = values.shape[-1] // 2
    values = values[..., :half] + values[..., half:]
  return values[..., 0]


def price(constants: Constants, work: Work, xp: Any = jnp) -> Prices:
  """Prices a run.

  `jax.vmap(price, in_axes=(0, None))(vary(constants, ...), work)` prices many
  chips; `jax.grad` of a figure says what it depends on.

  Args:
    constants: of the chip; scalars.
    work: of the run.
    xp: array namespace: `jax.numpy`, or `numpy` for float64 without x64.

  Returns:
    Scalars of that kind.
  """
  each = step_seconds(constants, work.loads, work.chips, xp)
  seconds = _sum(work.times * each, xp)
  events = [work.events[..., k] for k in range(4)]
  joules = _joules(constants, work.chips, seconds, work.steps, events)
  watts = _watts(joules, seconds, xp)
  # Messages sent are not known by step: zero, also where they cost.
  of_step = (work.stored, work.crossings, work.passes, 0.0)
  most = _joules(constants, work.chips, each, 1.0, of_step)
  most = xp.max(_watts(most, each, xp) * work.known, initial=0.0)
  peak = xp.where(most > 0, most, xp.max(watts[:2]))
  return Prices(
    prefill_s=seconds[0],
    generate_s=seconds[1],
    ttft_s=seconds[2],
    run_s=seconds[3],
    prefill_j=joules[0],
    generate_j=joules[1],
    run_j=joules[3],
    prefill_w=watts[0],
    generate_w=watts[1],
    mean_w=watts[3],
    peak_w=peak,
  )
