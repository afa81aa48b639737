"""Which population fires at which time step.

A value of depth d of token n is sent in step inject[n] + d. Pipelined, a token
enters in every step and all depths are busy; in fall-through mode the next one
enters when the last one has left, and one depth is busy at a time (Abreu et al.
2025, A.1.1 and Fig. 3). The network alone says all of this: it needs no run.
"""

import dataclasses

import numpy as np

from jaxnmc.chip.network import Network, Synapse
from jaxnmc.errors import UserError

__all__ = ["MODES", "Firing", "blocks", "firings", "injections", "occupancy"]

MODES = ("pipelined", "fall-through")


@dataclasses.dataclass(frozen=True)
class Firing:
  """What a population sends at one depth.

  Attributes:
    depth: steps after the token's injection.
    layer: layer of the population, or None.
    step: steps after the token came to this layer; outside of the layers after
      its injection (host) or after it left the last layer (head).
    population: its name.
    role: the name with the layer index replaced by `*`.
    values: names of the values sent, in order of the network.
    messages: messages per token, if no value is zero.
    targets: roles of the populations that read them.
  """

  depth: int
  layer: int | None
  step: int
  population: str
  role: str
  values: tuple[str, ...]
  messages: int
  targets: tuple[str, ...]


def firings(net: Network) -> tuple[Firing, ...]:
  """What is sent, in order of depth; at the end what leaves the network."""
  starts = net.layer_starts
  after = net.head_start
  groups: dict[tuple[int, int], list[Synapse]] = {}
  for synapse in net.synapses:
    groups.setdefault((synapse.depth, synapse.src), []).append(synapse)
  found = []
  for (depth, src), synapses in sorted(groups.items()):
    p = net.populations[src]
    start = 0
    if p.layer is not None:
      start = starts.get(p.layer, 0)
    elif not p.host and after is not None:
      start = after
    values = dict.fromkeys((s.source, s.path) for s in synapses)
    targets = dict.fromkeys(net.populations[s.dst].role for s in synapses)
    found.append(
      Firing(
        *(depth, p.layer, depth - start, p.name, p.role),
        tuple(path for _, path in values),
        len(values) * p.width,
        tuple(targets),
      )
    )
  read = {synapse.src for synapse in net.synapses}
  end = net.steps_per_token - 1
  for p in net.populations:
    if p.index not in read:
      step = end - (after or 0)
      to = ("host",)
      found.append(
        Firing(end, p.layer, step, p.name, p.role, (p.name,), p.width, to)
      )
  return tuple(found)


def blocks(net: Network) -> list[tuple[list[int], list[Firing]]]:
  """Layers that fire alike, with the schedule of the first of them.

  Returns:
    Pairs (layers, firings), in order of the first layer; what has no layer is
    left out.
  """
  by_layer: dict[int, list[Firing]] = {}
  for firing in firings(net):
    if firing.layer is not None:
      by_layer.setdefault(firing.layer, []).append(firing)
  alike: dict[tuple, list[int]] = {}
  for layer in sorted(by_layer):
    key = tuple(
      (f.step, f.role, len(f.values), f.messages) for f in by_layer[layer]
    )
    alike.setdefault(key, []).append(layer)
  return [(layers, by_layer[layers[0]]) for layers in alike.values()]


def injections(net: Network, mode: str, tokens: int) -> np.ndarray:
  """Step in which each token enters: int64[tokens].

  Raises:
    UserError: no such mode.
  """
  if mode not in MODES:
    raise UserError(f"mode must be one of {MODES}, not {mode!r}")
  stride = 1 if mode == "pipelined" else net.steps_per_token
  return np.arange(tokens, dtype=np.int64) * stride


def occupancy(
  net: Network, mode: str, steps: int, most: int | None = None
) -> np.ndarray:
  """Which token is at which depth in each step: int64[depths, steps].

  -1 where there is none. Tokens enter as long as there are steps; `most` leaves
  out later depths.

  Raises:
    UserError: no such mode.
  """
  depths = min(net.steps_per_token, most or net.steps_per_token)
  stride = int(injections(net, mode, 2)[1])
  inject = np.arange(steps)[None, :] - np.arange(depths)[:, None]
  here = (inject >= 0) & (inject % stride == 0)
  return np.where(here, inject // stride, -1)
