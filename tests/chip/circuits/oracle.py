"""A circuit in Python's integers, written from docs/circuits.md."""

from tests.chip.neurons import rules


def simulate(populations, connections, inputs, steps):
  """Messages of every population and step.

  Args:
    populations: name -> (rule, parameters, states, size); parameters that are
      lists have one value per neuron.
    connections: (source, target, port, weights int[out][in], delays or None,
      exp, binary), weights as the chip keeps them.
    inputs: name -> int[steps][size].
    steps: number of steps.

  Returns:
    {name: int[steps][size]}.
  """
  sent = {name: [] for name in populations} | {n: [] for n in inputs}
  inner = {
    name: [(0,) * states for _ in range(size)]
    for name, (_, _, states, size) in populations.items()
  }
  for t in range(steps):
    arrived = {}
    for source, target, port, weights, delays, exp, binary in connections:
      sums = arrived.setdefault((target, port), [0] * len(weights))
      for i, row in enumerate(weights):
        for d in sorted({0} | {x for r in delays or [] for x in r}):
          # What was sent in step t - 1 - d arrives now.
          if t - 1 - d < 0:
            continue
          total = 0
          for j, w in enumerate(row):
            if (delays[i][j] if delays else 0) == d:
              s = sent[source][t - 1 - d][j]
              total += w * (int(s != 0) if binary else s)
          sums[i] += total << exp if exp > 0 else total >> -exp
    for name, values in inputs.items():
      sent[name].append([int(x) for x in values[t]])
    for name, (rule, parameters, _, size) in populations.items():
      row = []
      ports = sorted({p for (n, p) in arrived if n == name})
      ports = range(max([*ports, 0]) + 1)
      for i in range(size):
        mine = {
          k: v[i] if isinstance(v, list) else v for k, v in parameters.items()
        }
        x = tuple(arrived.get((name, p), [0] * size)[i] for p in ports)
        inner[name][i], message = rule(inner[name][i], x, **mine)
        row.append(message)
      sent[name].append(row)
  return {name: sent[name] for name in populations}


RULES = {
  "LIF": (rules.lif, 2),
  "SigmaDelta": (rules.sigma_delta, 4),
  "ProdNeuron": (rules.product, 0),
  "GradedVec": (rules.graded, 0),
}
