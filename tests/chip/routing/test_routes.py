"""Routes and link loads, against every message walked on its own."""

import collections
import dataclasses
import functools
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from numpy import testing as npt

from jaxnmc.chip import hardware, systems
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters, Segment, SynapseCount
from jaxnmc.chip.placement import place
from jaxnmc.chip.placement.tiles import Encoding, Placement, Tile
from jaxnmc.chip.routing import links, routes
from jaxnmc.errors import PlacementError, UserError
from tests.chip import synthetic

KINDS = ("relay", "dense", "gather", "reduce")


def test_every_fact_has_a_unit_or_a_text_and_a_source():
  for name, fact in routes.ROUTE_FACTS.items():
    assert fact.source, name
    assert fact.kind in ("quoted", "assumed"), name
    assert fact.unit or fact.value is None, name
  quoted = {k for k, f in routes.ROUTE_FACTS.items() if f.kind == "quoted"}
  assert {"mesh_columns", "mesh_rows", "cores_per_router"} <= quoted
  value = lambda name: routes.ROUTE_FACTS[name].value
  assert value("mesh_columns") * value("mesh_rows") == 32
  assert value("cores_per_router") == 4
  assert value("words_per_crossing") == 3


@pytest.mark.parametrize("name", systems.CHIPS)
def test_grids_hold_the_chips_of_the_named_systems(name):
  mesh, grid = routes.layout(systems.system(name))
  assert (mesh.columns, mesh.rows, mesh.cores) == (8, 4, 120)
  assert grid.chips == systems.CHIPS[name]
  some = systems.system(name, 1)
  assert routes.layout(some)[1] == grid


@pytest.mark.parametrize("chips", [1, 2, 7, 12, 24, 32, 97, 1000])
def test_chips_are_a_snake_of_neighbours(chips):
  _, grid = routes.layout(hardware.loihi2(chips))
  assert grid.chips == chips
  places = grid.places
  assert len({tuple(p) for p in places.tolist()}) == chips
  npt.assert_array_equal(np.abs(np.diff(places, axis=0)).sum(1), 1)
  for way in range(6):
    near = np.flatnonzero(grid.neighbour[:, way] >= 0)
    there = grid.neighbour[near, way]
    npt.assert_array_equal(grid.neighbour[there, way ^ 1], near)
    npt.assert_array_equal(grid.heading(near, there), way)
    npt.assert_array_equal(grid.entry(near, there), way ^ 1)


def _walk(mesh, grid, found):
  """(chip, router) after every link; fails where one is not there."""
  start, *middle, end = found
  assert (start.kind, end.kind) == ("out", "in")
  at = (start.chip, mesh.router(start.at))
  for link in middle:
    assert (link.chip, link.at) == at
    way = routes.DIRECTIONS.index(link.direction)
    chip, (y, x) = at[0], divmod(at[1], mesh.columns)
    if link.kind == "chip":
      assert mesh.ports[way] == at[1]
      chip = int(grid.neighbour[chip, way])
      assert chip >= 0
      at = (chip, int(mesh.ports[way ^ 1]))
    else:
      x += (way == 0) - (way == 1)
      y += (way == 2) - (way == 3)
      assert 0 <= x < mesh.columns
      assert 0 <= y < mesh.rows
      at = (chip, y * mesh.columns + x)
  assert at == (end.chip, mesh.router(end.at))


@hypothesis.given(
  chips=st.integers(1, 30),
  ends=st.tuples(*[st.integers(0, 10**6)] * 4),
)
def test_a_route_goes_x_then_y_by_the_shortest_way(chips, ends):
  chip = hardware.loihi2(chips)
  mesh, grid = routes.layout(chip)
  start = (ends[0] % chips, ends[1] % mesh.cores)
  stop = (ends[2] % chips, ends[3] % mesh.cores)
  found = routes.route(chip, start, stop)
  assert found[0] == routes.Link("out", *start)
  assert found[-1] == routes.Link("in", *stop)
  _walk(mesh, grid, found)
  gap = np.abs(grid.places[start[0]] - grid.places[stop[0]]).sum()
  assert sum(link.kind == "chip" for link in found) == gap
  # Every leg inside a chip: first all of x, then all of y, no way back.
  legs = collections.defaultdict(str)
  for link in found:
    if link.kind == "mesh":
      legs[link.chip] += link.direction
  for leg in legs.values():
    axes = leg[1::2]
    assert axes == "x" * axes.count("x") + "y" * axes.count("y")
    assert len(set(leg[::2])) <= 2
    for axis in "xy":
      assert not {"+" + axis, "-" + axis} <= {
        leg[i : i + 2] for i in range(0, len(leg), 2)
      }
  if start[0] == stop[0]:
    (ay, ax), (by, bx) = (divmod(mesh.router(e[1]), 8) for e in (start, stop))
    assert len(found) - 2 == abs(ax - bx) + abs(ay - by)


@pytest.mark.parametrize("taken", [(0, 31), (31, 0), (7, 24), (5, 5)])
def test_links_taken_are_those_of_the_route(taken):
  mesh, _ = routes.layout(hardware.loihi2(cores_per_chip=128))
  found = routes.route(
    hardware.loihi2(cores_per_chip=128),
    *((0, 4 * router + 1) for router in taken),
  )
  want = np.zeros((mesh.routers, 4), int)
  for link in found[1:-1]:
    want[link.at, routes.DIRECTIONS.index(link.direction)] += 1
  npt.assert_array_equal(mesh.taken[taken], want)


def _random(rng, chips: int, cores: int, tokens: int):
  """A network on random tiles, with the messages of every neuron.

  Returns:
    (placement, segment, {source: bool[tokens, width]}).
  """
  b = synthetic.Builder()
  widths = rng.choice([1, 3, 8], size=rng.integers(2, 6))
  for k, width in enumerate(widths):
    b.population(f"p{k}", 0, int(width), 1, host=k == 0 and rng.random() < 0.5)
  sent = {}
  for source in range(int(rng.integers(1, 6))):
    src = int(rng.integers(len(widths)))
    sent[source] = rng.random((tokens, widths[src])) < rng.random()
    depth = int(rng.integers(0, 4))
    for dst in rng.permutation(len(widths))[: rng.integers(1, 4)].tolist():
      for kind in rng.choice(KINDS, size=rng.integers(1, 3), replace=False):
        if kind != "relay" or widths[src] == widths[dst]:
          b.join(src, dst, str(kind), depth, None, source)
  net = b.network()
  tiles = []
  for p in net.populations:
    if not p.host:
      cuts = rng.integers(0, p.width + 1, size=rng.integers(0, 4))
      ends = np.unique([0, p.width, *cuts])
      tiles += [
        Tile(p.name, int(a), int(z), *map(int, rng.integers((chips, cores))))
        for a, z in zip(ends[:-1], ends[1:])
      ]
  codes = tuple(Encoding("dense", 1, 8) for _ in net.synapses)
  host = tuple(p.name for p in net.populations if p.host)
  chip = hardware.loihi2(chips, cores_per_chip=cores)
  placed = Placement(tuple(tiles), host, chip, net, codes, {})
  rows = []
  for s in net.synapses:
    src, dst = placed.tiles_of[s.src], placed.tiles_of[s.dst]
    mask = sent[s.source]
    per = lambda t, mask=mask: mask[
      :, placed.tiles[t].start : placed.tiles[t].stop
    ].sum(1)
    column = lambda values: np.array(values, np.int32).reshape(-1, tokens).T
    out = column([per(t) for t in src])
    relay = s.kind == "relay"
    inc = column([per(t) if relay else mask.sum(1) for t in dst])
    rows.append(SynapseCount(s.index, s.depth, out, inc, inc, inc))
  inject = np.cumsum(rng.integers(1, 4, size=tokens)) - 1
  return placed, Segment(inject, tuple(rows)), sent


def brute(placed, segment, sent, steps=None):
  """Counts of every link: {(head, link): messages}, message by message."""
  net, found = placed.network, collections.Counter()
  walk = functools.cache(
    lambda start, stop: routes.route(placed.hardware, start, stop)
  )
  hops = 0
  for source, mask in sent.items():
    mine = [s for s in net.synapses if s.source == source]
    if not mine or not placed.tiles_of[mine[0].src]:
      continue
    for token, neuron in np.argwhere(mask).tolist():
      step = segment.inject[token] + mine[0].depth
      if steps is not None and not steps[0] <= step < steps[1]:
        continue
      readers = set()
      for s in mine:
        for t in placed.tiles_of[s.dst]:
          tile = placed.tiles[t]
          if s.kind != "relay" or tile.start <= neuron < tile.stop:
            readers.add((tile.chip, tile.core))
      (start,) = (
        (placed.tiles[t].chip, placed.tiles[t].core)
        for t in placed.tiles_of[mine[0].src]
        if placed.tiles[t].start <= neuron < placed.tiles[t].stop
      )
      for chip in {c for c, _ in readers}:
        there = [r for r in sorted(readers) if r[0] == chip]
        for k, stop in enumerate(there):
          way = walk(start, stop)
          last = max(
            (i for i, w in enumerate(way) if w.kind == "chip"), default=-1
          )
          for i, link in enumerate(way):
            head = int(i <= last)
            if k == 0 or not head:  # one message per chip, then its copies
              found[head, link] += 1
              hops += link.kind == "mesh"
  return found, hops


def as_arrays(loads, found):
  """The counts of `brute` as arrays like those of the loads."""
  want = {k: np.zeros_like(m) for k, m in loads.messages.items()}
  for (head, link), n in found.items():
    where = [head, link.chip]
    if link.kind != "chip":
      where.append(link.at)
    if link.direction:
      where.append(routes.DIRECTIONS.index(link.direction))
    want[link.kind][tuple(where)] = n
  return want


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  seed=st.integers(0, 2**32 - 1),
  chips=st.integers(1, 9),
  cores=st.integers(1, 128),
  tokens=st.integers(1, 3),
)
def test_loads_are_those_of_every_message(seed, chips, cores, tokens):
  rng = np.random.default_rng(seed)
  placed, segment, sent = _random(rng, chips, cores, tokens)
  loads = links.link_loads(segment, placed)
  found, hops = brute(placed, segment, sent)
  for kind, want in as_arrays(loads, found).items():
    npt.assert_array_equal(loads.messages[kind], want, err_msg=kind)
    assert loads.messages[kind].dtype == np.int64
  assert loads.hops == hops
  _conserved(loads)
  # A part of the steps, and all parts together.
  last = int(segment.inject[-1]) + 5
  cut = int(rng.integers(0, last))
  parts = [
    links.link_loads(segment, placed, s) for s in ((0, cut), (cut, last))
  ]
  for kind, want in as_arrays(
    loads, brute(placed, segment, sent, (0, cut))[0]
  ).items():
    npt.assert_array_equal(parts[0].messages[kind], want)
    npt.assert_array_equal(
      parts[0].messages[kind] + parts[1].messages[kind], loads.messages[kind]
    )


def _conserved(loads):
  """What enters every router leaves it, but for copies at the ports."""
  mesh, m = loads.mesh, loads.messages
  chips, n = m["mesh"].shape[1:3]
  entered = np.zeros((chips, n), np.int64)
  left = m["mesh"].sum((0, 3))
  at = np.arange(mesh.cores) // mesh.cores_per_router
  for c in range(chips):
    np.add.at(entered[c], at, m["out"][:, c].sum(0))
    np.add.at(left[c], at, m["in"][:, c].sum(0))
    np.add.at(left[c], mesh.ports, m["chip"][:, c].sum(0))
    for r in range(n):
      y, x = divmod(r, mesh.columns)
      for way, there in enumerate(
        ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1))
      ):
        count = m["mesh"][:, c, r, way].sum()
        inside = 0 <= there[0] < mesh.columns and 0 <= there[1] < mesh.rows
        assert inside or not count
        if count:
          entered[c, there[1] * mesh.columns + there[0]] += count
    for way in range(6):
      other = loads.grid.neighbour[c, way]
      count = m["chip"][:, c, way].sum()
      assert other >= 0 or not count
      if count:
        entered[other, mesh.ports[way ^ 1]] += count
  # Copies for the cores of a chip are made at its ports only.
  made = left - entered
  elsewhere = np.setdiff1d(np.arange(n), mesh.ports)
  npt.assert_array_equal(made[:, elsewhere], 0)
  if chips == 1:
    npt.assert_array_equal(made, 0)
    assert loads.sent == loads.delivered


def test_a_link_by_hand():
  """Two values to three cores: the picture in the head, in numbers."""
  b = synthetic.Builder()
  b.population("a", 0, 2, 1)
  b.population("b", 0, 2, 1)
  b.join(0, 1, "dense", 0)
  tiles = (Tile("a", 0, 2, 0, 0), Tile("b", 0, 1, 0, 9), Tile("b", 1, 2, 0, 63))
  codes = (Encoding("dense", 2, 8),)
  placed = Placement(tiles, (), hardware.loihi2(), b.network(), codes, {})
  counts = np.array([[2]]), np.array([[2, 2]])
  segment = Segment(
    np.array([0]), (SynapseCount(0, 0, *counts, counts[1], counts[1]),)
  )
  loads = links.link_loads(segment, placed)
  mesh = loads.messages["mesh"][0, 0]
  # Core 9 is at router 2, core 63 at router 15: x 7, y 1.
  npt.assert_array_equal(mesh[:8, 0], [4, 4, 2, 2, 2, 2, 2, 0])
  assert mesh[7, 2] == 2
  assert mesh.sum() == loads.hops == 2 * 2 + 2 * 8
  assert loads.sent == loads.delivered == 4
  assert loads.busiest() == {
    "kind": "mesh",
    "chip": 0,
    "at": 0,
    "direction": "+x",
    "messages": 4,
    "words": 8,
    "index": 0,
  }
  assert loads.busiest(["in"])["at"] == 9
  assert [r["messages"] for r in loads.ranking(3)] == [4, 4, 2]
  assert loads.busiest(["chip"])["words"] == 0


def test_a_chip_gets_a_value_once_whoever_reads_it():
  """One core reads all of it, others only their part, on the same chip."""
  b = synthetic.Builder()
  b.population("a", 0, 4, 1)
  b.population("all", 0, 1, 1)
  b.population("own", 0, 4, 1)
  b.join(0, 1, "reduce", 0, None, 7)
  b.join(0, 2, "relay", 0, None, 7)
  tiles = (
    Tile("a", 0, 3, 0, 0),
    Tile("a", 3, 4, 0, 8),
    Tile("all", 0, 1, 1, 0),
    Tile("own", 0, 2, 1, 5),
    Tile("own", 2, 3, 1, 0),
    Tile("own", 3, 4, 2, 1),
  )
  codes = (Encoding("dense", 4, 8), Encoding("dense", 1, 8))
  chip = hardware.loihi2(3)
  placed = Placement(tiles, (), chip, b.network(), codes, {})
  column = lambda *n: np.array([n])
  rows = (
    SynapseCount(0, 0, column(3, 1), column(4), column(4), column(4)),
    SynapseCount(
      1, 0, *[column(3, 1), column(2, 1, 1)], *[column(2, 1, 1)] * 2
    ),
  )
  segment = Segment(np.array([0]), rows)
  loads = links.link_loads(segment, placed)
  # Four to chip 1, of which one goes to chip 2 as well.
  assert loads.messages["out"][1, 0, [0, 8]].tolist() == [3, 2]
  assert loads.chip_hops == 4 + 2
  # Core 0 of chip 1 has them all already; core 5 gets its two.
  assert loads.messages["in"][0, 1, [0, 5]].tolist() == [4, 2]
  assert loads.messages["in"][0, 2, 1] == 1
  sent = {7: np.ones((1, 4), bool)}
  for kind, want in as_arrays(loads, brute(placed, segment, sent)[0]).items():
    npt.assert_array_equal(loads.messages[kind], want)


def test_370m_on_24_chips(big):
  placed, counted, _ = big
  start = time.perf_counter()
  loads = links.link_loads(counted, placed)
  assert time.perf_counter() - start < 20  # 0.2 s when nothing else runs
  # Blocks are neighbours: what crosses takes a single link.
  assert loads.chip_hops == counted.total("crossings").sum()
  assert loads.chip_hops == 402 * 23 * 1024
  chip = loads.words["chip"]
  assert chip.max() == 3 * 402 * 1024
  # No link is crossed twice, so all busy ones are alike.
  assert set(chip[chip > 0].tolist()) == {3 * 402 * 1024}
  part = synthetic.traffic(placed, np.arange(400))
  both = links.link_loads(part, placed).hops * 402
  assert both == loads.hops * 400


def test_counters_are_their_segments():
  placed, segment, _ = _random(np.random.default_rng(5), 3, 40, 3)
  assert links.link_loads(segment, placed).sent > 0
  one = links.link_loads(segment, placed)
  two = links.link_loads(Counters.of([segment, segment], placed), placed)
  for kind, messages in one.messages.items():
    npt.assert_array_equal(2 * messages, two.messages[kind])


def test_a_core_that_does_not_exist_is_refused():
  chip = hardware.loihi2(3)
  with pytest.raises(UserError, match="core 120 .* 120 cores, 0 to 119"):
    routes.route(chip, (0, 0), (1, 120))
  with pytest.raises(UserError, match="core -1 does not exist"):
    routes.route(chip, (0, -1), (1, 0))
  with pytest.raises(UserError, match="chip 3 .* has 3 chips, 0 to 2"):
    routes.route(chip, (0, 0), (3, 0))
  with pytest.raises(UserError, match="cores_per_chip is 129.* 128 places"):
    routes.route(hardware.loihi2(cores_per_chip=129), (0, 0), (0, 1))
  placed, segment, _ = _random(np.random.default_rng(5), 3, 40, 1)
  for change, words in (
    ({"core": 40}, "core 40 does not exist; Loihi 2 has 40 cores per chip"),
    ({"chip": 3}, "chip 3 does not exist; Loihi 2 has 3 chips, 0 to 2"),
  ):
    tiles = (
      *placed.tiles[:-1],
      dataclasses.replace(placed.tiles[-1], **change),
    )
    wrong = dataclasses.replace(placed, tiles=tiles)
    with pytest.raises(PlacementError, match=words):
      links.link_loads(segment, wrong)


def test_counts_of_something_else_are_refused(small):
  other, segment, _ = _random(np.random.default_rng(5), 3, 40, 1)
  with pytest.raises(UserError, match="synapse"):
    links.link_loads(segment, small)
  with pytest.raises(UserError, match="do not belong"):
    links.link_loads(Counters.of([segment], other), small)
  counted = Counters.of([segment], other)
  bare = tuple(dataclasses.replace(s, sent=None) for s in counted.stretches)
  with pytest.raises(UserError, match="stretch 0 .* no messages by synapse"):
    links.link_loads(dataclasses.replace(counted, stretches=bare), other)
  with pytest.raises(UserError, match="need a Segment"):
    links.link_loads(counted, other, (0, 1))


def test_messages_that_do_not_agree_are_refused(small):
  wrong = synthetic.traffic(small, [0])
  relay = next(
    i
    for i, c in enumerate(wrong.counts)
    if small.network.synapses[c.synapse].kind == "relay" and c.out.size
  )
  rows = list(wrong.counts)
  rows[relay] = dataclasses.replace(rows[relay], out=rows[relay].out + 1)
  with pytest.raises(UserError, match="one to one.* do not agree"):
    links.link_loads(Segment(wrong.inject, tuple(rows)), small)


def test_more_than_a_thousand_chips():
  net = synthetic.matmulfree(layers=3, d=64, i=64, vocab=32)
  placed = place.place(net, hardware.loihi2(chips=3, cores_per_chip=4))
  far = {0: 0, 1: 575, 2: 1151}
  tiles = tuple(dataclasses.replace(t, chip=far[t.chip]) for t in placed.tiles)
  chip = systems.system("Hala Point", cores_per_chip=4)
  spread = dataclasses.replace(placed, tiles=tiles, hardware=chip)
  segment = synthetic.traffic(placed, [0])
  loads = links.link_loads(segment, spread)
  _, grid = routes.layout(chip)
  away = lambda a, b: int(np.abs(grid.places[a] - grid.places[b]).sum())
  assert loads.chip_hops == 64 * (away(0, 575) + away(575, 1151))


def test_cost_says_hops_and_the_busiest_link(big):
  placed, counted, report = big
  loads = links.link_loads(counted, placed)
  hops, words = report.hops_per_token, report.link_words_per_token
  assert (hops.unit, words.unit) == ("hops", "words")
  assert hops.value * counted.tokens == loads.hops
  assert words.value * counted.tokens == loads.busiest()["words"]
  assert "assumed" in hops.source
  assert "quoted" in hops.source
  assert f"{23 * 1024} links between chips" in hops.source
  assert any("waits for its busiest link" in n for n in report.notes)
  # A core that does not exist is an error, a profile's lack of routes is not.
  tiles = (dataclasses.replace(placed.tiles[0], core=120), *placed.tiles[1:])
  with pytest.raises(PlacementError, match="core 120 does not exist"):
    cost(counted, dataclasses.replace(placed, tiles=tiles))
  bare = tuple(dataclasses.replace(s, sent=None) for s in counted.stretches)
  report = cost(dataclasses.replace(counted, stretches=bare), placed)
  assert report.hops_per_token.value is None
  assert "no messages by synapse" in report.link_words_per_token.source
