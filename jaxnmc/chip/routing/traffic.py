"""What a step's messages cost: counts per synapse and tile.

Zero is not sent.  For a source vector x, `nz = (x != 0)`, and per tile

    out    = messages sent                         (tiles of the source)
    inc    = messages received                     (tiles of the target)
    stored = synapse entries walked for them
    synops = entries walked whose weight is not zero

Circuits are counted so as it stands, and `stepped` from the messages and walks
that it saw; `functional` measures few of these numbers, from which the others
follow by the same rules (`probes`).
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip.network import Synapse


@dataclasses.dataclass(frozen=True, eq=False)
class Tiling:
  """How one population is cut.

  Attributes:
    starts: first neuron of each tile, int64[tiles].
    sizes: neurons of each tile, int64[tiles].
  """

  starts: np.ndarray
  sizes: np.ndarray

  @property
  def count(self) -> int:
    """Number of tiles; 0 for a population on the host."""
    return len(self.sizes)

  @property
  def key(self) -> tuple[int, ...]:
    """Hashable form of the cut."""
    return tuple(int(n) for n in self.sizes)


def tilings(placement) -> tuple[Tiling, ...]:
  """The cut of every population of `placement.network`, in order."""
  result = []
  for mine in placement.tiles_of:
    tiles = placement.tiles[mine.start : mine.stop]
    starts = np.array([t.start for t in tiles], np.int64)
    sizes = np.array([t.width for t in tiles], np.int64)
    result.append(Tiling(starts, sizes))
  return tuple(result)


@dataclasses.dataclass(frozen=True, eq=False)
class Route:
  """A synapse with the cuts of both its ends.

  Attributes:
    synapse: the synapse.
    src: tiling of the source population.
    dst: tiling of the target population.
    sparse: only non-zero weights are stored.
  """

  synapse: Synapse
  src: Tiling
  dst: Tiling
  sparse: bool

  @property
  def columns(self) -> int:
    """Length of one row of counts: out, inc, synops, stored."""
    return self.src.count + 3 * self.dst.count


def routes(placement) -> tuple[Route, ...]:
  """All synapses with at least one end on the chips."""
  cuts = tilings(placement)
  pairs = [
    Route(s, cuts[s.src], cuts[s.dst], code.kind == "sparse")
    for s, code in zip(
      placement.network.synapses, placement.encodings, strict=True
    )
  ]
  return tuple(r for r in pairs if r.columns)


def nonzero_per_tile(route: Route) -> np.ndarray | None:
  """Non-zero weights of each source per target tile, int[src, tiles].

  Only for a dense synapse onto chips; stored in int8 where it fits, because
  int8 products are fast.
  """
  weights = route.synapse.weights
  if weights is None or not route.dst.count:
    return None
  counts = np.add.reduceat(
    np.asarray(weights) != 0, route.dst.starts, axis=0, dtype=np.int16
  ).T
  if counts.max(initial=0) <= 127:
    return np.ascontiguousarray(counts, np.int8)
  return np.ascontiguousarray(counts, np.int32)


def nonzero(routes: Sequence[Route]) -> np.ndarray | None:
  """`nonzero_per_tile` of routes that run as one: [routes, src, tiles].

  int8 where all of them are, else int32; None for other than dense ones.
  """
  each = [nonzero_per_tile(route) for route in routes]
  found = [counts for counts in each if counts is not None]
  return np.stack(found) if found else None


def _per_tile(nz: jax.Array, cut: Tiling) -> jax.Array:
  """Sums of int32[..., width] over each tile, int32[..., tiles]."""
  if not cut.count:
    return jnp.zeros((*nz.shape[:-1], 0), jnp.int32)
  return jnp.sum(split_tiles(nz, cut), axis=-1, dtype=jnp.int32)


def split_tiles(x: jax.Array, cut: Tiling) -> jax.Array:
  """int32[..., width] -> [..., tiles, neurons of the largest], zero-padded."""
  # Tiles are equal but for the last one, so padding makes them rows.
  size = int(cut.sizes[0])
  spare = cut.count * size - x.shape[-1]
  x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, spare)])
  return x.reshape(*x.shape[:-1], cut.count, size)


def count(route: Route, x: jax.Array, dense: jax.Array | None) -> jax.Array:
  """Counts of the messages of a source.

  Args:
    route: the synapse.
    x: int32[..., src width], the values sent (0 where nothing is sent).
    dense: `nonzero_per_tile(route)`.

  Returns:
    int32[..., columns]: out, inc, synops and stored, concatenated.
  """
  nz = (x != 0).astype(jnp.int32)
  total = jnp.sum(nz, axis=-1, keepdims=True, dtype=jnp.int32)
  each = None
  if route.dst.count and route.synapse.kind == "relay":
    each = _per_tile(nz, route.dst)
  elif dense is not None:
    each = synops(nz, dense)
  parts = columns(route, _per_tile(nz, route.src), total, each)
  return jnp.concatenate(parts, axis=-1)


def columns(route: Route, out, total, each) -> list:
  """All counts of a synapse from those that depend on where zeros are.

  Args:
    route: the synapse.
    out: int[..., source tiles], messages sent.
    total: int[..., 1], their sum.
    each: int[..., target tiles]: of a relay the messages that arrive, of a
      dense synapse the entries walked that are not zero; else None.

  Returns:
    [out, inc, synops, stored], NumPy or JAX arrays as they came in; only out
    if the target is on the host.
  """
  if not route.dst.count:
    return [out]
  sizes = route.dst.sizes.astype(np.int32)
  inc = total * np.ones_like(sizes)
  kind = route.synapse.kind
  if kind == "relay":
    return [out, each, each, each]
  if kind == "dense":
    return [out, inc, each, each if route.sparse else total * sizes]
  # One source to all (gather), or all to one (reduce): no weight is zero.
  return [out, inc, total * sizes, total * sizes]


def synops(nz: jax.Array, dense: jax.Array) -> jax.Array:
  """Entries walked that are not zero, int32[..., tiles].

  Args:
    nz: int32[..., src], 1 where a message was sent.
    dense: `nonzero_per_tile`.
  """
  rows = nz.reshape(-1, nz.shape[-1]).astype(dense.dtype)
  if rows.shape[0] == 1:
    # One row leaves the fast path of int8 products on CPU.
    rows = jnp.concatenate([rows, jnp.zeros_like(rows)])
  out = lax.dot_general(
    rows, dense, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32
  )
  out = out[: max(1, nz.size // nz.shape[-1])]
  return out.reshape(*nz.shape[:-1], dense.shape[-1])
