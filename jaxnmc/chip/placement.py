"""Places a network on cores: every neuron on one core, or on the host.

Default policy: each layer on a chip of its own (more, if it needs more);
several neighbouring layers per chip when there are fewer chips; all cores as
one pool as a last try. Within its chips a layer is cut so that the busiest
core is as little busy as possible (`packing`). What does not fit is refused
with the limit, the number that broke it and a remedy.
"""

import collections
import math
from collections.abc import Sequence

from jaxnmc.chip import packing
from jaxnmc.chip.hardware import Hardware
from jaxnmc.chip.network import Network, network
from jaxnmc.chip.packing import Item, Misfit
from jaxnmc.chip.tiles import Encoding, Placement, Tile, packing_items
from jaxnmc.errors import PlacementError
from jaxnmc.ops.graph import Graph

__all__ = ["Encoding", "Placement", "Tile", "place"]

_TERNARY_BITS = 2


def _encode(synapse, width: int, hardware: Hardware, choice: str) -> Encoding:
  """The cheapest encoding, or the one asked for."""
  if synapse.kind in ("relay", "gather"):
    return Encoding("dense", 1, _TERNARY_BITS)
  if synapse.weights is None:
    return Encoding("dense", width, _TERNARY_BITS)
  low, high = int(synapse.weights.min()), int(synapse.weights.max())
  bits = hardware.weight_bits_max
  if -1 <= low and high <= 1:
    bits = _TERNARY_BITS
  # A wider weight takes several parallel synapses of the widest kind.
  need = max(high, ~low).bit_length() + 1
  parallel = max(1, -(-need // hardware.weight_bits_max))
  dense = Encoding("dense", width * parallel, bits)
  index = hardware.sparse_index_bits
  if index is None or choice == "dense":
    return dense
  rows = synapse.weights.shape[0]
  entries = -(-synapse.nonzero * parallel // rows)
  sparse = Encoding("sparse", entries, bits + index)
  if choice == "sparse":
    return sparse
  smaller = sparse.entries * sparse.bits < dense.entries * dense.bits
  return sparse if smaller else dense


class _Placer:
  """Chips and cores for sets of populations, equal sets only packed once."""

  def __init__(self, net: Network, items: Sequence[Item], hardware: Hardware):
    self.net, self.items, self.hardware = net, items, hardware
    self._known: dict = {}

  def pack(self, members: Sequence[int], chips: int):
    """`packing.pack`, or the `Misfit` that it raised."""
    key = (tuple(self.items[i] for i in members), chips)
    if key not in self._known:
      cores = chips * self.hardware.cores_per_chip
      try:
        self._known[key] = packing.pack(key[0], cores, self.hardware)
      except Misfit as misfit:
        self._known[key] = misfit
    return self._known[key]

  def fewest(self, members: Sequence[int], low: int, high: int) -> int | None:
    """Smallest number of chips from `low` to `high` that do, or None."""
    n = max(low, 1)
    while n <= high:
      found = self.pack(members, n)
      if not isinstance(found, Misfit):
        return n
      if found.item is not None:
        raise self.error(found, members, n)
      n = max(n + 1, -(-found.cores // self.hardware.cores_per_chip))
    return None

  def load(self, members: Sequence[int]) -> float:
    """Time of all cores together per step."""
    items = (self.items[i] for i in members)
    return sum(i.width * packing.seconds(i, self.hardware) for i in items)

  def error(self, misfit: Misfit, members: Sequence[int], chips: int):
    """The message for people."""
    fact = self.hardware.fact(misfit.limit)
    what = dict(packing.LIMITS)[misfit.limit]
    name = self.hardware.name
    if misfit.item is not None:
      population = self.net.populations[members[misfit.item]]
      return PlacementError(
        f"one neuron of population {population.name} needs"
        f" {misfit.found:,.0f} {what}; a core of {name} has"
        f" {misfit.allowed:,.0f} ({misfit.limit}: {fact.source}). More chips"
        " do not help: make the layer narrower, or describe another chip"
      )
    layers = list(dict.fromkeys(_layer_name(self.net, i) for i in members))
    shown = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
    slack = ""
    if misfit.found <= misfit.allowed:
      slack = ", too tight for whole neurons and their programs"
    need = -(-(misfit.cores or 1) // self.hardware.cores_per_chip)
    return PlacementError(
      f"{shown} on {chips} chip{'s' * (chips > 1)} of {name}"
      f" ({chips * self.hardware.cores_per_chip:,} cores): {misfit.limit} is"
      f" the tightest limit, {misfit.found:,.0f} {what} are needed and there"
      f" are {misfit.allowed:,.0f}{slack} ({fact.source}). Use at least"
      f" {max(need, chips + 1)} chips, or keep the head on the host"
    )


def _layer_name(net: Network, index: int) -> str:
  population = net.populations[index]
  if population.layer is None:
    return population.name.split(".")[0]
  return f"layer {population.layer}"


def _split(loads: Sequence[float], parts: int) -> list[range]:
  """Neighbours in at most `parts` groups, the heaviest as light as can be."""

  def groups(most: float) -> list[range]:
    out, start, total = [], 0, 0.0
    for i, load in enumerate(loads):
      if i > start and total + load > most * (1 + 1e-12):
        out.append(range(start, i))
        start, total = i, 0.0
      total += load
    return [*out, range(start, len(loads))]

  low, high = max(loads), math.fsum(loads)
  for _ in range(60):
    middle = (low + high) / 2
    if len(groups(middle)) <= parts:
      high = middle
    else:
      low = middle
  return groups(high)


def _own_chips(placer: _Placer, units, chips: int):
  """Each unit on chips of its own: [(first chip, chips, unit)], or None."""
  out, at = [], 0
  for k, unit in enumerate(units):
    room = chips - at - (len(units) - k - 1)
    n = placer.fewest(unit, 1, room)
    if n is None:
      return None
    out.append((at, n, unit))
    at += n
  return out


def _layers_on_chips(placer: _Placer, units, chips: int, members):
  """The default policy: (name, [(first chip, chips, populations)])."""
  if not units:
    return "own", []
  if len(units) <= chips:
    own = _own_chips(placer, units, chips)
    if own is not None:
      return "own", own
  else:
    parts = _split([placer.load(unit) for unit in units], chips)
    merged = [[m for i in part for m in units[i]] for part in parts]
    shared = _own_chips(placer, merged, chips)
    if shared is not None:
      return "shared", shared
  found = placer.pack(members, chips)
  if isinstance(found, Misfit):
    raise placer.error(found, members, chips)
  return "pooled", [(0, chips, members)]


def _with_head(placer: _Placer, units, head, chips: int, members):
  """Layers and head on the chips; the head gets chips of its own if it can."""
  if len(units) >= chips:
    together = [*units, head] if units else [head]
    return _layers_on_chips(placer, together, chips, [*members, *head])
  policy, places = _layers_on_chips(placer, units, chips, members)
  first = sum(n for _, n, _ in places)
  busiest = max((placer.pack(u, n)[0] for _, n, u in places), default=0.0)
  per = placer.hardware.cores_per_chip
  # No busier than the layers, if there are chips for that.
  wish = math.ceil(placer.load(head) / (busiest * per)) if busiest else 1
  left = chips - first
  n = placer.fewest(head, min(max(wish, 1), left), left)
  if n is not None:
    return policy, [*places, (first, n, head)]
  if not left:
    found = placer.pack([*members, *head], chips)
    if not isinstance(found, Misfit):
      return "pooled", [(0, chips, [*members, *head])]
    raise placer.error(found, [*members, *head], chips)
  raise placer.error(placer.pack(head, left), head, left)


def place(
  net: Network | Graph,
  hardware: Hardware,
  *,
  head: str = "auto",
  encoding: str = "auto",
) -> Placement:
  """Places a network.

  The embedding (the input of the network) is always on the host.

  Args:
    net: a network, or a graph, which is then grouped.
    hardware: chips to use, with their limits.
    head: where final norm and output matrix go: `host`, `chip`, or `auto`: on
      the chips, if it fits there; where every layer has chips of its own, the
      head needs chips of its own, too.
    encoding: of dense synapses: `dense`, `sparse`, or `auto`: the smaller one.

  Returns:
    The placement. Tiles of a population are equal but for its last one.

  Raises:
    PlacementError: it does not fit, or an option is not one of these.
  """
  for name, value, known in (
    ("head", head, ("host", "chip", "auto")),
    ("encoding", encoding, ("dense", "sparse", "auto")),
  ):
    if value not in known:
      raise PlacementError(f"{name}={value!r} must be one of {known}")
  if isinstance(net, Graph):
    net = network(net)
  pops = net.populations
  codes = tuple(
    _encode(s, pops[s.src].width, hardware, encoding) for s in net.synapses
  )
  names = [p.name for p in pops]
  twice = [n for n, k in collections.Counter(names).items() if k > 1]
  if twice:
    raise PlacementError(
      f"two populations are called {twice[0]}; give their last sites different"
      " names"
    )
  items = packing_items(net, codes)
  _check_neurons(net, items, hardware)
  placer = _Placer(net, items, hardware)
  by_layer: dict[int, list[int]] = {}
  last: list[int] = []
  for p in pops:
    if not p.host:
      (last if p.layer is None else by_layer.setdefault(p.layer, [])).append(
        p.index
      )
  units = [by_layer[layer] for layer in sorted(by_layer)]
  members = sum(units, [])
  where = head
  result = None
  if last and head != "host":
    # A layer each and nothing left over: the head stays on the host.
    crowded = len(units) == hardware.chips and bool(units)
    if head == "chip" or not crowded:
      try:
        result = _with_head(placer, units, last, hardware.chips, members)
        where = "chip"
      except PlacementError:
        if head == "chip":
          raise
  if result is None:
    where = "host"
    result = _layers_on_chips(placer, units, hardware.chips, members)
  policy, places = result
  tiles = _tiles(placer, places)
  used = {tile.population for tile in tiles}
  host = tuple(p.name for p in pops if p.name not in used)
  policies = {"head": where if last else "none", "layers": policy}
  return Placement(tiles, host, hardware, net, codes, policies)


def _check_neurons(net: Network, items, hardware: Hardware) -> None:
  """Limits of one neuron, whatever core it is on."""
  room = hardware.state_bytes_per_neuron
  for population, item in zip(net.populations, items):
    state = item.words * hardware.state_word_bits // 8
    if room is not None and state > room and not population.host:
      raise PlacementError(
        f"one neuron of population {population.name} needs {state:,} bytes of"
        f" state; {hardware.name} allows {room:,} (state_bytes_per_neuron)."
        " Let values wait less, or split the neuron"
      )


def _tiles(placer: _Placer, places) -> tuple[Tile, ...]:
  per = placer.hardware.cores_per_chip
  found: dict[int, list[Tile]] = {}
  for first, chips, members in places:
    _, sizes, cores = placer.pack(members, chips)
    for index, size, core_of in zip(members, sizes, cores):
      population = placer.net.populations[index]
      found[index] = [
        Tile(
          *(population.name, k * size, min((k + 1) * size, population.width)),
          *(first + core // per, core % per),
        )
        for k, core in enumerate(core_of)
      ]
  return tuple(tile for index in sorted(found) for tile in found[index])
