"""NIR graphs in NumPy: Euler's steps of the equations of the nodes.

Written from the docstrings of the `nir` package, node by node; shares nothing
with jaxnmc.  Edges pass a value on within the step, a Delay keeps it; what a
neuron sends around a loop without a Delay arrives in the next step.
"""

import numpy as np


def simulate(graph, inputs, dt, v0=0.0):
  """What every node says.

  Args:
    graph: nir.NIRGraph.
    inputs: Input -> float[steps, n].
    dt: seconds of a step.
    v0: first voltage of all neurons.

  Returns:
    node -> float[steps, n].
  """
  kind = {name: type(node).__name__ for name, node in graph.nodes.items()}
  before = {name: [] for name in graph.nodes}
  for a, b in graph.edges:
    before[b].append(a)

  def leads(start, end, seen=()):
    """Whether a path leads from start to end, on which nothing waits."""
    if start == end:
      return True
    following = [b for a, b in graph.edges if a == start and b not in seen]
    return kind[start] != "Delay" and any(
      leads(b, end, (*seen, start)) for b in following
    )

  around = {(a, b) for a, b in graph.edges if "IF" in kind[a] and leads(b, a)}
  steps = len(next(iter(inputs.values())))
  said = {name: [] for name in graph.nodes}
  memory = {name: {"v": v0, "i": 0.0} for name in graph.nodes}

  def edge(a, b, t):
    if (a, b) not in around:
      return value(a, t)
    return said[a][t - 1] if t else np.zeros(len(graph.nodes[b].weight.T))

  def value(name, t):
    if len(said[name]) > t:
      return said[name][t]
    node = graph.nodes[name]
    if kind[name] == "Delay":
      said[name].append(late(name, node, t))
    else:
      x = sum(edge(b, name, t) for b in before[name])
      x = np.asarray(inputs[name][t], float) if kind[name] == "Input" else x
      said[name].append(respond(node, kind[name], memory[name], x, dt))
    return said[name][t]

  def late(name, node, t):
    wait = np.rint(node.delay / dt).astype(int)
    out = np.zeros(len(wait))
    for b in before[name]:
      for k in np.unique(wait[wait <= t]):
        x = value(b, t) if k == 0 else said[b][t - k]
        out[wait == k] += x[wait == k]
    return out

  for t in range(steps):
    for name in graph.nodes:
      value(name, t)
  return {name: np.array(rows, float) for name, rows in said.items()}


def respond(node, kind, m, x, dt):
  """One node, one step."""
  if kind in ("Input", "Output", "Flatten"):
    return x
  if kind == "Linear":
    return node.weight @ x
  if kind == "Affine":
    return node.weight @ x + node.bias
  if kind == "Scale":
    return node.scale * x
  if kind == "Threshold":
    return (x > node.threshold).astype(float)
  if kind.startswith("Cuba"):
    m["i"] = m["i"] + dt / node.tau_syn * (-m["i"] + node.w_in * x)
    x, tau = m["i"], node.tau_mem
  if kind in ("IF", "I"):
    m["v"] = m["v"] + dt * node.r * x
  else:
    tau = tau if kind.startswith("Cuba") else node.tau
    m["v"] = m["v"] + dt / tau * ((node.v_leak - m["v"]) + node.r * x)
  if kind in ("LI", "CubaLI", "I"):
    return m["v"]
  spikes = m["v"] > node.v_threshold
  m["v"] = np.where(spikes, node.v_reset, m["v"])
  return spikes.astype(float)
