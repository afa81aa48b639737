"""Networks without a model behind them, and traffic without an engine."""

import types

import numpy as np

from jaxnmc.chip.counters import Segment, SynapseCount
from jaxnmc.chip.network import Network, Population, Port, Synapse

STEPS = 15  # of a block with fused double norms and one relay hop


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

  def population(self, name, layer, width, phases, words=4, host=False) -> int:
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

  def join(self, src, dst, kind, depth, weights=None, source=None):
    k = len(self.synapses)
    self.ports.append(Port(dst, k, kind == "relay", depth + 1))
    source = 1000 + k if source is None else source
    path = f"{self.populations[src].name}.{source}"
    self.synapses.append(
      Synapse(k, src, dst, source, path, k, kind, depth, weights=weights)
    )

  def network(self) -> Network:
    depth = max((s.depth for s in self.synapses), default=0) + 1
    graph = types.SimpleNamespace(weights="none", plan="none")
    return Network(
      *(graph, tuple(self.populations), tuple(self.synapses)),
      *(tuple(self.ports), (depth,), ()),
    )


def matmulfree(layers=24, d=1024, i=2816, vocab=32000, seed=None) -> Network:
  """The populations of the 370M model as recorded, fused double norms."""
  b = Builder()
  matrix = lambda *shape: ternary(*shape, seed)
  last, at = b.population("embed", None, d, 1, host=True), 0

  def sums(src, name, layer, depth, how_many):
    agg = b.population(name, layer, 1, 2)
    for _ in range(how_many):
      b.join(src, agg, "reduce", depth)
    b.join(agg, src, "gather", depth + 1)

  for n in range(layers):
    p = f"layers.{n}"
    r = b.population(f"{p}.out", n, d, 7, 18)
    b.join(last, r, "relay", at - 1 if n else 0)
    at = at if n else 1
    sums(r, f"{p}.attn.in_norm", n, at, 4)
    mix = b.population(f"{p}.attn.o.in", n, d, 4, 6)
    for _ in "ifg":
      b.join(r, mix, "dense", at + 2, matrix(d, d))
    sums(mix, f"{p}.attn.g_norm", n, at + 3, 2)
    sums(mix, f"{p}.attn.o.norm", n, at + 5, 2)
    b.join(mix, r, "dense", at + 7, matrix(d, d))
    sums(r, f"{p}.mlp.in_norm", n, at + 8, 4)
    glu = b.population(f"{p}.mlp.down.in", n, i, 2, 2)
    for _ in ("gate", "up"):
      b.join(r, glu, "dense", at + 10, matrix(i, d), source=500 + n)
    sums(glu, f"{p}.mlp.down.norm", n, at + 11, 2)
    b.join(glu, r, "dense", at + 13, matrix(d, i))
    last, at = r, at + STEPS
  final = b.population("final.norm", None, d, 2, 2)
  b.join(last, final, "relay", at - 1)
  sums(final, "final.sum", None, at, 4)
  head = b.population("head.out", None, vocab, 1, 0)
  b.join(final, head, "dense", at + 2, matrix(vocab, d))
  return b.network()


def traffic(placed, inject, seed=None):
  """A segment: every message sent, or a random part of them."""
  rng = np.random.default_rng(seed)
  net, tokens = placed.network, len(inject)
  rows = []
  for s, code in zip(net.synapses, placed.encodings):
    src = placed.sizes[list(placed.tiles_of[s.src])]
    dst = placed.sizes[list(placed.tiles_of[s.dst])]
    if not len(src) + len(dst):
      continue
    part = np.ones((tokens, 1)) if seed is None else rng.random((tokens, 1))
    fill = lambda values, part=part: (part * values).astype(np.int32)
    width = net.populations[s.src].width
    inc = dst if s.kind == "relay" else np.full(len(dst), width)
    stored = fill(dst * code.entries)
    rows.append(
      SynapseCount(
        *(s.index, s.depth, fill(src), fill(inc)),
        *((stored * 0.6).astype(np.int32), stored),
      )
    )
  return Segment(np.asarray(inject), tuple(rows))
