"""A NIR graph as a circuit: real numbers become integers, lags become hops.

Input, Output, Linear, Affine, Scale, Flatten and Delay; LIF, CubaLIF, IF and
Threshold; LI, CubaLI and I before an Output, and LI as the current of a neuron
that it alone feeds.  Loops, and graphs inside the graph, may occur.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import numpy as jnp

from jaxnmc._extras import need
from jaxnmc.chip.circuits import Circuit, Connection, Input, Population, run
from jaxnmc.chip.circuits.engine import State
from jaxnmc.chip.hardware import LOIHI2_FACTS
from jaxnmc.chip.neurons.arithmetic import TOP
from jaxnmc.errors import ConfigError
from jaxnmc.io.nir import cells, quantise, timing
from jaxnmc.io.nir.cells import Cell
from jaxnmc.io.nir.export_circuit import positive
from jaxnmc.io.nir.integers import Integers, Wire
from jaxnmc.io.nir.notes import Report
from jaxnmc.io.nir.wiring import Wiring, flat, kind_of

LONGEST = int(LOIHI2_FACTS["delay_max"].value or 0)
FINER = quantise.FINER

__all__ = ["Imported", "import_circuit"]


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
  """What an import gave.

  Attributes:
    circuit: to run and place.
    state: to start from, where the first voltages are not 0; else None.
    lags: population -> steps by which its messages come later than NIR's.
    outputs: Output node -> population.
    values: population -> real value of a message of 1.
    report: what the integers do not hold.
  """

  circuit: Circuit
  state: State | None
  lags: dict[str, int]
  outputs: dict[str, str]
  values: dict[str, float]
  report: Report

  def read(self, messages: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the Outputs say, from the messages of a run.

    Args:
      messages: `Run.messages`, int[steps, size] by population.

    Returns:
      Output node -> [steps - lag, size], NIR's step 0 first: messages times the
      real value of a message of 1, which for spikes is 1.
    """
    found = {}
    for node, name in self.outputs.items():
      sent = np.asarray(messages[name])[self.lags[name] :]
      value = self.values[name]
      found[node] = sent if value == 1.0 else sent * value
    return found


def import_circuit(
  graph: Any,
  *,
  dt: float | None = None,
  unit: float | None = None,
  largest: int | Mapping[str, int] | None = None,
) -> Imported:
  """A graph as a circuit.

  Args:
    graph: a `nir.NIRGraph`.
    dt: seconds of a time step; None: as the graph's metadata say, if it came
      from `export_circuit`.
    unit: real value of a weight of 1, of all populations; None: as the
      metadata say, else chosen for each (`quantise`).
    largest: the largest whole number that an Input sends, of all or by name;
      1 (spikes) where nothing says another.

  Returns:
    The circuit, and what is not the same.

  Raises:
    MissingExtra: `nir` is not installed.
    ConfigError: a node that cannot run here, shapes that do not agree, no
      Input, Output or neuron, a loop without a neuron, no dt, a parameter that
      no integer holds.
  """
  nir = need("nir", "nir", "NIR import")
  if not isinstance(graph, nir.NIRGraph):
    raise ConfigError(
      f"NIR import: found a {type(graph).__name__}; allowed is a nir.NIRGraph"
    )
  said = dict((graph.metadata or {}).get("jaxnmc", {}))
  dt = said.get("dt") if dt is None else dt
  if dt is None:
    raise ConfigError(
      "NIR import: the file does not say how long a time step is; give dt in"
      " seconds (snnTorch uses 1e-4, Norse 1e-3)"
    )
  unit = said.get("unit") if unit is None else unit
  positive("dt", dt)
  if unit is not None:
    positive("unit", unit)
  report = Report()
  nodes, edges = flat(nir, graph)
  wiring = Wiring(nodes, edges, float(dt), report)
  unknown = set(largest if isinstance(largest, Mapping) else ())
  if unknown - set(wiring.inputs):
    raise ConfigError(
      f"NIR import: largest names {', '.join(sorted(unknown))}; allowed are the"
      f" inputs {', '.join(wiring.inputs)}"
    )
  if not isinstance(largest, Mapping):
    default = {} if largest is not None else said.get("largest", {})
    every = 1 if largest is None else largest
    largest = {n: int(default.get(n, every)) for n in wiring.inputs}
  largest = {n: int(largest.get(n, 1)) for n in wiring.inputs}
  made = _Import(wiring, float(dt), unit, largest, report)
  lags = {name: int(lag) for name, lag in said.get("lags", {}).items()}
  return made.done(lags, bool(said.get("rested", False)))


class _Import:
  """One import."""

  def __init__(self, wiring: Wiring, dt, unit, largest, report: Report):
    self.wiring, self.dt = wiring, dt
    self.largest, self.report = largest, report
    self.integers = Integers(unit, largest, report)
    self.cells: dict[str, Cell] = {}
    self.wires: list[Wire] = []
    self.outputs: dict[str, str] = {}
    self.values: dict[str, float] = {}
    self.units: dict[str, float] = {}

  def done(self, start: Mapping[str, int], rested: bool) -> Imported:
    """Neurons, wires, lags, integers."""
    wiring = self.wiring
    for name, node in wiring.nodes.items():
      if kind_of(node) in cells.CELLS:
        found = cells.cell(name, node, self.dt)
        self.cells[name] = found.sized(int(wiring.size(name) or 0))
    self._currents()
    sums = self._ends()
    if not self.cells and not sums:
      raise ConfigError(
        "NIR graph: nothing is between its inputs and outputs; add a Linear or"
        " neurons"
      )
    for name in self.cells:
      self._drive(name)
    lags = self._settle(start, sums)
    populations: dict[str, Population] = {}
    connections: list[Connection] = []
    for name in [*self.cells, *sums]:
      mine = [w for w in self.wires if w.target == name]
      cell = self.cells.get(name)
      neuron, unit, value = self.integers.neuron(name, cell, mine)
      self.units[name], self.values[name] = unit, value
      populations[name] = Population(neuron, int(self.wiring.size(name) or 0))
      for wire in mine:
        connections += self.integers.connections(wire, unit)
    circuit = Circuit(
      populations,
      connections,
      {n: Input(int(wiring.size(n) or 0), m) for n, m in self.largest.items()},
    )
    # A circuit of ours has rested at its own step 0, not at that of the node.
    state = None if rested else self._first_state(circuit, lags)
    return Imported(
      *(circuit, state, {n: lags[n] for n in populations}),
      *(self.outputs, self.values, self.report),
    )

  def _currents(self) -> None:
    """An LI that feeds one neuron alone is the current of that neuron."""
    for name in list(self.cells):
      cell, after = self.cells[name], self.wiring.after[name]
      ends = [kind_of(self.wiring.nodes[a]) for a in after]
      if cell.threshold is not None or set(ends) <= {"Output"}:
        continue
      target = self.cells.get(after[0])
      if (
        len(after) != 1
        or target is None
        or (cell.ks, target.ks) != (1.0, 1.0)
        or self.wiring.before[after[0]] != [name]
        or target.kind in cells.BARE
      ):
        raise ConfigError(
          f"NIR node {name} ({cell.kind}): it sends its voltage to"
          f" {', '.join(after)}; here spikes are sent, so the voltage would be"
          " lost; allowed are an edge to an Output, or a single one to a LIF or"
          " IF that nothing else feeds"
        )
      if cell.bias.any():
        self.report.lose(
          name, cell.kind, "v_leak of a current (the voltage has none of it)"
        )
      self.cells[after[0]] = dataclasses.replace(
        target, ks=cell.km or 1.0, gain=cell.gain * target.gain
      )
      if not cell.km:
        raise ConfigError(
          f"NIR node {name} ({cell.kind}): a current without a leak never"
          " ends; give it a time constant"
        )
      self.wiring.before[after[0]] = self.wiring.before[name]
      del self.cells[name]

  def _ends(self) -> list[str]:
    """Outputs: of a population, or sums that need neurons of their own."""
    sums = []
    for name in self.wiring.outputs:
      before = self.wiring.before[name]
      if len(before) == 1 and before[0] in self.cells:
        self.outputs[name] = before[0]
        continue
      self.outputs[name] = name
      sums.append(name)
      paths, constant = self.wiring.signal(name)
      if constant.any():
        self.report.lose(
          name, "Output", "the constant that is added to what it reads"
        )
      self._wire(name, paths, np.ones(int(self.wiring.size(name) or 0)))
    return sums

  def _wire(self, target: str, paths, gain: np.ndarray) -> None:
    for path in paths:
      source = self.cells.get(path.source)
      if source is not None and source.threshold is None:
        raise ConfigError(
          f"NIR node {path.source} ({source.kind}): it sends its voltage to"
          f" {target}; here spikes are sent, so the voltage would be lost;"
          " allowed is an edge to an Output"
        )
      groups = {d: gain[:, None] * m for d, m in path.groups.items()}
      self.wires.append(Wire(path.source, target, groups))

  def _drive(self, name: str) -> None:
    """What comes into a population."""
    cell = self.cells[name]
    paths: list = []
    constant = np.zeros(len(cell.gain))
    for source in self.wiring.before[name]:
      more, c = self.wiring.signal(source)
      paths += more
      constant = constant + c
    if cell.kind in cells.BARE and cell.threshold is not None:
      cell = dataclasses.replace(cell, threshold=cell.threshold - constant)
    elif constant.any():
      if cell.ks < 1.0:
        self.report.lose(
          name,
          cell.kind,
          "the constant of an Affine goes through the current there and fills"
          " it step by step; here it is a bias, full from the first step",
        )
      bias = cell.bias + cell.gain * constant / cell.ks
      cell = dataclasses.replace(cell, bias=bias)
    self.cells[name] = self._level(cell)
    self._wire(name, paths, self.cells[name].gain)

  def _level(self, cell: Cell) -> Cell:
    """With one threshold for all: v counts in shares of it."""
    if cell.threshold is None or not np.ptp(cell.threshold):
      return cell
    if cell.kind in cells.BARE or (cell.threshold <= 0).any():
      raise ConfigError(
        f"NIR node {cell.name} ({cell.kind}): thresholds run from"
        f" {cell.threshold.min():g} to {cell.threshold.max():g}; a population"
        " has one, so the differences would be lost; use a node for each value"
      )
    top = cell.threshold.max()
    share = top / cell.threshold
    self.report.tell(
      cell.name, cell.kind, "different thresholds are factors of the weights"
    )
    return dataclasses.replace(
      cell,
      gain=cell.gain * share,
      bias=cell.bias * share,
      start=cell.start * share,
      threshold=np.full_like(share, top),
    )

  def _settle(self, start: Mapping[str, int], sums) -> dict[str, int]:
    """Lags; the groups of wires become steps of delay here."""
    for wire in self.wires:
      if not wire.groups:
        ends = wire.target, wire.source
        zero = np.zeros([int(self.wiring.size(n) or 0) for n in ends])
        wire.groups = {0: zero}
    at_once = [(w.source, w.target) for w in self.wires if 0 in w.groups]
    loops = timing.closing(sorted(self.wiring.inputs), at_once)
    for wire in self.wires:
      if (wire.source, wire.target) in loops:
        wire.groups = _at_least(wire.groups, 1)
    names = [*self.wiring.inputs, *self.cells, *sums]
    steps = {
      k: (w.source, w.target, min(w.groups)) for k, w in enumerate(self.wires)
    }
    start = {n: s for n, s in start.items() if n in names}
    lags, raised = timing.lags_here(names, steps, start)
    for k, wire in enumerate(self.wires):
      if k in raised:
        self.report.lose(
          f"{wire.source} -> {wire.target}",
          "loop",
          f"it takes {raised[k]} steps here, there {min(wire.groups)}: a loop"
          " has a step for each of its hops",
        )
        wire.groups = _at_least(wire.groups, raised[k])
      shift = lags[wire.target] - lags[wire.source] - 1
      wire.groups = {s + shift: m for s, m in sorted(wire.groups.items())}
      if max(wire.groups) > LONGEST:
        raise ConfigError(
          f"NIR graph: what {wire.source} sends has to wait"
          f" {max(wire.groups)} steps for {wire.target}; allowed are {LONGEST}"
        )
    for name in [*self.cells, *sums]:
      if lags[name]:
        self.report.tell(
          name, "lag", f"its messages come {lags[name]} steps later here"
        )
    return lags

  def _first_state(self, circuit: Circuit, lags) -> State | None:
    """Voltages from which, with no input, a bias leads to the node's first.

    In the steps of its lag a population gets nothing, but has its bias.
    """
    first: dict[str, np.ndarray] = {}
    for name, cell in self.cells.items():
      neuron: Any = circuit.populations[name].neuron
      if cell.kind in cells.BARE:
        continue
      unit = self.units[name]
      v = np.rint(cell.start * FINER / unit).astype(np.int64)
      bias = np.broadcast_to(neuron.bias, v.shape).astype(np.int64)
      keeps = quantise.ONE - neuron.dv
      top = neuron.vth << 6 if cell.threshold is not None else TOP
      good = True
      for _ in range(lags[name] if bias.any() or v.any() else 0):
        good &= bool((v <= top).all())
        v = v - bias
        v = np.sign(v) * -(-np.abs(v) * quantise.ONE // keeps)
        good &= bool((np.abs(v) <= TOP).all())
      if not good:
        self.report.lose(
          name,
          cell.kind,
          f"its bias acts {lags[name]} steps before what is step 0 there, and"
          " no first voltage makes up for it",
        )
      elif v.any():
        first[name] = v.astype(np.int32)
    if not first:
      return None
    state = run(circuit).zero_state()
    names = list(circuit.populations)
    inner = list(state.neurons)
    for name, v in first.items():
      i = names.index(name)
      inner[i] = dataclasses.replace(inner[i], v=jnp.asarray(v))
    return State(state.buffers, tuple(inner))


def _at_least(groups: dict[int, np.ndarray], least: int):
  """Groups of fewer steps join that of `least`."""
  joined: dict[int, np.ndarray] = {}
  for s, m in groups.items():
    at = max(s, least)
    joined[at] = joined[at] + m if at in joined else m
  return joined
