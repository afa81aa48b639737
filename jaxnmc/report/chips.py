"""One model on several chips, on paper; and on a number of cores, or not.

Nothing is placed on a chip other than Loihi 2.  For all of them the same three
counts of the network are held against what the chip publishes:

    neurons    / neurons of a core
    stored bits of weights / synapse memory of a core; a weight of more bits
               than the chip's takes several
    and whether messages, weights and inputs of a neuron are what it can have

The first two are lower bounds: axons, headers, cuts and programs come on top.
`placed` is the placement on Loihi 2 with all of these.
"""

import math
from typing import Any

from jaxnmc.chip.other_chips import CHIPS, Chip
from jaxnmc.chip.placement import digits
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.errors import ConfigError, PlacementError
from jaxnmc.report import placement as placements
from jaxnmc.report import tables

__all__ = ["compare", "needs", "on_cores", "show"]


def needs(placed: Placement) -> dict[str, Any]:
  """What the part of a network on the chips asks for.

  Args:
    placed: on Loihi 2.

  Returns:
    {"neurons", "weights" (stored), "by_bits": width of a weight -> how many,
    "message_bits" (widest; None for a network without values), "inputs" (most
    of a neuron), "values" (most different weights of a matrix)}.
  """
  net = placed.network
  on_chip = {tile.population for tile in placed.tiles}
  pops = net.populations
  by_bits: dict[int, int] = {}
  inputs: dict[int, int] = {}
  values = 0
  message = None
  spans = digits.ranges(net.graph) if getattr(net.graph, "nodes", ()) else None
  for synapse in net.synapses:
    target = pops[synapse.dst]
    if target.name not in on_chip:
      continue
    if spans is not None:
      low, high = spans[synapse.source]
      bits = max(abs(int(low)), abs(int(high))).bit_length()
      bits += low < 0
      message = max(message or 1, bits)
    if synapse.weights is None:
      # A relay or a sum: weights of 1.
      bits, count = 1, max(pops[synapse.src].width, target.width)
      inputs[synapse.dst] = inputs.get(synapse.dst, 0) + 1
    else:
      low, high = synapse.span
      bits = max(abs(int(low)), abs(int(high))).bit_length() + (low < 0)
      count = int(synapse.weights.size)
      inputs[synapse.dst] = inputs.get(synapse.dst, 0) + pops[synapse.src].width
      values = max(values, int(high) - int(low) + 1)
    by_bits[max(1, bits)] = by_bits.get(max(1, bits), 0) + count
  return {
    "neurons": int(placed.sizes.sum()),
    "weights": sum(by_bits.values()),
    "by_bits": by_bits,
    "message_bits": message,
    "inputs": max(inputs.values(), default=0),
    "values": values,
  }


def compare(placed: Placement) -> list[dict[str, Any]]:
  """The network of a placement on every chip of `CHIPS`, on paper.

  Args:
    placed: on Loihi 2.

  Returns:
    Rows {"chip", "neurons_per_core", "weight_bits", "cores" and "chips" (at
    least, by neurons and memory), "bound" (which of the two), "placed_cores"
    (Loihi 2 only), "synop_pj" (quoted, or None), "why_not": list, empty where
    nothing that was checked forbids it, "not_checked": limits that are not
    public, or of which the network's side is unknown, "label"}.
  """
  need = needs(placed)
  rows = []
  for chip in CHIPS.values():
    cores = {
      "neurons": _ceil(need["neurons"], chip.neurons.value),
      "synapses": _ceil(_bits(need, chip), chip.synapse_bits.value),
    }
    known = {name: n for name, n in cores.items() if n is not None}
    bound = max(known, key=lambda name: known[name]) if known else None
    least = None if bound is None else known[bound]
    joules = chip.synop_j.value
    lies = chip.name == "Loihi 2"
    rows.append(
      {
        "chip": chip.name,
        "neurons_per_core": chip.neurons.value,
        "weight_bits": chip.weight_bits.value,
        "cores": least,
        "chips": _ceil(least, chip.cores.value),
        "bound": bound,
        "placed_cores": len(placed.used_cores) if lies else None,
        "synop_pj": None if joules is None else 1e12 * joules,
        # It fits where it lies: placement shares a neuron's inputs out.
        "why_not": [] if lies else _why_not(need, chip),
        "not_checked": _not_checked(need, chip),
        "label": "modelled",
      }
    )
  return rows


def _ceil(a, b) -> int | None:
  return None if a is None or b is None else math.ceil(a / b)


def _bits(need: dict[str, Any], chip: Chip) -> float | None:
  """Bits that all weights take; a wide one is several of the chip's."""
  width = chip.weight_bits.value
  if width is None:
    return None
  # A crossbar has one bit for each pair, whatever the weight is worth.
  each = lambda bits: bits if bits <= width else width * math.ceil(bits / width)
  return sum(each(bits) * n for bits, n in need["by_bits"].items())


def _why_not(need: dict[str, Any], chip: Chip) -> list[str]:
  """Public limits that the network breaks."""
  found = []
  message, most = need["message_bits"], chip.message_bits.value
  if message is not None and most is not None and message > most:
    found.append(f"messages of {message} bits, it has {most:g}")
  values = chip.weight_values.value
  if values is not None and need["values"] > values:
    found.append(f"{need['values']} values of a weight, it has {values:g}")
  axons = chip.axons_in.value
  if axons is not None and need["inputs"] > axons:
    found.append(f"{need['inputs']:,} inputs of a neuron, it has {axons:,.0f}")
  if chip.runs:
    found.append(chip.runs)
  return found


def _not_checked(need: dict[str, Any], chip: Chip) -> list[str]:
  found = []
  if chip.message_bits.value is None or need["message_bits"] is None:
    found.append("message_bits")
  if chip.axons_in.value is None:
    found.append("axons_in")
  return found


def show(people, rows: list[dict[str, Any]]) -> None:
  """Prints the table.

  Args:
    people: a console.
    rows: of `compare`.
  """
  body = [
    (
      *(r["chip"], r["neurons_per_core"], r["weight_bits"]),
      *(r["cores"], r["chips"], r["synop_pj"]),
      "; ".join(r["why_not"]) or "nothing that was checked",
    )
    for r in rows
  ]
  columns = [
    *("chip", ">neurons", ">bits", ">cores >=", ">chips >=", ">pJ/event"),
    "why not",
  ]
  title = "On other chips, on paper (cores modelled, the rest quoted)"
  people.print(tables.table(title, columns, body))
  for row in rows:
    if row["not_checked"]:
      people.print(
        f"not checked, {row['chip']}: {', '.join(row['not_checked'])}",
        markup=False,
      )
    if row["placed_cores"] is not None:
      people.print(
        f"placed on {row['chip']}: {row['placed_cores']:,} cores (modelled)",
        markup=False,
      )


def on_cores(net, cores: int, **options) -> Placement:
  """A placement on as few cores as do, if these are at most `cores`.

  Args:
    net: a graph or a network.
    cores: most cores.
    **options: of `jaxnmc.place`, but for the objective.

  Raises:
    ConfigError: no positive number of cores.
    PlacementError: more cores are needed; the arithmetic is in the message.
  """
  if isinstance(cores, bool) or not isinstance(cores, int) or cores < 1:
    raise ConfigError(f"cores is {cores!r}; allowed are whole numbers from 1")
  placed = placements.on_chips(net, None, objective="memory", **options)
  used, chip = len(placed.used_cores), placed.hardware
  if used <= cores:
    return placed
  need = placed.memory_bytes
  room = cores * (chip.synapse_bytes or 0)
  raise PlacementError(
    f"{cores} cores of {chip.name}: synapses and neuron state of the network"
    f" are {need:,} bytes, {cores} cores hold {room:,} bytes of synapses"
    f" ({chip.synapse_bytes:,} each); packed as tightly as first-fit can, with"
    f" rows, axons and neurons, it takes {used}: allow {used} cores, or give"
    " fewer layers, heads or units, or narrower weights"
  )
