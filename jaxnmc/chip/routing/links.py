"""Messages on every link between cores, routers and chips.

They follow from the counts per synapse: a value that is not zero goes once to
each core of its own chip that reads it, and once to each other chip, where
copies for the cores are made as it enters (`routes.ROUTE_FACTS`). Messages from
and to the host are not on these links: where it is attached is not published.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np

from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing import fanout
from jaxnmc.chip.routing.link_steps import disagreement
from jaxnmc.chip.routing.routes import (
  DIRECTIONS,
  ROUTE_FACTS,
  Grid,
  Mesh,
  layout,
)
from jaxnmc.chip.routing.segments import Segment
from jaxnmc.errors import UserError

__all__ = ["LinkLoads", "link_loads"]

# Links of the loads, as `routes.Link.kind`.
KINDS = ("out", "in", "mesh", "chip")


@dataclasses.dataclass(frozen=True, eq=False)
class LinkLoads:
  """Messages on the links; both fabrics of a chip added up.

  The first axis of every array is 0 for messages on the chip of their readers
  and 1 for those that still have a link to another chip before them: they
  carry a remote header.

  Attributes:
    mesh: routers of a chip.
    grid: chips of the system.
    messages: `out` and `in` int64[2, chips, cores], `mesh` int64[2, chips,
      routers, 4], `chip` int64[2, chips, 6]: those that leave a core for its
      router, arrive at a core from it, leave a router in a direction, leave a
      chip in a direction. Chips as far as the last one that is passed.
  """

  mesh: Mesh
  grid: Grid
  messages: Mapping[str, np.ndarray]

  @property
  def sent(self) -> int:
    """Messages that cores hand to their routers."""
    return int(self.messages["out"].sum())

  @property
  def delivered(self) -> int:
    """Messages that routers hand to cores."""
    return int(self.messages["in"].sum())

  @property
  def hops(self) -> int:
    """Links passed between routers of a chip."""
    return int(self.messages["mesh"].sum())

  @property
  def chip_hops(self) -> int:
    """Links passed between chips."""
    return int(self.messages["chip"].sum())

  @functools.cached_property
  def words(self) -> Mapping[str, np.ndarray]:
    """32-bit words on the links, as `messages` without its first axis."""
    plain = int(ROUTE_FACTS["words_per_hop"].value or 0)
    headed = int(ROUTE_FACTS["words_per_crossing"].value or 0)
    return {k: plain * m[0] + headed * m[1] for k, m in self.messages.items()}

  def busiest(self, kinds: Iterable[str] = ("mesh", "chip")) -> dict:
    """The link with most words; the first of equals.

    Args:
      kinds: of `messages`.

    Returns:
      {"kind", "chip", "at" (core or router; None for a link to another chip),
      "direction", "messages", "words", "index" (in the flat array)}.
    """
    return self.ranking(1, kinds)[0]

  def ranking(
    self, top: int, kinds: Iterable[str] = ("mesh", "chip")
  ) -> list[dict]:
    """The links with most words, most first; rows as of `busiest`."""
    rows = []
    for kind in kinds:
      words = self.words[kind].reshape(-1)
      shape = self.words[kind].shape
      for k in np.argsort(-words, kind="stable")[:top].tolist():
        at = [int(n) for n in np.unravel_index(k, shape)]
        way = DIRECTIONS[at[-1]] if kind in ("mesh", "chip") else ""
        where = None if kind == "chip" else at[1]
        count = int(self.messages[kind].reshape(2, -1)[:, k].sum())
        rows.append(
          {
            "kind": kind,
            "chip": at[0],
            "at": where,
            "direction": way,
            "messages": count,
            "words": int(words[k]),
            "index": k,
          }
        )
    return sorted(rows, key=lambda r: -r["words"])[:top]


class _Flows:
  """Adds up what goes from where to where."""

  def __init__(self, mesh: Mesh, grid: Grid, chips: int):
    n = mesh.routers
    self.mesh, self.grid = mesh, grid
    self.inside = np.zeros((chips, n, n), np.int64)  # on the readers' chip
    self.leave = np.zeros((chips, 6, n), np.int64)  # from routers to a port
    self.arrive = np.zeros((grid.chips, 6, n), np.int64)  # from a port
    self.apart = np.zeros((chips, grid.chips), np.int64)  # chip to chip
    self.out = np.zeros((2, grid.chips, mesh.cores), np.int64)
    self.got = np.zeros((grid.chips, mesh.cores), np.int64)

  def _locate(self, core: np.ndarray):
    """Chip, core of it and router of cores counted over all chips."""
    chip, core = np.divmod(core, self.mesh.cores)
    return chip, core, core // self.mesh.cores_per_router

  def to_all(self, src: np.ndarray, out: np.ndarray, dst: np.ndarray) -> None:
    """Every message of cores `src` (out[k] of them) to every core of `dst`."""
    sc, sk, sr = self._locate(src)
    dc, dk, dr = self._locate(dst)
    here, there = np.unique(sc), np.unique(dc)
    routers = self.mesh.routers
    sent = np.zeros((len(here), routers), np.int64)
    np.add.at(sent, (np.searchsorted(here, sc), sr), out)
    readers = np.zeros((len(there), routers), np.int64)
    np.add.at(readers, (np.searchsorted(there, dc), dr), 1)
    a, b = (m.ravel() for m in np.meshgrid(here, there, indexing="ij"))
    p, q = np.searchsorted(here, a), np.searchsorted(there, b)
    same, total = a == b, sent.sum(1)
    one = np.einsum("ki,kj->kij", sent[p[same]], readers[q[same]])
    self.inside[a[same]] += one  # chips in `here` are distinct
    np.add.at(self.got, (dc, dk), total.sum())
    # Copies leave a core once per reader on its chip and per other chip.
    per_chip = np.bincount(dc, minlength=self.grid.chips)[sc]
    np.add.at(self.out[0], (sc, sk), out * per_chip)
    np.add.at(self.out[1], (sc, sk), out * (len(there) - (per_chip > 0)))
    a, b, p, q = a[~same], b[~same], p[~same], q[~same]
    if not len(a):
      return
    np.add.at(self.leave, (a, self.grid.heading(a, b)), sent[p])
    np.add.at(self.apart, (a, b), total[p])
    copies = total[p][:, None] * readers[q]
    np.add.at(self.arrive, (b, self.grid.entry(a, b)), copies)

  def one_by_one(self, src, dst, count, crosses) -> None:
    """count[k] messages from core src[k] to core dst[k].

    Args:
      src: int[n].
      dst: int[n].
      count: int64[n].
      crosses: bool[n], whether they are the ones that carry the value to
        that chip (another pair may have brought it).
    """
    sc, sk, sr = self._locate(src)
    dc, dk, dr = self._locate(dst)
    np.add.at(self.got, (dc, dk), count)
    same = sc == dc
    np.add.at(self.out[0], (sc[same], sk[same]), count[same])
    np.add.at(self.inside, (sc[same], sr[same], dr[same]), count[same])
    a, b, n = sc[~same], dc[~same], count[~same]
    np.add.at(self.arrive, (b, self.grid.entry(a, b), dr[~same]), n)
    first = crosses[~same]
    a, b, n = a[first], b[first], n[first]
    np.add.at(self.out[1], (a, sk[~same][first]), n)
    np.add.at(self.leave, (a, self.grid.heading(a, b), sr[~same][first]), n)
    np.add.at(self.apart, (a, b), n)

  def loads(self) -> LinkLoads:
    """Adds the routes."""
    grid, ports, n = self.grid, self.mesh.ports, self.mesh.routers
    chips, used = grid.chips, len(self.inside)
    plain = np.zeros((chips, n, n), np.int64)
    plain[:used] = self.inside
    headed = np.zeros((chips, n, n), np.int64)
    port = np.zeros((2, chips, 6), np.int64)
    for side in range(6):
      plain[:, ports[side], :] += self.arrive[:, side]
      headed[:used, :, ports[side]] += self.leave[:, side]
    # All messages between chips advance by a link at a time.
    a, b = np.nonzero(self.apart)
    count, entry = self.apart[a, b], np.full(len(a), -1, np.int64)
    way: np.ndarray
    while len(a):
      way = grid.heading(a, b)
      passing = entry >= 0
      legs = (a[passing], ports[entry[passing]], ports[way[passing]])
      np.add.at(headed, legs, count[passing])
      np.add.at(port[1], (a, way), count)
      a, entry = grid.neighbour[a, way], way ^ 1
      go = a != b
      a, b, count, entry = a[go], b[go], count[go], entry[go]
    taken = self.mesh.taken.reshape(n * n, -1)
    mesh = np.zeros((2, chips, n * 4), np.int64)
    for k, flow in enumerate((plain, headed)):
      busy = np.flatnonzero(flow.any(axis=(1, 2)))
      mesh[k, busy] = flow[busy].reshape(-1, n * n) @ taken
    messages = {
      "out": self.out,
      "in": np.stack([self.got, np.zeros_like(self.got)]),
      "mesh": mesh.reshape(2, chips, n, 4),
      "chip": port,
    }
    return LinkLoads(self.mesh, grid, messages)


def link_loads(
  found, placement: Placement, steps: tuple[int, int] | None = None
) -> LinkLoads:
  """Messages on every link of a run.

  Args:
    found: `Counters` of the run, or a `Segment` of it.
    placement: the placement that was run.
    steps: only events of time steps start to stop - 1 (of a `Segment`).

  Returns:
    The loads.

  Raises:
    UserError: counters without messages by synapse (those of a profile), or
      of another placement; more cores per chip than the mesh has places.
    PlacementError: a tile on a core or chip that does not exist.
  """
  mesh, grid = layout(placement.hardware)
  fanout.check_cores(placement)
  if isinstance(found, Segment):
    rows = _segment_rows(found, steps)
  elif steps is not None:
    raise UserError("link loads by step need a Segment; counters have totals")
  else:
    found.check(placement)
    rows = _counter_rows(found)
  messages = {}
  net, tiles = placement.network, placement.tiles_of
  for index, out, inc in rows:
    if not 0 <= index < len(net.synapses):
      raise UserError(
        f"messages of synapse {index}, but the network of this placement has"
        f" {len(net.synapses)}; take the placement that was run"
      )
    synapse = net.synapses[index]
    src, dst = tiles[synapse.src], tiles[synapse.dst]
    if (len(out), len(inc)) != (len(src), len(dst)):
      raise UserError(
        f"synapse {index} has messages of {len(out)} and {len(inc)} tiles, but"
        f" {len(src)} and {len(dst)} in this placement; take the placement"
        " that was run"
      )
    if out.any() or inc.any():
      messages[index] = out, inc
  chips = int(placement.tile_chip.max(initial=0)) + 1
  flows = _Flows(mesh, grid, chips)
  for value in fanout.values(placement, messages):
    _add_value(flows, placement, value, messages)
  return flows.loads()


def _segment_rows(segment: Segment, steps):
  """(synapse, messages out by tile, messages in by tile), summed."""
  inject = np.asarray(segment.inject, np.int64)
  for count in segment.counts:
    out, inc = count.out, count.inc
    if steps is not None:
      at = inject + count.depth
      first, last = np.searchsorted(at, steps)
      out, inc = out[first:last], inc[first:last]
    total = lambda x: x.sum(0, dtype=np.int64)
    yield count.synapse, total(out), total(inc)


def _counter_rows(counters):
  """The same of all stretches together."""
  sums: dict[int, list[np.ndarray]] = {}
  for i, stretch in enumerate(counters.stretches):
    if stretch.sent is None:
      raise UserError(
        f"stretch {i} of the counters has no messages by synapse ('sent'), so"
        " their routes are unknown; take counters of `loihi`"
      )
    for index, pair in stretch.sent.items():
      old = sums.get(index)
      new = list(pair) if old is None else [a + b for a, b in zip(old, pair)]
      sums[index] = new
  for index, (out, inc) in sums.items():
    yield index, out, inc


def _add_value(
  flows: _Flows, placement: Placement, value: fanout.Value, messages
) -> None:
  """The messages of one value, to all that read it."""
  out, _ = messages[value.synapses[0].index]
  if len(value.full):
    flows.to_all(placement.tile_core[value.source], out, value.full)
  relay = value.relay
  if relay is None:
    return
  inc = [messages[s.index][1] for s in value.relays]
  count, agree = relay.pieces([out, *inc])
  if not agree:
    raise disagreement(value)
  flows.one_by_one(
    *(relay.sender[relay.piece], relay.reader),
    *(count[relay.piece], relay.crosses),
  )
