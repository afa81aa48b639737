"""The map of cores and links."""

import dataclasses
import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import place
from jaxnmc.chip.routing import links
from jaxnmc.report import meshmap
from tests.chip import synthetic


@pytest.fixture(scope="module")
def run():
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32)
  placed = place.place(net, hardware.loihi2(chips=3, cores_per_chip=30))
  return placed, Counters.of([synthetic.traffic(placed, range(4))], placed)


def _svgs(text):
  return [ET.fromstring(x) for x in re.findall(r"<svg.*?</svg>", text)]


def _titles(svg, tag):
  return [e.findtext("title") for e in svg.iter(tag) if len(e)]


def test_the_map_has_every_core_with_its_numbers(run):
  placed, counted = run
  data = json.loads(json.dumps(meshmap.collect(counted, placed)))
  assert data["note"] is None
  walk = counted.by("core", "synops_stored", placed) / counted.tokens
  found = np.concatenate([c["walked"] for c in data["chips"]])
  npt.assert_allclose(found[: len(walk)], walk)
  stored = sum(sum(c["stored"]) for c in data["chips"])
  assert stored == placed.stored.sum()
  *chips, legend = _svgs(meshmap.draw(data))
  assert len(chips) == len(placed.chips)
  assert "weights walked per token" in "".join(legend.itertext())
  for svg, chip in zip(chips, data["chips"]):
    titles = _titles(svg, "rect")
    assert len(titles) == 30
    busy = [k for k, n in enumerate(chip["stored"]) if n]
    for k, title in enumerate(titles):
      assert title.startswith(f"chip {chip['chip']}, core {k} at router ")
      assert ("no weights" in title) == (k not in busy)
  # Core 29 is at router 7 of the first row; all squares lie in the picture.
  assert "core 29 at router 7,0:" in _titles(chips[0], "rect")[29]
  _, _, wide, high = map(float, chips[0].get("viewBox").split())
  for e in chips[0].iter("rect"):
    assert 0 <= float(e.get("x")) <= wide - float(e.get("width"))
    assert 0 <= float(e.get("y")) <= high - float(e.get("height"))


def test_the_busiest_core_is_darkest_and_the_busiest_link_widest(run):
  placed, counted = run
  data = meshmap.collect(counted, placed)
  *chips, _ = _svgs(meshmap.draw(data))
  shades, widths = [], []
  for svg in chips:
    shades += [float(e.get("fill-opacity", 0)) for e in svg.iter("rect")]
    widths += [float(e.get("stroke-width")) for e in svg.iter("line")]
  assert max(shades) == 1
  assert max(widths) == 4
  loads = links.link_loads(counted, placed)
  assert len(widths) == np.count_nonzero(loads.words["mesh"])
  row = loads.busiest(["mesh"])
  assert data["busiest"][0]["words_per_token"] == row["words"] / 4
  assert {"assumed", "quoted"} == {f["kind"] for f in data["facts"]}


def test_without_routes_the_cores_are_drawn(run):
  placed, counted = run
  bare = tuple(dataclasses.replace(s, sent=None) for s in counted.stretches)
  profile = dataclasses.replace(counted, stretches=bare)
  data = meshmap.collect(profile, placed)
  assert "no messages by synapse" in data["note"]
  text = meshmap.draw(data)
  assert "<line" not in text
  assert text.count("<svg") == len(placed.chips) + 1
  assert data["note"].split(";")[0][:30] in text


def test_a_chip_that_has_no_mesh_is_said_so(run):
  net = run[0].network
  placed = place.place(net, hardware.loihi2(cores_per_chip=200))
  counted = Counters.of([synthetic.traffic(placed, [0])], placed)
  data = meshmap.collect(counted, placed)
  assert "128 places" in meshmap.draw(data)


def test_many_chips_are_cut(run):
  data = meshmap.collect(run[1], run[0])
  data["chips"] = data["chips"][:1] * 60
  text = meshmap.draw(data)
  assert text.count("<svg") == 48 + 1
  assert "12 more chips are not drawn" in text
