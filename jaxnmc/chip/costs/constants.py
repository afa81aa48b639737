"""The constants that price a run, as a pytree of floats.

`Hardware` says what is known of a chip and where it was read; `Constants` is
what remains for arithmetic: no unknowns, no strings, every leaf a number or an
array, so that `jax.vmap`, `jax.grad` and fits take it.
"""

import dataclasses
from typing import Any

import numpy as np
from flax import struct

from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.hardware import Hardware
from jaxnmc.errors import UserError

__all__ = ["Constants", "constants_of", "vary"]

_WORD_BYTES = 4


@struct.dataclass
class Constants:
  """Times and energies of events, in s, J and W; 0 counts as nothing.

  Rates are held as the time of one event, so that an unknown one is 0 like all
  the others. Every leaf is a float or an array of one shape (`vary`). SI units
  are safe in float32: the smallest leaf is about 1e-12, the largest count 1e11.

  Attributes:
    synop_s: s per stored weight walked.
    neuron_s: s per neuron pass.
    barrier_s: s, shortest step of one chip.
    barrier_system_s: s, shortest step of several chips.
    host_message_s: s per message from or to the host.
    link_message_s: s per message on a link between chips.
    mesh_word_s: s per 32-bit word on a link between routers of a chip.
    static_w: W per chip that is switched on.
    running_w: W per chip that takes part in the time steps.
    chip_step_j: J per chip and time step.
    synop_j: J per stored weight walked.
    crossing_j: J per message to another chip.
    neuron_j: J per neuron pass.
    message_j: J per message sent.
  """

  synop_s: Any = 0.0
  neuron_s: Any = 0.0
  barrier_s: Any = 0.0
  barrier_system_s: Any = 0.0
  host_message_s: Any = 0.0
  link_message_s: Any = 0.0
  mesh_word_s: Any = 0.0
  static_w: Any = 0.0
  running_w: Any = 0.0
  chip_step_j: Any = 0.0
  synop_j: Any = 0.0
  crossing_j: Any = 0.0
  neuron_j: Any = 0.0
  message_j: Any = 0.0

  @classmethod
  def names(cls) -> tuple[str, ...]:
    """Names of the constants."""
    return tuple(f.name for f in dataclasses.fields(cls))


def constants_of(hardware: Hardware, energy: Energy | None = None) -> Constants:
  """What is known of a chip, as plain numbers.

  Args:
    hardware: times and rates.
    energy: energies and powers; None: those given with the hardware.

  Returns:
    Python floats; what is None in the arguments is 0.
  """
  joules = hardware if energy is None else energy
  names = [f.name for f in dataclasses.fields(Energy)[2:]]
  each = {name: float(getattr(joules, name) or 0) for name in names}
  for name in ("synop_s", "neuron_s", "barrier_s", "barrier_system_s"):
    each[name] = float(getattr(hardware, name) or 0)
  one = lambda rate: 0.0 if rate is None else 1 / rate
  bytes_per_s = hardware.mesh_bytes_per_s
  return Constants(
    **each,
    host_message_s=one(hardware.host_messages_per_s),
    link_message_s=one(hardware.link_messages_per_s),
    mesh_word_s=_WORD_BYTES * one(bytes_per_s),
  )


def vary(constants: Constants, **values) -> Constants:
  """Many variants of a chip, for `jax.vmap(price, in_axes=(0, None))`.

  Args:
    constants: of one chip.
    **values: name -> float[n], in the units of `Constants`; numbers are the
      same in all variants.

  Returns:
    Constants with float64[n] leaves; those that are not named are repeated.

  Raises:
    UserError: an unknown name, arrays of several lengths, or a value that is
      negative or not a number.
  """
  names = constants.names()
  wrong = sorted(set(values) - set(names))
  if wrong:
    raise UserError(
      f"vary: no constant {', '.join(wrong)}; there are {', '.join(names)}"
    )
  arrays = {k: np.asarray(v, np.float64) for k, v in values.items()}
  sizes = {a.shape for a in arrays.values() if a.ndim}
  if len(sizes) > 1 or any(len(s) != 1 for s in sizes):
    raise UserError(
      f"vary: values have shapes {sorted(sizes)}; they must be numbers or"
      " arrays [n] of one length"
    )
  for name, array in arrays.items():
    if not (np.isfinite(array) & (array >= 0)).all():
      bad = array[~(np.isfinite(array) & (array >= 0))].flat[0]
      raise UserError(
        f"vary: {name} has {bad}; it must be finite and not negative"
      )
  (shape,) = sizes or {(1,)}
  leaves = {k: arrays.get(k, getattr(constants, k)) for k in names}
  return Constants(
    **{k: np.broadcast_to(np.float64(v), shape) for k, v in leaves.items()}
  )
