"""A circuit as a NIR graph: integers become real numbers, hops become lags.

With dt the time step, unit the real value of a weight of 1 (states are 6 bits
finer), and the decays of docs/neurons.md:

    dt / tau_syn = (du + 1) / 4096        dt / tau_mem = dv / 4096
    v_threshold = vth unit    v_reset = 0    bias = b unit / 64
    CubaLIF, CubaLI, LI:  R dt / tau_mem = 1,  w_in dt / tau_syn = 1
    LIF:  R = 1, and weights and bias of an Affine times tau_mem / dt
    IF, I:  R dt = 1

so a simulator that takes Euler's steps does in real numbers what the neuron
does in integers: the current decays and takes its input, then the voltage
decays and takes the current, then it fires strictly above the threshold.
"""

import dataclasses
import re
from typing import Any

import numpy as np

from jaxnmc._extras import need
from jaxnmc.chip import neurons
from jaxnmc.chip.circuits import Circuit, limits
from jaxnmc.chip.circuits.circuit import Connection
from jaxnmc.chip.neurons import checks
from jaxnmc.errors import ConfigError
from jaxnmc.io.nir import timing
from jaxnmc.io.nir.notes import Report
from jaxnmc.kernels import walk

ONE = 4096  # decays have 12 bits
FINER = 64  # states have 6 bits more than weights

__all__ = ["Exported", "export_circuit"]


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
  """What an export gave.

  Attributes:
    graph: a `nir.NIRGraph`.
    report: what NIR cannot say.
    names: our name -> name of the node.
    lags: our name -> steps by which our messages come later than NIR's.
  """

  graph: Any
  report: Report
  names: dict[str, str]
  lags: dict[str, int]


class Builder:
  """Nodes and edges under construction.

  Attributes:
    nir: the package.
    nodes: name -> node.
    edges: pairs of names.
    report: what is lost.
  """

  def __init__(self) -> None:
    self.nir = need("nir", "nir", "NIR export")
    self.nodes: dict[str, Any] = {}
    self.edges: list[tuple[str, str]] = []
    self.report = Report()

  def free(self, wanted: str) -> str:
    """A name that no node has, of letters, digits and underscores.

    HDF5 takes a slash, and PyTorch a point, as the border of a folder.
    """
    name = re.sub(r"\W", "_", wanted, flags=re.ASCII) or "node"
    taken, k = name, 1
    while taken in self.nodes:
      k += 1
      taken = f"{name}_{k}"
    return taken

  def add(self, name: str, node: Any, *sources: str) -> str:
    """Adds a node under a free name, with edges from others."""
    name = self.free(name)
    self.nodes[name] = node
    self.edges += [(source, name) for source in sources]
    return name

  def input(self, name: str, size: int) -> str:
    """Adds an input."""
    return self.add(name, self.nir.Input({"input": np.array([size])}))

  def output(self, name: str, size: int, source: str) -> str:
    """Adds an output of a node."""
    node = self.nir.Output({"output": np.array([size])})
    return self.add(name, node, source)

  def delay(self, name: str, size: int, seconds: float, source: str) -> str:
    """Adds a delay behind a node."""
    node = self.nir.Delay(delay=np.full(size, float(seconds)))
    return self.add(name, node, source)

  def linear(self, name: str, weight, bias, *sources: str) -> str:
    """Adds a Linear, or with a bias an Affine."""
    weight = np.asarray(weight, np.float64)
    if bias is None:
      return self.add(name, self.nir.Linear(weight=weight), *sources)
    node = self.nir.Affine(weight=weight, bias=np.asarray(bias, np.float64))
    return self.add(name, node, *sources)

  def graph(self, **metadata) -> Any:
    """The graph; its metadata are ours."""
    return self.nir.NIRGraph(
      self.nodes, self.edges, metadata={"jaxnmc": metadata}, type_check=False
    )


def export_circuit(
  circuit: Circuit, *, dt: float = 1e-4, unit: float = 1.0
) -> Exported:
  """The part of a circuit that NIR can say.

  Populations of `LIF`, `LeakyIntegrator`, `Threshold` and `GradedVec(vth=0)`
  become nodes, connections `Linear` (with `Delay`), biases without a current
  memory the bias of an `Affine`.  A population of another kind is cut out: an
  Input stands for what it sends, an Output for what it receives.

  Args:
    circuit: the circuit.
    dt: seconds of a time step; snnTorch's is 1e-4 and fixed, Norse takes it.
    unit: real value of a weight of 1.

  Returns:
    Graph, report, names and lags.

  Raises:
    MissingExtra: `nir` is not installed.
    ConfigError: dt or unit is not positive, or NIR has a node for none of the
      populations.
  """
  positive("dt", dt)
  positive("unit", unit)
  return _Export(circuit, dt, unit).done()


def positive(name: str, value) -> None:
  """Refuses what is no positive finite number.

  Raises:
    ConfigError: it is none.
  """
  good = isinstance(value, int | float | np.number) and np.isfinite(value)
  if not good or value <= 0:
    raise ConfigError(
      f"NIR: {name} is {value!r}; allowed are positive finite numbers"
    )


def sayable(neuron) -> bool:
  """Whether NIR has a node for a neuron."""
  if isinstance(neuron, neurons.GradedVec):
    # Its subclass rectifies, which NIR has no node for.
    return type(neuron) is neurons.GradedVec and neuron.vth == 0
  kinds = (neurons.LIF, neurons.LeakyIntegrator, neurons.Threshold)
  return isinstance(neuron, kinds)


class _Export:
  """One export."""

  def __init__(self, circuit: Circuit, dt: float, unit: float):
    self.circuit, self.dt, self.unit = circuit, float(dt), float(unit)
    self.to = Builder()
    self.report = self.to.report
    self.kept = [n for n, p in circuit.populations.items() if sayable(p.neuron)]
    if not self.kept:
      kinds = {checks.name_of(p.neuron) for p in circuit.populations.values()}
      raise ConfigError(
        "NIR export: there is no node for any population of the circuit"
        f" ({', '.join(sorted(kinds))}); NIR has LIF, LeakyIntegrator,"
        " Threshold and GradedVec(vth=0)"
      )
    # Where what arrives goes in, where messages come out, what is to be added.
    self.heads: dict[tuple[str, str], str] = {}
    self.tails: dict[tuple[str, int], str] = {}
    self.bias: dict[str, np.ndarray] = {}
    self.gain: dict[str, float] = {}  # of weights, where R of a node is 1

  def done(self) -> Exported:
    """Everything in its order: inputs, neurons, connections, outputs."""
    circuit, kept = self.circuit, set(self.kept)
    inner = [c for c in circuit.connections if c.target in kept]
    cut = [n for n in circuit.populations if n not in kept]
    inputs = [*circuit.inputs, *cut]
    fewest: dict[tuple[str, str], int] = {}
    for c in inner:
      steps = 1 + min(_by_delay(c))
      pair = c.source, c.target
      fewest[pair] = min(fewest.get(pair, steps), steps)
    self.lags = timing.lags_there(inputs, self.kept, fewest)
    for name, source in circuit.inputs.items():
      self.tails[name, 0] = self.to.input(name, source.size)
    for name in circuit.populations:
      if name in kept:
        self._population(name, any(c.target == name for c in inner))
      else:
        self._cut(name)
    for c in circuit.connections:
      self._connection(c)
    busy = {c.source for c in inner if c.source != c.target}
    ends = [n for n in self.kept if n not in busy] or self.kept
    for name in ends:
      size = circuit.populations[name].size
      self.to.output(f"{name}_out", size, self.tails[name, 0])
    names = {
      name: self.tails[name, 0] for name in [*circuit.inputs, *self.kept]
    }
    lags = {name: self.lags[name] for name in names}
    graph = self.to.graph(
      dt=self.dt,
      unit=self.unit,
      rested=1,
      lags={
        names[n]: lag for n, lag in lags.items() if n not in circuit.inputs
      },
      largest={names[n]: x.largest for n, x in circuit.inputs.items()},
    )
    return Exported(graph, self.report, names, lags)

  def _cut(self, name: str) -> None:
    """A population that stays outside."""
    kind = checks.name_of(self.circuit.populations[name].neuron)
    self.report.lose(
      name,
      kind,
      "NIR has no such node; an Input stands for what it sends, an Output for"
      " what it receives",
    )
    population = self.circuit.populations[name]
    for k, sent in enumerate(self.circuit.messages[name]):
      used = [c for c in self.circuit.connections if c.source == name]
      if any(c.output == k and c.target in self.kept for c in used):
        size = int(sent.shape[0])
        label = f"{name}_{k}" if k else name
        self.tails[name, k] = self.to.input(label, size)
    for port in population.neuron.ports:
      into = [c for c in self.circuit.connections if c.target == name]
      if any(c.port == port and self._known(c.source) for c in into):
        node = self.to.nir.Output({"output": np.array([population.size])})
        self.heads[name, port] = self.to.add(f"{name}_{port}", node)

  def _known(self, name: str) -> bool:
    return name in self.kept or name in self.circuit.inputs

  def _population(self, name: str, driven: bool) -> None:
    """The node of a population."""
    population, nir = self.circuit.populations[name], self.to.nir
    neuron, n = population.neuron, population.size
    port = neuron.ports[0]
    full = lambda x: np.full(n, float(x))
    if isinstance(neuron, neurons.Threshold):
      node = nir.Threshold(threshold=full(neuron.vth * self.unit))
      self.heads[name, port] = self.tails[name, 0] = self.to.add(name, node)
      return
    if isinstance(neuron, neurons.GradedVec):
      node = nir.Scale(scale=full(1))
      self.heads[name, port] = self.tails[name, 0] = self.to.add(name, node)
      return
    du, dv = neuron.du, neuron.dv
    fires = isinstance(neuron, neurons.LIF)
    bias = np.broadcast_to(neuron.bias, n) * (self.unit / FINER)
    leak = full(0)
    if bias.any():
      if du + 1 == ONE and driven:
        # A place that every simulator reads; v_leak is not.
        self.bias[name] = bias
      elif dv:
        leak = bias * (ONE / dv)
      else:
        self.report.lose(
          name,
          checks.name_of(neuron),
          "its bias has no place: there is no leak, and no weight without a"
          " current memory before it",
        )
        bias = full(0)
      if bias.any() and self.lags[name]:
        self.report.lose(
          name,
          checks.name_of(neuron),
          f"its bias acts from the first step, {self.lags[name]} before what"
          " is step 0 of the node; NIR cannot say a first voltage",
        )
    tau_mem = self.dt * ONE / dv if dv else 0.0
    tau_syn = self.dt * ONE / (du + 1)
    shapes: dict[str, Any] = {}
    if fires:
      shapes = {"v_threshold": full(neuron.vth * self.unit), "v_reset": full(0)}
    leaky = {"tau": full(tau_mem), "r": full(tau_mem / self.dt), "v_leak": leak}
    if dv and du + 1 < ONE:
      cuba = nir.CubaLIF if fires else nir.CubaLI
      node = cuba(
        tau_syn=full(tau_syn),
        tau_mem=full(tau_mem),
        r=full(tau_mem / self.dt),
        v_leak=leak,
        w_in=full(tau_syn / self.dt),
        **shapes,
      )
    elif dv:
      if fires:
        # Norse takes R = 1 for granted, so the weights have it.
        self.gain[name] = ONE / dv
        leaky["r"] = full(1)
      node = (nir.LIF if fires else nir.LI)(**leaky, **shapes)
    else:
      node = (nir.IF if fires else nir.I)(r=full(1 / self.dt), **shapes)
    first = None
    if not dv and du + 1 < ONE:
      current = nir.LI(
        tau=full(tau_syn), r=full(tau_syn / self.dt), v_leak=full(0)
      )
      first = self.to.add(f"{name}_current", current)
    last = self.to.add(name, node, *([first] if first else []))
    self.heads[name, port] = first or last
    self.tails[name, 0] = last
    self._widths(name, neuron)

  def _widths(self, name: str, neuron) -> None:
    """What integers do that real numbers do not."""
    kind = checks.name_of(neuron)
    if neuron.dv or neuron.du + 1 < ONE:
      self.report.lose(name, kind, "decays are rounded toward zero")
    self.report.lose(
      name, kind, "states have 24 bits: the current wraps, the voltage is held"
    )
    if isinstance(neuron, neurons.LeakyIntegrator):
      self.report.lose(
        name, kind, f"its voltage is a whole number of {self.unit / FINER:g}"
      )

  def _connection(self, c: Connection) -> None:
    """A Linear for each delay, with a Delay where the lags do not give it."""
    outside = c.target not in self.kept
    if outside and not self._known(c.source):
      return  # between two populations that stay outside
    rule, groups = c.synapse.rule, _by_delay(c)
    gain = self.gain.get(c.target, 1.0)
    factor = 2.0**rule.weight_exp * self.unit * gain / self._lsb(c.source)
    label = f"{c.source}_{c.target}"
    if rule.weight_exp < 0 and any(
      (w % (1 << -rule.weight_exp)).any() for w in groups.values()
    ):
      self.report.lose(
        str(c),
        type(c.synapse).__name__,
        f"a sum is rounded down to a multiple of {2**-rule.weight_exp} weights",
      )
    if (
      rule.num_message_bits == 0 and limits.largest(self.circuit, c.source) > 1
    ):
      self.report.lose(
        str(c),
        type(c.synapse).__name__,
        "messages other than 0 count as 1 here; Linear multiplies by them",
      )
    source, size = self.tails[c.source, c.output], c.synapse.shape[1]
    for d, weight in groups.items():
      steps = d  # the hop to what stays outside is its own
      if not outside:
        steps += 1 - (self.lags[c.target] - self.lags[c.source])
      # What a population sends to itself takes a step in every simulator.
      implied = int(c.source == c.target and steps == 1)
      start = source
      if steps > implied:
        start = self.to.delay(f"{label}_delay", size, steps * self.dt, source)
      bias = self.bias.pop(c.target, None)
      bias = None if bias is None else bias * gain
      node = self.to.linear(f"{label}_weight", weight * factor, bias, start)
      self.to.edges.append((node, self.heads[c.target, c.port or ""]))

  def _lsb(self, name: str) -> float:
    """Real value of a message of 1."""
    if name not in self.kept:
      return 1.0
    neuron = self.circuit.populations[name].neuron
    if isinstance(neuron, neurons.LeakyIntegrator):
      return self.unit / FINER
    return self.unit if isinstance(neuron, neurons.GradedVec) else 1.0


def _by_delay(c: Connection) -> dict[int, np.ndarray]:
  """Delay -> Wq of it, int32[out, in]; delays without weights left out."""
  stacked = walk.matrix(c.synapse.table)
  parts = stacked.reshape(c.synapse.depth, *c.synapse.shape)
  found = {d: w for d, w in enumerate(parts) if w.any()}
  return found or {0: parts[0]}
