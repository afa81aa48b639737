"""Recorded models as NIR: matrices as they are, the rest told."""

import collections
import dataclasses

import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.errors import ConfigError
from jaxnmc.io import nir
from jaxnmc.ops.graph import Graph, Node, Output
from tests.chip import tiny
from tests.io import nir_numpy

pytest.importorskip("nir", reason="the extra nir is not installed")


@pytest.fixture(scope="module")
def recorded():
  fn, _, plan, qparams = tiny.tiny_model("double", 1)
  return nmc.record(fn, plan, qparams)


def test_every_matrix_is_there_and_all_else_is_told(recorded):
  exported = nir.export_recorded(recorded)
  nodes = exported.graph.nodes
  dense = [n for n in recorded.nodes if n.op == "dense"]
  linear = [x.weight for x in nodes.values() if type(x).__name__ == "Linear"]
  assert len(linear) == len(dense) > 5
  for node, weight in zip(dense, linear):
    np.testing.assert_array_equal(weight, np.asarray(node.data))
  told = collections.Counter(n.kind for n in exported.report.lost)
  ops = collections.Counter(n.op for n in recorded.nodes)
  for op in ("sigmoid", "inv_sqrt", "mean_square", "low_bits", "dense"):
    assert told[op] == ops[op] > 0
  assert told["input"] == 1
  # No instruction is dropped in silence: it is a node, or there is a note.
  noted = {n.node for n in exported.report.lost}
  for node in recorded.nodes:
    name = node.site or f"{node.op}.{node.id}"
    if node.op != "const" and not any(x.endswith(name) for x in noted):
      assert any(k.endswith(name) for k in exported.names), name
  edges = {name for edge in exported.graph.edges for name in edge}
  assert edges == set(nodes)


def test_a_file_of_a_recorded_model_is_read_again(recorded, tmp_path):
  exported = nir.export_recorded(recorded, dt=1.0)
  nir.write(tmp_path / "x.nir", exported.graph)
  back = nir.read(tmp_path / "x.nir")
  assert back.nodes.keys() == exported.graph.nodes.keys()
  assert sorted(back.edges) == sorted(exported.graph.edges)


def written(*nodes, bind=None, out=None) -> Graph:
  """A graph by hand: (op, args, static, width, data) each."""
  made = tuple(
    Node(i, op, args, static, width, None, data=data)
    for i, (op, args, static, width, data) in enumerate(nodes)
  )
  last = Output(len(made) - 1 if out is None else out, 0, 0, 1, None)
  return Graph(made, bind or {}, {"logits": last}, {}, "", "")


def test_linear_instructions_are_exact_and_states_wait_a_token():
  """s = 2 s + W (3 x - 1);  y = (s - W' s >= 5), in whole numbers."""
  w = np.array([[1, -1, 0], [0, 1, 1]], np.int8)
  const = lambda *x: ("const", (), {}, len(x), np.array(x, np.int32))
  graph = written(
    ("input", (), {}, 3, np.zeros((4, 3), np.int32)),
    const(3, 3, 3),
    ("mul", (0, 1), {}, 3, None),
    ("add_const", (2,), {"value": -1}, 3, None),
    ("dense", (3,), {"bound": 99}, 2, w),
    ("prev", (), {}, 2, None),
    ("shl", (5,), {"bits": 1}, 2, None),
    ("add", (6, 4), {}, 2, None),
    ("rsub_const", (7,), {"value": 0}, 2, None),
    ("sum", (8,), {}, 1, None),
    ("broadcast", (9,), {"width": 2}, 2, None),
    ("sub", (7, 10), {}, 2, None),
    const(5, 6),
    ("ge", (11, 12), {}, 2, None),
    bind={5: 7},
  )
  exported = nir.export_recorded(graph, dt=0.5)
  x = np.random.default_rng(0).integers(-4, 5, (9, 3))
  said = nir_numpy.simulate(exported.graph, {"input_0": x}, 0.5)
  s, ties = np.zeros(2, int), 0
  for t, row in enumerate(x):
    s = 2 * s + w @ (3 * row - 1)
    y = s - -s.sum()
    np.testing.assert_array_equal(said["add_7"][t], s)
    np.testing.assert_array_equal(said["ge_13_out"][t], y >= [5, 6])
    ties += int((y == [5, 6]).sum())
  assert [n.kind for n in exported.report.lost] == ["input", "dense"]


def test_a_comparison_fires_at_a_tie():
  const = ("const", (), {}, 2, np.array([5, 6], np.int32))
  graph = written(
    ("input", (), {}, 2, np.zeros((1, 2), np.int32)),
    const,
    ("ge", (0, 1), {}, 2, None),
    ("ge", (1, 2), {}, 2, None),
  )
  exported = nir.export_recorded(graph)
  x = np.array([[5, 6], [4, 7], [6, 5]])
  said = nir_numpy.simulate(exported.graph, {"input_0": x}, 1e-4)
  assert said["ge_2"].tolist() == [[1, 1], [0, 1], [1, 0]]
  assert said["ge_3_out"].tolist() == [[1, 1]] * 3


def test_a_model_without_a_matrix_is_an_error():
  node = ("input", (), {}, 2, np.zeros((1, 2), np.int32))
  graph = written(node, ("shl", (0,), {"bits": 1}, 2, None))
  with pytest.raises(ConfigError, match="no matrix and no threshold"):
    nir.export_recorded(graph)
  with pytest.raises(ConfigError, match="dt is 0; allowed"):
    nir.export_recorded(dataclasses.replace(graph), dt=0)
