"""Places a network on cores: every neuron on one core, or on the host.

Objective "time": each layer on a chip of its own (more, if it needs more);
several neighbouring layers per chip when there are fewer chips; all cores as
one pool as a last try. Within its chips a layer is cut so that the busiest
core is as little busy as possible (`packing`). Objective "memory": all cores
are one pool, and the fewest of them are used (`fewest`). What does not fit
is refused with the limit, the number that broke it and a remedy.
"""

import collections
import math
from collections.abc import Sequence

from jaxnmc.chip.hardware import Hardware
from jaxnmc.chip.network import Network, network
from jaxnmc.chip.placement import digits, fewest, packing
from jaxnmc.chip.placement.encoding import encode
from jaxnmc.chip.placement.packing import Item, Misfit
from jaxnmc.chip.placement.tiles import Encoding, Placement, Tile, packing_items
from jaxnmc.errors import PlacementError
from jaxnmc.ops.graph import Graph

__all__ = ["OBJECTIVES", "Encoding", "Placement", "Tile", "place"]

# What a placement makes small: the time of a step, or cores and chips.
OBJECTIVES = ("time", "memory")


class _Placer:
  """Chips and cores for sets of populations, equal sets only packed once."""

  def __init__(self, net: Network, items: Sequence[Item], hardware: Hardware):
    self.net, self.items, self.hardware = net, items, hardware
    self._known: dict = {}

  def pack(self, members: Sequence[int], chips: int, few: bool = False):
    """`packing.pack` or `fewest.pack`, or the `Misfit` that it raised."""
    key = (tuple(self.items[i] for i in members), chips, few)
    if key not in self._known:
      cores = chips * self.hardware.cores_per_chip
      how = fewest.pack if few else packing.pack
      try:
        self._known[key] = how(key[0], cores, self.hardware)
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
  out: list[tuple[int, int, Sequence[int]]] = []
  at = 0
  for k, unit in enumerate(units):
    room = chips - at - (len(units) - k - 1)
    n = placer.fewest(unit, 1, room)
    if n is None:
      return None
    out.append((at, n, unit))
    at += n
  return out


def _exactly(placer: _Placer, unit, first: int, chips: int):
  """(first chip, chips, unit) if a unit fits on so many chips.

  Raises:
    PlacementError: it does not.
  """
  found = placer.pack(unit, chips)
  if isinstance(found, Misfit):
    raise placer.error(found, unit, chips)
  return first, chips, unit


def _pool(placer: _Placer, members, chips: int):
  """The fewest cores for all: as `_layers_on_chips`."""
  found = placer.pack(members, chips, True)
  if isinstance(found, Misfit):
    raise placer.error(found, members, chips)
  return "pooled", [(0, chips, members)]


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


def _as_told(placer: _Placer, units, last, chips: int, told):
  """Layers and head on numbers of chips that were asked for, or None.

  Raises:
    PlacementError: there are too few chips, or it does not fit.
  """
  layer_chips, head_chips = told
  if layer_chips is None and head_chips is None:
    return None
  places: list[tuple[int, int, Sequence[int]]] = []
  for unit in units:
    at = sum(n for _, n, _ in places)
    if layer_chips is None:
      n = placer.fewest(unit, 1, chips - at)
    else:
      n = layer_chips
    places.append(_exactly(placer, unit, at, n or 1))
  at = sum(n for _, n, _ in places)
  if last and head_chips is not None:
    places.append(_exactly(placer, last, at, head_chips))
    at += head_chips
  if at > chips:
    raise PlacementError(
      f"chips is {chips}, but {len(units)} layers"
      + (f" of {layer_chips} chips each" if layer_chips else "")
      + (f" and a head of {head_chips} chips" if head_chips else "")
      + f" take {at}; use a system of {at} chips, or fewer for each"
    )
  return "own", places


def place(
  net: Network | Graph,
  hardware: Hardware,
  *,
  head: str = "auto",
  encoding: str = "auto",
  objective: str = "time",
  layer_chips: int | None = None,
  head_chips: int | None = None,
) -> Placement:
  """Places a network.

  The embedding (the input of the network) is always on the host.

  Args:
    net: a network, or a graph, which is then made to fit the chip's widths
      (`digits.narrow`) and grouped.
    hardware: chips to use, with their limits.
    head: where final norm and output matrix go: `host`, `chip`, or `auto`: on
      the chips, if it fits there; where every layer has chips of its own, the
      head needs chips of its own, too. A circuit is on the chips in any case.
    encoding: of dense synapses: `dense`, `sparse`, or `auto`: the smaller one.
    objective: `time`: a step as short as can be; `memory`: the fewest cores and
      chips.
    layer_chips: exactly so many chips for each layer (objective `time`).
    head_chips: exactly so many chips for the head (objective `time`).

  Returns:
    The placement. Tiles of a population are equal but for its last one.

  Raises:
    PlacementError: it does not fit, or an option is not one of these.
  """
  for name, value, known in (
    ("head", head, ("host", "chip", "auto")),
    ("encoding", encoding, ("dense", "sparse", "auto")),
    ("objective", objective, OBJECTIVES),
  ):
    if value not in known:
      raise PlacementError(f"{name}={value!r} must be one of {known}")
  told = (layer_chips, head_chips)
  _check_told(told, objective, head)
  if isinstance(net, Graph):
    net = network(digits.narrow(net, hardware))
  if net.ticks:
    head = "chip"
  _check_messages(net, hardware)
  pops = net.populations
  codes = tuple(
    encode(s, pops[s.src].width, hardware, encoding) for s in net.synapses
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
  few = objective == "memory"
  result = _as_told(placer, units, last, hardware.chips, told)
  where = "chip" if result and head_chips is not None else "host"
  if result is None:
    where, result = _policy(placer, units, last, head, few)
  policy, places = result
  tiles = _tiles(placer, places, few)
  used = {tile.population for tile in tiles}
  host = tuple(p.name for p in pops if p.name not in used)
  policies = {
    "objective": objective,
    "head": where if last else "none",
    "layers": policy,
  }
  return Placement(tiles, host, hardware, net, codes, policies)


def _policy(placer: _Placer, units, last, head: str, few: bool):
  """(`host` or `chip` for the head, result of `_layers_on_chips`)."""
  chips = placer.hardware.chips
  members: list[int] = sum(units, [])
  # A layer each and nothing left over: the head stays on the host.
  crowded = len(units) == chips and bool(units)
  if last and head != "host" and (head == "chip" or few or not crowded):
    try:
      if few:
        return "chip", _pool(placer, [*members, *last], chips)
      return "chip", _with_head(placer, units, last, chips, members)
    except PlacementError:
      if head == "chip":
        raise
  if few and members:
    return "host", _pool(placer, members, chips)
  return "host", _layers_on_chips(placer, units, chips, members)


def _check_told(told, objective: str, head: str) -> None:
  """Numbers of chips that were asked for make sense."""
  for name, value in zip(("layer_chips", "head_chips"), told, strict=True):
    if value is None:
      continue
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise PlacementError(
        f"{name} is {value!r}; it must be 1 or more, or None"
      )
    if objective != "time":
      raise PlacementError(
        f"{name}={value} with objective={objective!r}: that objective takes as"
        " few chips as do; leave one of the two out"
      )
  if told[1] is not None and head == "host":
    raise PlacementError(
      f"head_chips={told[1]} with head='host'; leave one of the two out"
    )


def _check_messages(net: Network, hardware: Hardware) -> None:
  """A network that was grouped for wider messages is refused."""
  bits = hardware.message_bits
  if bits is None or bits >= 32 or not getattr(net.graph, "nodes", ()):
    return
  spans = digits.ranges(net.graph)
  for synapse in net.synapses:
    low, high = spans[synapse.source]
    if digits.count(low, high, bits) > 1:
      if synapse.source not in net.graph.before_cores:
        raise PlacementError(
          f"{synapse.path} sends {low:,} to {high:,}; a message of"
          f" {hardware.name} has {bits} bits (message_bits). Place the graph,"
          " not the network made of it: it is then sent in several messages"
        )


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
  most = hardware.delay_max
  for synapse in net.synapses:
    if most is not None and synapse.delay > most:
      raise PlacementError(
        f"the synapse of {synapse.path} into population"
        f" {net.populations[synapse.dst].name} has a delay of {synapse.delay}"
        f" steps; {hardware.name} allows {most} (delay_max). Let the value wait"
        ' in the neuron (network(graph, waits="fifo"))'
      )


def _tiles(placer: _Placer, places, few: bool) -> tuple[Tile, ...]:
  per = placer.hardware.cores_per_chip
  found: dict[int, list[Tile]] = {}
  for first, chips, members in places:
    _, sizes, cores = placer.pack(members, chips, few)
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
