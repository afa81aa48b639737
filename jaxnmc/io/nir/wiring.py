"""The linear part of a NIR graph: from neuron to neuron, one matrix a delay.

Linear, Affine, Scale, Flatten and Delay nodes have no memory of their own (a
Delay's is the synapse's), so a chain of them is a matrix for each number of
steps, and a constant.  Several edges into a node add up.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnmc.errors import ConfigError
from jaxnmc.io.nir import timing
from jaxnmc.io.nir.cells import CELLS
from jaxnmc.io.nir.notes import Report

LINEAR = ("Linear", "Affine", "Scale", "Flatten", "Delay")
ENDS = ("Input", "Output")
_WOULD_LOSE = {
  "Conv1d": "its convolution; unroll it into a Linear",
  "Conv2d": "its convolution; unroll it into a Linear",
  "AvgPool2d": "its pooling; unroll it into a Linear",
  "SumPool2d": "its pooling; unroll it into a Linear",
}

__all__ = ["Path", "Wiring", "flat"]


@dataclasses.dataclass(frozen=True, eq=False)
class Path:
  """What reaches a node from one source.

  Attributes:
    source: an Input or a node of neurons.
    groups: steps of delay -> float[out, in].
  """

  source: str
  groups: Mapping[int, np.ndarray]


def kind_of(node: Any) -> str:
  """Type of a node."""
  return type(node).__name__


def flat(nir, graph) -> tuple[dict[str, Any], list[tuple[str, str]]]:
  """Nodes and edges with graphs inside the graph unfolded, checked.

  Args:
    nir: the package.
    graph: a `nir.NIRGraph`.

  Returns:
    (name -> node, edges); a node of a graph inside is `outer.inner`, its Input
    and Output are Scales by 1.

  Raises:
    ConfigError: an edge of a node that is not there, or a graph inside with
      another number of inputs and outputs than one.
  """
  nodes: dict[str, Any] = {}
  edges: list[tuple[str, str]] = []
  ports: dict[str, tuple[str, str]] = {}
  for name, node in graph.nodes.items():
    if kind_of(node) != "NIRGraph":
      nodes[name] = node
      continue
    inner_nodes, inner_edges = flat(nir, node)
    ends = []
    for end in ENDS:
      found = [k for k, n in inner_nodes.items() if kind_of(n) == end]
      if len(found) != 1:
        raise ConfigError(
          f"NIR node {name} (NIRGraph): it has {len(found)} nodes of type"
          f" {end}; allowed is one"
        )
      inner_nodes[found[0]] = nir.Scale(scale=np.ones(()))
      ends.append(f"{name}.{found[0]}")
    nodes.update({f"{name}.{k}": n for k, n in inner_nodes.items()})
    edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner_edges]
    ports[name] = ends[0], ends[1]
  for a, b in graph.edges:
    for end in (a, b):
      if end not in graph.nodes:
        raise ConfigError(
          f"NIR graph: the edge {a} -> {b} names {end!r}, which is no node;"
          " take it out, or add the node"
        )
    edges.append((ports[a][1] if a in ports else a, ports.get(b, (b,))[0]))
  return nodes, edges


class Wiring:
  """Sizes and signals of a flat graph.

  Attributes:
    nodes: name -> node.
    before: name -> names of the nodes that feed it, in the order of edges.
  """

  def __init__(self, nodes, edges, dt: float, report: Report):
    self.nodes, self.dt, self.report = nodes, dt, report
    self.before: dict[str, list[str]] = {name: [] for name in nodes}
    self.after: dict[str, list[str]] = {name: [] for name in nodes}
    for a, b in dict.fromkeys(edges):
      if edges.count((a, b)) > 1:
        report.tell(f"{a} -> {b}", "edge", "given twice, counted once")
      self.before[b].append(a)
      self.after[a].append(b)
    for name, node in nodes.items():
      kind = kind_of(node)
      if kind not in (*ENDS, *LINEAR, *CELLS):
        lost = _WOULD_LOSE.get(kind, "what it computes")
        raise ConfigError(
          f"NIR node {name} ({kind}): it cannot run here; what would be lost"
          f" is {lost}"
        )
    self.inputs = self._ends("Input")
    self.outputs = self._ends("Output")
    self._sizes: dict[str, int | None] = {}
    self._signals: dict[str, tuple[list[Path], np.ndarray]] = {}
    for name in nodes:
      self._check(name)
    self._loops()

  def _ends(self, kind: str) -> list[str]:
    found = [n for n, node in self.nodes.items() if kind_of(node) == kind]
    if not found:
      raise ConfigError(
        f"NIR graph: it has no node of type {kind}; add one, with its shape"
      )
    return found

  def own(self, name: str) -> tuple[int | None, int | None]:
    """(in, out) sizes as the node itself gives them, None where it does not.

    Raises:
      ConfigError: a matrix that is none.
    """
    node = self.nodes[name]
    kind = kind_of(node)
    if kind in ("Linear", "Affine"):
      shape = np.shape(node.weight)
      if len(shape) != 2:
        raise ConfigError(
          f"NIR node {name} ({kind}): its weight is {list(shape)}; allowed is"
          " a matrix [out, in]"
        )
      bias = getattr(node, "bias", None)
      if bias is not None and np.size(bias) not in (1, shape[0]):
        raise ConfigError(
          f"NIR node {name} ({kind}): its bias has {np.size(bias)} values, its"
          f" weight {shape[0]} rows; allowed are as many"
        )
      return shape[1], shape[0]
    if kind in (*ENDS, "Flatten"):
      types = node.output_type if kind == "Output" else node.input_type
      shape = next(iter((types or {}).values()), None)
      size = None if shape is None else int(np.prod(shape))
      return size, size
    fields = {"Scale": "scale", "Delay": "delay", "Threshold": "threshold"}
    value = getattr(node, fields.get(kind, "r"))
    size = int(np.size(value)) if np.shape(value) else None
    return size, size

  def size(self, name: str, *above: str) -> int | None:
    """Values that a node sends; None if nothing tells."""
    if name not in self._sizes:
      size = self.own(name)[1]
      for source in self.before[name]:
        if size is None and source not in (name, *above):
          size = self.size(source, name, *above)
      if size is None:
        return None
      self._sizes[name] = size
    return self._sizes[name]

  def _check(self, name: str) -> None:
    kind, wanted = kind_of(self.nodes[name]), self.own(name)[0]
    if self.size(name) is None:
      raise ConfigError(
        f"NIR node {name} ({kind}): nothing tells its size; give its"
        " parameters a shape, or the Input before it"
      )
    wanted = self.size(name) if wanted is None else wanted
    for source in self.before[name]:
      if self.size(source) != wanted:
        raise ConfigError(
          f"NIR edge {source} -> {name}: {source} sends {self.size(source)}"
          f" values, {name} ({kind}) takes {wanted}; make them agree"
        )
    if kind == "Input" and self.before[name]:
      raise ConfigError(
        f"NIR edge {self.before[name][0]} -> {name}: {name} is an Input;"
        " allowed are edges from it"
      )
    if kind == "Output" and self.after[name]:
      raise ConfigError(
        f"NIR edge {name} -> {self.after[name][0]}: {name} is an Output;"
        " allowed are edges to it"
      )
    if kind in (*LINEAR, "Output") and not self.before[name]:
      raise ConfigError(
        f"NIR node {name} ({kind}): no edge leads to it; add one, or take the"
        " node out"
      )

  def _loops(self) -> None:
    """Refuses loops of linear nodes, tells of those that nothing reads."""
    linear = [n for n, x in self.nodes.items() if kind_of(x) in LINEAR]
    inside = {(a, b) for b in linear for a in self.before[b] if a in linear}
    for a, b in sorted(timing.closing([], inside)):
      raise ConfigError(
        f"NIR graph: the loop that the edge {a} -> {b} closes has no neuron in"
        " it, so nothing ends it; put a node of neurons into it"
      )
    for name in linear:
      if not self.after[name]:
        kind = kind_of(self.nodes[name])
        self.report.lose(name, kind, "no edge leads from it; it is left out")

  def signal(self, name: str) -> tuple[list[Path], np.ndarray]:
    """What a node sends: (paths from its sources, a constant float[n]).

    Raises:
      ConfigError: values that are not finite, a delay below 0.
    """
    if name not in self._signals:
      self._signals[name] = self._signal(name)
    return self._signals[name]

  def _signal(self, name: str) -> tuple[list[Path], np.ndarray]:
    node, n = self.nodes[name], int(self.size(name) or 0)
    kind = kind_of(node)
    if kind in (*CELLS, "Input"):
      return [Path(name, {0: np.eye(n)})], np.zeros(n)
    paths: list[Path] = []
    constant: np.ndarray = np.zeros(int(self.size(self.before[name][0]) or 0))
    for source in self.before[name]:
      more, c = self.signal(source)
      paths += more
      constant = constant + c
    if kind in ("Flatten", "Output"):
      return paths, constant
    if kind == "Delay":
      return self._delayed(name, node, n, paths), constant
    if kind == "Scale":
      scale = np.broadcast_to(self._real(name, "scale").reshape(-1), n)
      each = lambda m: scale[:, None] * m
      constant = scale * constant
    else:
      weight = self._real(name, "weight")
      each = lambda m: weight @ m
      constant = weight @ constant
      if kind == "Affine":
        constant = constant + self._real(name, "bias").reshape(-1)
    made = [
      Path(p.source, {d: each(m) for d, m in p.groups.items()}) for p in paths
    ]
    return made, constant

  def _real(self, name: str, field: str) -> np.ndarray:
    node = self.nodes[name]
    value = np.asarray(getattr(node, field), np.float64)
    if not np.isfinite(value).all():
      raise ConfigError(
        f"NIR node {name} ({kind_of(node)}): {field} has values that are not"
        " finite; allowed are real numbers"
      )
    return value

  def _delayed(self, name: str, node, n: int, paths) -> list[Path]:
    """Paths behind a Delay, whose channels may differ."""
    exact = np.broadcast_to(self._real(name, "delay").reshape(-1), n) / self.dt
    if (exact < 0).any():
      raise ConfigError(
        f"NIR node {name} (Delay): a delay is {exact.min() * self.dt:g};"
        " allowed are times from 0"
      )
    steps = np.rint(exact).astype(int)
    off = float(np.abs(exact - steps).max())
    if off > 1e-6:
      self.report.lose(
        name, "Delay", f"times are rounded to steps, by up to {off:.3g} steps"
      )
    made = []
    for path in paths:
      groups: dict[int, np.ndarray] = {}
      for d, m in path.groups.items():
        for k in np.unique(steps):
          part = np.where((steps == k)[:, None], m, 0.0)
          if part.any():
            at = d + int(k)
            groups[at] = groups.get(at, 0.0) + part
      made.append(Path(path.source, groups))
    return made
