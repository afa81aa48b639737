"""Steps between nodes: a hop takes one of ours and none of NIR's.

A message of a circuit arrives a step after it was sent, on every connection.
NIR has continuous time, and its simulators pass a spike on within the step,
except around a loop, where one edge takes a step.  Both agree when every
population may have a lag of its own: what NIR's node says in step t, ours says
in step t + lag.  With p the lags, a connection of k steps here takes

    k - (p(target) - p(source))

steps there, and neither side can have fewer than it must: 1 here, 0 there.
Lags are potentials of a graph with these bounds, found by Bellman and Ford's
relaxation.  Plain data, no arrays.
"""

from collections.abc import Iterable, Mapping, Sequence

Edge = tuple[str, str]

__all__ = ["closing", "lags_here", "lags_there"]


def closing(nodes: Iterable[str], edges: Iterable[Edge]) -> set[Edge]:
  """Edges that close a loop, by a depth-first search in the order of names.

  Args:
    nodes: where a search starts, in this order; then all others by name.
    edges: pairs (source, target).

  Returns:
    One edge at least of every loop; of a node with itself always that edge.
  """
  after: dict[str, list[str]] = {}
  for source, target in sorted(set(edges)):
    after.setdefault(source, []).append(target)
  found: set[Edge] = set()
  done: set[str] = set()
  for start in [*nodes, *sorted(after)]:
    path: list[tuple[str, int]] = [] if start in done else [(start, 0)]
    on_path = {start}
    while path:
      node, i = path.pop()
      following = after.get(node, [])
      if i == len(following):
        on_path.discard(node)
        done.add(node)
        continue
      path.append((node, i + 1))
      target = following[i]
      if target in on_path:
        found.add((node, target))
      elif target not in done:
        on_path.add(target)
        path.append((target, 0))
  return found


def lags_there(
  inputs: Sequence[str],
  populations: Sequence[str],
  steps: Mapping[Edge, int],
) -> dict[str, int]:
  """Lags with which no connection would need to take less than 0 steps there.

  The largest such: the fewest steps in which anything from an input, or from
  a population that no input reaches, can arrive.

  Args:
    inputs: names of inputs, of lag 0.
    populations: names of populations.
    steps: (source, target) -> the fewest steps of a connection here, from 1.

  Returns:
    name -> lag.
  """
  lag = dict.fromkeys(inputs, 0)

  def spread() -> None:
    for _ in range(len(populations) + 1):
      before = dict(lag)
      for (source, target), k in steps.items():
        if source in lag and target not in inputs:
          lag[target] = min(lag.get(target, lag[source] + k), lag[source] + k)
      if lag == before:
        return

  spread()
  for name in populations:
    if name not in lag:
      lag[name] = 0
      spread()
  return lag


def lags_here(
  names: Sequence[str],
  steps: Mapping[int, tuple[str, str, int]],
  start: Mapping[str, int],
) -> tuple[dict[str, int], dict[int, int]]:
  """Lags with which every connection can take a step here.

  Args:
    names: inputs and populations.
    steps: connection -> (source, target, steps it takes there).
    start: name -> smallest lag; 0 where not given.

  Returns:
    (name -> lag, connection -> steps it has to take there after all): the
    second has the connections of loops with fewer steps than hops.
  """
  lag = {name: start.get(name, 0) for name in names}
  held: list[tuple[str, str, int]] = []
  raised: dict[int, int] = {}
  # Those that cannot close a loop of too few steps come first: of these, an
  # edge between different nodes that takes no step there is never one.
  order = sorted(steps, key=lambda k: (steps[k][2] > 0, k))
  for key in order:
    source, target, s = steps[key]
    least = 1 + _longest(held, target, source)
    if s < least:
      raised[key] = s = int(least)
    held.append((source, target, s))
  for _ in range(len(names) + 1):
    before = dict(lag)
    for source, target, s in held:
      lag[target] = max(lag[target], lag[source] + 1 - s)
    if lag == before:
      break
  return lag, raised


def _longest(held, start: str, end: str) -> float:
  """Largest sum of 1 - steps over paths from start to end; -inf for none."""
  far = {start: 0}
  for _ in range(len(held) + 1):
    before = dict(far)
    for source, target, s in held:
      if source in far and target != start:
        new = far[source] + 1 - s
        far[target] = max(far.get(target, new), new)
    if far == before:
      break
  return far.get(end, float("-inf"))
