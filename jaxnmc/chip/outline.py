"""Networks from a model's sizes alone: populations and synapses, no weights.

`record` needs calibrated parameters, and at 370M these take a quarter of a
minute and gigabytes. Placement, time and energy need only widths, hops and
stored weights, and those follow from the sizes. The tests compare these
networks with recorded ones, population by population.
"""

import types

import numpy as np

from jaxnmc.chip.counting.counters import Segment, SynapseCount
from jaxnmc.chip.network import Network, Population, Port, Synapse
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.errors import UserError

__all__ = ["FORMULATIONS", "Builder", "matmulfree", "ternary", "traffic"]

# Norm before a matrix pair; gate norm and output norm -> what is one root.
FORMULATIONS = ("double", "fused", "gate")

# Passes of the program per step, and words of state, as recorded, of the
# populations as wide as the stream: stream, mixer, final norm. Nobody has built
# "gate": the words are those of "fused".
_STREAM = {"double": (7, 37), "fused": (5, 27), "gate": (5, 27)}
_MIXER = {"double": (3, 12), "fused": (3, 12), "gate": (2, 12)}
_FINAL = {"double": (3, 7), "fused": (2, 4), "gate": (2, 4)}


def ternary(rows: int, columns: int, seed: int | None = None) -> np.ndarray:
  """int8[rows, columns]; without a seed all ones, in no memory."""
  if seed is None:
    return np.broadcast_to(np.int8(1), (rows, columns))
  rng = np.random.default_rng(seed)
  return rng.integers(-1, 2, (rows, columns)).astype(np.int8)


class Builder:
  """Collects populations and synapses."""

  def __init__(self):
    self.populations: list[Population] = []
    self.synapses: list[Synapse] = []
    self.ports: list[Port] = []

  def population(
    self,
    name: str,
    layer: int | None,
    width: int,
    phases: int,
    words: int = 4,
    host: bool = False,
  ) -> int:
    """Adds a population.

    Args:
      name: its name.
      layer: layer index, or None.
      width: number of neurons.
      phases: passes of its program per time step.
      words: words of state of a neuron, ports included.
      host: computed on the host.

    Returns:
      Its index.
    """
    index = len(self.populations)
    role = name if layer is None else name.replace(f".{layer}.", ".*.", 1)
    fifos = (("node", 0, words),) if words else ()
    self.populations.append(
      Population(
        *(index, name, role, layer, width, (), (), fifos, ()),
        *(tuple(range(phases)), host),
      )
    )
    return index

  def join(
    self,
    src: int,
    dst: int,
    kind: str,
    depth: int,
    weights: np.ndarray | None = None,
    source: int | None = None,
  ) -> None:
    """Adds a synapse with a port of its own.

    Args:
      src: index of the source population.
      dst: index of the target population.
      kind: `dense`, `reduce`, `gather` or `relay`.
      depth: of the source value.
      weights: int8[dst width, src width] of a dense one.
      source: id of the value that is sent; equal ids are one message.
    """
    k = len(self.synapses)
    self.ports.append(Port(dst, k, kind == "relay", depth + 1))
    source = 1000 + k if source is None else source
    path = f"{self.populations[src].name}.{source}"
    self.synapses.append(
      Synapse(k, src, dst, source, path, k, kind, depth, weights=weights)
    )

  def network(self) -> Network:
    """What was collected."""
    depth = max((s.depth for s in self.synapses), default=0) + 1
    graph = types.SimpleNamespace(weights="none", plan="none")
    return Network(
      *(graph, tuple(self.populations), tuple(self.synapses)),  # type: ignore
      *(tuple(self.ports), (depth,), ()),
    )


def matmulfree(
  layers: int = 24,
  d: int = 1024,
  i: int = 2816,
  vocab: int = 32000,
  seed: int | None = None,
  norm: str = "fused",
) -> Network:
  """A MatMul-free language model.

  Args:
    layers: blocks.
    d: width of the stream.
    i: width of the GLU.
    vocab: tokens.
    seed: of random ternary weights; None: all ones, in no memory.
    norm: `double`: every norm has a root of its own; `fused`: two norms in a
      row have one; `gate`: also the gate norm and the output norm, which is
      not among the formulations of `models.matmulfree`.

  Returns:
    The network, as `record` and `network` give it but for weights, programs
    and names.

  Raises:
    UserError: unknown formulation.
  """
  if norm not in FORMULATIONS:
    raise UserError(f"norm={norm!r} must be one of {FORMULATIONS}")
  b = Builder()
  matrix = lambda rows, columns: ternary(rows, columns, seed)
  last, at = b.population("embed", None, d, 1, 0, host=True), 0

  def roots(src, name, layer, depth, twice, one):
    """Norms before a matrix; returns the depth of their result.

    A norm sends squares in two parts, a norm fused of two sends both sums.
    """
    parts = [4] if twice and one else [2, 2] if twice else [2]
    for k, sums in enumerate(parts):
      agg = b.population(f"{name}{k or ''}", layer, 1, 1, sums)
      for _ in range(sums):
        b.join(src, agg, "reduce", depth)
      b.join(agg, src, "gather", depth + 1)
      depth += 2
    return depth

  one = norm != "double"
  for n in range(layers):
    p = f"layers.{n}"
    r = b.population(f"{p}.out", n, d, *_STREAM[norm])
    b.join(last, r, "relay", at - 1 if n else 0)
    at = roots(r, f"{p}.attn.in_norm", n, at if n else 1, True, one)
    mix = b.population(f"{p}.attn.o.in", n, d, *_MIXER[norm])
    for _ in "ifg":
      b.join(r, mix, "dense", at, matrix(d, d))
    at = roots(mix, f"{p}.attn.o.norm", n, at + 1, True, norm == "gate")
    b.join(mix, r, "dense", at, matrix(d, d))
    at = roots(r, f"{p}.mlp.in_norm", n, at + 1, True, one)
    glu = b.population(f"{p}.mlp.down.in", n, i, 2, 5)
    for _ in ("gate", "up"):
      b.join(r, glu, "dense", at, matrix(i, d), source=500 + n)
    at = roots(glu, f"{p}.mlp.down.norm", n, at + 1, False, one)
    b.join(glu, r, "dense", at, matrix(d, i))
    last, at = r, at + 2
  final = b.population("final.norm", None, d, *_FINAL[norm])
  b.join(last, final, "relay", at - 1)
  at = roots(final, "final.sum", None, at, True, one)
  head = b.population("head.out", None, vocab, 1, 1)
  b.join(final, head, "dense", at, matrix(vocab, d))
  return b.network()


def traffic(
  placed: Placement, inject, seed: int | None = None, share: float = 1.0
) -> Segment:
  """Traffic of tokens without an engine.

  Args:
    placed: where the neurons are.
    inject: step in which each token enters, rising, int[T].
    seed: a random part of the messages of each value and token is sent;
      None: the same part of all.
    share: that part.

  Returns:
    The segment; 60 % of the walked weights are counted as not zero.
  """
  rng = np.random.default_rng(seed)
  net, tokens = placed.network, len(inject)
  parts: dict[int, np.ndarray] = {}
  rows = []
  for s, code in zip(net.synapses, placed.encodings):
    src = placed.sizes[list(placed.tiles_of[s.src])]
    dst = placed.sizes[list(placed.tiles_of[s.dst])]
    if not len(src) + len(dst):
      continue
    if s.source not in parts:
      same = np.full((tokens, 1), share)
      parts[s.source] = same if seed is None else rng.random((tokens, 1))
    part = parts[s.source]
    fill = lambda values, part=part: (part * values).astype(np.int32)
    # Whole messages before each neuron, so that both ends of a relay agree.
    sent = lambda sizes, part=part: np.diff(
      (part * np.cumsum([0, *sizes])).astype(np.int32), axis=1
    )
    width = net.populations[s.src].width
    wide = fill(np.full(len(dst), width))
    inc = sent(dst) if s.kind == "relay" else wide
    stored = fill(dst * code.entries)
    rows.append(
      SynapseCount(
        *(s.index, s.depth, sent(src), inc),
        *((stored * 0.6).astype(np.int32), stored),
      )
    )
  return Segment(np.asarray(inject), tuple(rows))
