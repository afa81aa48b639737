"""What can overflow in a circuit: proven impossible, or watched in every step.

With L the largest row sum of |Wq| << e over all delays of a connection and s
the largest message of its source, a port receives at most the sum of L s over
its connections.  Three things can go wrong, and each is watched only where
these bounds do not rule it out:

    a message is larger than the sums of its connection are exact for;
    the sums of several connections do not fit 32 bits together;
    a neuron receives more than its step is exact for.
"""

import dataclasses

from jaxnmc.chip.circuits.circuit import Circuit, Connection
from jaxnmc.chip.neurons import checks
from jaxnmc.chip.synapses.lava import WORD

__all__ = ["Hazard", "hazards", "largest", "reach"]


@dataclasses.dataclass(frozen=True)
class Hazard:
  """Something to watch while the circuit runs.

  Attributes:
    kind: `walk`, `add` or `step`.
    owner: population (or input) whose neuron it happens at.
    port: of an `add`.
    connection: number of the connection, of a `walk`.
    text: what it is, for messages.
  """

  kind: str
  owner: str
  text: str
  port: str | None = None
  connection: int | None = None


def largest(circuit: Circuit, name: str) -> int:
  """The largest |message| that a population or input sends."""
  if name in circuit.inputs:
    return circuit.inputs[name].largest
  return getattr(circuit.populations[name].neuron, "sends", WORD)


def reach(circuit: Circuit, c: Connection) -> int:
  """The largest |sum| that a connection brings to a neuron in a step."""
  return c.synapse.rule.reach(largest(circuit, c.source))


def hazards(circuit: Circuit) -> tuple[Hazard, ...]:
  """What has to be watched, in the order walks, adds, steps."""
  out = []
  for k, c in enumerate(circuit.connections):
    rule = c.synapse.rule
    exact = rule.num_message_bits == 0
    if not exact and largest(circuit, c.source) > rule.largest_message:
      text = (
        f"a message of {c.source} is larger than {rule.largest_message:,}, up"
        f" to which the sums at {c.target} fit 32 bits"
      )
      out.append(Hazard("walk", c.source, text, connection=k))
  sums: dict[tuple[str, str | None], list[int]] = {}
  for c in circuit.connections:
    sums.setdefault((c.target, c.port), []).append(reach(circuit, c))
  for (name, port), parts in sums.items():
    if len(parts) > 1 and sum(parts) > WORD:
      text = (
        f"what several connections bring to port {port} of population {name}"
        " does not fit 32 bits"
      )
      out.append(Hazard("add", name, text, port=port))
  for name, population in circuit.populations.items():
    takes = getattr(population.neuron, "takes", None)
    most = max(
      (sum(parts) for (n, _), parts in sums.items() if n == name), default=0
    )
    if takes is None or min(most, WORD) > takes:
      text = (
        f"the inputs of population {name} leave the range in which a step of"
        f" {checks.name_of(population.neuron)} is exact"
      )
      out.append(Hazard("step", name, text))
  return tuple(out)
