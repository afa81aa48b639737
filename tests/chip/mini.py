"""Small networks that are not the language model: quick to compile.

A layer of width n reads its input by two ternary matrices, keeps a gated sum,
and sends the sigmoid of an accumulator, which is not 0 where nothing came in.
"""

import dataclasses
import functools

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.models.inputs import token_check

VOCAB = 12
EMPTY = 0  # a token whose embedding is zero: nothing is sent


@struct.dataclass
class Out:
  y: jax.Array


def _recurrence(ops, carry, now):
  keep, u = now
  h = ops.site("h", ops.add(ops.mul(keep, carry), u), align="u")
  return h, h


def make(layers: int):
  """The network as a pure function."""

  def product(ops, name, weight, x):
    with ops.at(name):
      x = ops.act_quant("act", x)
      return ops.site("out", ops.linear("weight", weight, x))

  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"]["weight"], inputs["ids"])
    ends = []
    for k, p in enumerate(params["layers"]):
      before = None if state is None else state[k]
      with ops.layer(k):
        keep = ops.site("keep", ops.sigmoid(product(ops, "f", p["f"], x)))
        u = ops.site("u", product(ops, "i", p["i"], x))
        init = ops.zeros(u) if before is None else before
        end, h = ops.scan("cell", _recurrence, init, (keep, u))
        # A gate goes on to a matrix, and it is not 0 where nothing came in.
        gate = ops.site("gate", ops.sigmoid(product(ops, "g", p["g"], keep)))
        gate = product(ops, "o", p["o"], gate)
        x = ops.site("out", ops.add(ops.add(gate, h), x))
      ends.append(end)
    return Out(product(ops, "head", params["head"], x)), ends

  fn.check_inputs = token_check(VOCAB)
  return fn


@dataclasses.dataclass(frozen=True, eq=False)
class Mini:
  """A network with its truth: everything but a placement."""

  fn: object
  plan: object
  qparams: object
  graph: object
  fixed: object

  def loihi(self, placement, **options):
    return nmc.loihi(self.fn, self.plan, placement, **options)


@functools.cache
def mini(layers: int, width: int, seed: int = 0) -> Mini:
  """A random network; token `EMPTY` sends nothing."""
  draw = np.random.default_rng([seed, layers, width])

  def matrix(rows, columns):
    weight = draw.normal(size=(rows, columns)) / columns**0.5
    return jnp.asarray(weight, jnp.float32)

  embed = width**0.5 * matrix(VOCAB, width).at[EMPTY].set(0)
  params = {
    "embed": {"weight": embed},
    "layers": [
      {name: matrix(width, width) for name in "figo"} for _ in range(layers)
    ],
    "head": matrix(5, width),
  }
  fn = make(layers)
  ids = draw.integers(0, VOCAB, (4, 16)).astype(np.int32)
  stats = nmc.calibrate(fn)(params, [ids])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  return Mini(fn, plan, qparams, graph, jax.jit(nmc.fixed(fn, plan)))


def recut(placement, size: int):
  """The same neurons on the same chips, in tiles of `size` neurons."""
  pops = placement.network.populations
  per, tiles = placement.hardware.cores_per_chip, []
  for mine, population in zip(placement.tiles_of, pops):
    for at, start in enumerate(range(0, population.width, size)):
      if len(mine):
        tile = placement.tiles[mine[min(at, len(mine) - 1)]]
        stop = min(start + size, population.width)
        core = (tile.core + at) % per
        tiles.append(
          dataclasses.replace(tile, start=start, stop=stop, core=core)
        )
  return dataclasses.replace(placement, tiles=tuple(tiles))
