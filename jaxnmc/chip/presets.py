"""Placements of the paper, and what it leaves open about them.

Abreu et al. 2025, A.4.1: each of the 24 blocks of the 370M model on a chip of
its own, the un-embedding "mapped to 7 Loihi 2 chips", 31 of the 32 chips that
were run; the embedding was not on the chips. The paper expects both layers to
leave the throughput as it is. Times here are modelled: every message non-zero,
the form of docs/hardware.md without links.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnmc.chip import outline
from jaxnmc.chip.costs.estimate import pipelined_step
from jaxnmc.chip.hardware import Hardware
from jaxnmc.chip.network import Network
from jaxnmc.chip.placement import fewest
from jaxnmc.chip.placement.encoding import dense_bits
from jaxnmc.chip.placement.packing import FanIn, Item, largest
from jaxnmc.chip.placement.place import place
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.systems import system
from jaxnmc.errors import PlacementError
from jaxnmc.ops.graph import Graph

__all__ = ["PRESETS", "Preset", "embedding_on_chips", "head_on_chips"]
__all__ += ["embedding_network", "logits_seconds", "preset"]

_LEAST_ROWS = 256  # of a part of a table
_TRIED = 2  # numbers of parts that are placed


@dataclasses.dataclass(frozen=True)
class Preset:
  """A published placement.

  Attributes:
    source: where it was read.
    layers: blocks.
    d: width of the stream.
    i: width of the GLU.
    vocab: tokens.
    norm: formulation, of `outline.FORMULATIONS`.
    system: name, of `systems.CHIPS`.
    chips: of it that were run.
    layer_chips: chips for each block.
    head_chips: chips for final norm and output matrix.
  """

  source: str
  layers: int
  d: int
  i: int
  vocab: int
  norm: str
  system: str
  chips: int
  layer_chips: int
  head_chips: int

  @property
  def network(self) -> Network:
    """From the sizes alone: no weights."""
    sizes = (self.layers, self.d, self.i, self.vocab)
    return outline.matmulfree(*sizes, norm=self.norm)

  @property
  def hardware(self) -> Hardware:
    """The chips that were run."""
    return system(self.system, self.chips)


PRESETS: Mapping[str, Preset] = types.MappingProxyType(
  {
    "abreu2025": Preset(
      "Abreu et al. 2025, A.4.1",
      *(24, 1024, 2816, 32000, "fused", "Alia Point", 32, 1, 7),
    )
  }
)


def preset(
  name: str,
  net: Network | Graph | None = None,
  hardware: Hardware | None = None,
) -> Placement:
  """Places as a paper did.

  Args:
    name: of `PRESETS`.
    net: a network or a graph; that of the paper when not given.
    hardware: chips; those of the paper when not given.

  Returns:
    The placement; the embedding is on the host.

  Raises:
    PlacementError: no such preset, or it does not fit so.
  """
  if name not in PRESETS:
    raise PlacementError(f"no preset {name!r}; known are {', '.join(PRESETS)}")
  found = PRESETS[name]
  return place(
    found.network if net is None else net,
    found.hardware if hardware is None else hardware,
    layer_chips=found.layer_chips,
    head_chips=found.head_chips,
  )


def head_on_chips(
  net: Network, hardware: Hardware, most: int = 8
) -> list[dict[str, Any]]:
  """The head on 1, 2, ... chips, beside layers on chips of their own.

  Args:
    net: a network with layers and a head.
    hardware: limits and times; it is given as many chips as are needed.
    most: chips for the head, at most.

  Returns:
    Rows (chips, cores, busiest_weights: stored on the head's busiest core,
    head_us: a step of the head alone, step_us: of everything, unchanged:
    whether that is the step without the head). Numbers of chips that do not
    hold it are left out.
  """
  wide = dataclasses.replace(hardware, chips=len(net.populations) + most)
  layers = place(net, wide, head="host", layer_chips=1)
  first = len(layers.chips)
  without = pipelined_step(layers)
  rows = []
  for chips in range(1, most + 1):
    try:
      placed = place(net, wide, layer_chips=1, head_chips=chips)
    except PlacementError:
      continue
    mine = placed.tile_chip >= first
    stored = placed.sum_by(placed.tile_core[mine], placed.stored[mine])
    step = pipelined_step(placed)
    alone = pipelined_step(placed, range(first, first + chips))
    micro = lambda s: None if s is None else 1e6 * s
    rows.append(
      {
        "chips": chips,
        "cores": int((stored > 0).sum()),
        "busiest_weights": int(stored.max()),
        "head_us": micro(alone),
        "step_us": micro(step),
        "unchanged": step == without,
        "label": "modelled",
      }
    )
  return rows


def logits_seconds(net: Network, hardware: Hardware) -> float | None:
  """Seconds that the logits of one token take to the host, if all are sent.

  None where the rate is unknown. In a full pipeline a longer time than a step
  bounds the throughput, unless only the last token's logits are asked for.
  """
  if hardware.host_messages_per_s is None:
    return None
  heard = {synapse.src for synapse in net.synapses}
  ends = [p.width for p in net.populations if p.index not in heard]
  return sum(ends) / hardware.host_messages_per_s


def embedding_network(vocab: int, d: int, bits: int, parts: int) -> Network:
  """A table of `vocab` rows of `d` weights as synapses, and what adds it up.

  A token is one message of an input neuron of its own, and its row of weights
  is walked. A core has no room for so many rows, so the table is cut into
  `parts` by tokens, and one population adds the parts: of these one is not
  zero, and zero is not sent.
  """
  b = outline.Builder()
  high = (1 << bits - 1) - 1
  # Two balanced digits of 8 bits end at 32,639, like the 16-bit activations.
  weight = min(high, 32639)
  sizes = [len(part) for part in _cut(vocab, parts)]
  tables = []
  for k, rows in enumerate(sizes):
    token = b.population(f"token.{k}", None, rows, 1, 0, host=True)
    table = b.population(f"table.{k}", None, d, 1, 1)
    b.join(token, table, "dense", 0, _same(weight, d, rows))
    tables.append(table)
  total = b.population("embed.out", None, d, 1, parts)
  for table in tables:
    b.join(table, total, "relay", 1)
  return b.network()


def _same(weight: int, rows: int, columns: int):
  """A matrix of one number, in no memory."""
  return np.broadcast_to(np.int64(weight), (rows, columns))


def _cut(total: int, parts: int) -> list[range]:
  size = -(-total // parts)
  return [range(k, min(k + size, total)) for k in range(0, total, size)]


def _cuts(
  vocab: int, d: int, bits: int, digits: int, hardware: Hardware
) -> list[int]:
  """Numbers of parts that may take the fewest cores, the best bound first."""
  bounds = []
  for parts in range(1, max(1, vocab // _LEAST_ROWS) + 1):
    rows = -(-vocab // parts)
    item = Item(d, 1, 1, (FanIn(rows, rows * digits, bits),))
    total = Item(d, parts, 1, (FanIn(d, 1, 2),) * parts)  # what adds them up
    if largest(item, hardware) and largest(total, hardware):
      items = [item] * parts + [total]
      bounds.append((fewest.least(items, hardware), parts))
  return [parts for _, parts in sorted(bounds)[:_TRIED]]


def embedding_on_chips(
  vocab: int, d: int, hardware: Hardware
) -> list[dict[str, Any]]:
  """What the embedding table takes on chips, at its true count.

  Args:
    vocab: rows.
    d: weights in a row.
    hardware: limits; it is given as many chips as are needed.

  Returns:
    Rows (bits: of a weight, digits: stored weights for each, parts: cuts by
    token, cores, chips, walked: weights that the busiest core walks for a
    token), for 16 bits (what this library's rows have, exact), 8 (the paper's
    weights) and 2 (if it were ternary, which it is not). The cuts are those
    with the fewest cores.
  """
  rows = []
  wide = dataclasses.replace(hardware, chips=1000)
  for bits in (16, 8, 2):
    high = min((1 << bits - 1) - 1, 32639)
    width, digits = dense_bits(-high, high, hardware)
    best: Placement | None = None
    for parts in _cuts(vocab, d, width, digits, hardware):
      net = embedding_network(vocab, d, bits, parts)
      found = place(net, wide, head="chip", objective="memory")
      if best is None or len(found.used_cores) < len(best.used_cores):
        best = found
    if best is None:
      continue
    tables = best.tile_population
    names = [best.network.populations[k].name for k in tables]
    mine = [k for k, name in enumerate(names) if name != "embed.out"]
    per = max(int(best.sizes[k]) for k in mine) * digits
    rows.append(
      {
        "bits": bits,
        "stored_bits": width,
        "digits": digits,
        "parts": len({names[k] for k in mine}),
        "cores": len(best.used_cores),
        "chips": len(best.chips),
        "walked": per,
        "label": "modelled",
      }
    )
  return rows
