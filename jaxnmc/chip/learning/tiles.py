"""Learning on a placed network: each tile changes its own rows.

A tile of the last layer has the weights of its neurons, gets every message of
the layer before it, and sends its logits.  That is all that its share of the
delta rule needs, but for the few numbers of `mismatch.Shared`.  `Learner` steps
the cores through a prompt, then lets every tile learn from what reached it at
the last token, and writes the weights back, where the next prompt is computed
with them.  docs/learning.md, 6 says what of it is simulated.
"""

import dataclasses
import functools

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.engines.stepped import Stepped
from jaxnmc.chip.learning import delta, generator, head, mismatch
from jaxnmc.chip.learning.delta import Delta
from jaxnmc.chip.learning.head import Formats, Head
from jaxnmc.errors import ConfigError, PlacementError
from jaxnmc.numerics.wide import round_shift


@functools.partial(jax.jit, static_argnums=(0, 1))
def tile_step(rule: Delta, formats: Formats, held, where, z, x, target, draw):
  """One example on all tiles.

  Args:
    rule: static.
    formats: of the layer, static.
    held: (weight int8[K, n, D], bias int32[K, n] or None) of each tile.
    where: (rows int32[K, n], the row of each neuron; real bool[K, n], where
      there is a neuron; learns bool[K, n], which of them change).
    z: int32[K, n], what the neurons sent.
    x: int32[D], what reached every tile.
    target: int32[], the right row.
    draw: (key uint32[], number of the example int32[]).

  Returns:
    (held, `Counts` of int32[K]).
  """
  rows, real, learns = where
  frac = formats.logits.frac
  told = mismatch.shared(rule.error, frac, z, rows, real)
  columns = jnp.arange(x.shape[0], dtype=jnp.int32)
  factor = delta.pre(rule, formats, x)

  def tile(weight, bias, rows, learns, z):
    e = mismatch.error(
      *(rule.error, frac, rule.error_frac), z, rows, target, told
    )
    e = jnp.where(learns, e, 0)
    return delta.update(
      rule, formats, weight, bias, e, factor, draw, rows, columns
    )

  weight, bias = held
  weight, bias, counts = jax.vmap(tile)(weight, bias, rows, learns & real, z)
  return (weight, bias), counts


class Learner:
  """A placed model whose last layer learns on the cores.

  Args:
    fn: model function.
    plan: number formats.
    placement: with the layer on the chips.
    qparams: that the placement was made from.
    rule: the delta rule.
    name: of the layer, in the parameters and among the sites.
    rows: rows that learn, or None for all.
    mode: as for `loihi`.

  Attributes:
    engine: the stepped engine; its weights are those that were learnt.
    hidden: int32[D], what reached the tiles in the last example.
    step: number of the next example.

  Raises:
    ConfigError: the layer is none that can learn, or unknown rows.
    FormatError: a rate that does not fit its formats.
    PlacementError: the layer is not on the chips, in several pieces, or stored
      without its zeros.
  """

  def __init__(
    self,
    fn,
    plan,
    placement,
    qparams,
    rule: Delta,
    *,
    name: str = "head",
    rows=None,
    mode: str = "pipelined",
  ) -> None:
    net = placement.network
    self._synapse = _find(placement, name)
    self._start = head.from_model(
      plan, qparams, hidden=self._synapse.path, name=name
    )
    delta.check(rule, self._start)
    self.rule, self._qparams, self.step = rule, qparams, 0
    node = self._synapse.source
    watch = (node,) if not net.populations[self._synapse.src].host else ()
    if not watch:
      raise PlacementError(
        f"what layer {name!r} reads is computed on the host, not on a core;"
        " only what a core computed can be learnt from there"
      )
    self.engine = Stepped(fn, plan, placement, mode, watch=watch)
    machine = self.engine.machine
    route = [r.synapse.index for r in self.engine.routes].index(
      self._synapse.index
    )
    self._group = next(
      g for g, group in enumerate(machine.groups) if route in group.routes
    )
    group = machine.groups[self._group]
    pair = group.routes.index(route)
    self._row = int(self.engine.spread.groups[self._group].rows[pair])
    self._class, member = machine.where[self._synapse.dst]
    self._slot = int(self.engine.spread.classes[self._class].slots[member])
    self._where = self._places(rows)
    self._bias = self._lay(self._start.bias)
    self._const = self._bias_const() if self._bias is not None else None
    self.hidden = np.zeros(self._start.weight.shape[1], np.int32)

  # --- where things are

  @property
  def _cls(self):
    return self.engine.machine.classes[self._class]

  @property
  def tiles(self) -> int:
    """Cores' tiles that the layer is cut into."""
    return self._cls.tiles

  @property
  def messages(self) -> dict[str, int]:
    """Numbers that an example sends beyond the forward pass, by direction.

    Each tile reports its part of what `mismatch.Shared` has, and is told the
    result and the target.
    """
    shared = mismatch.SHARED[self.rule.error]
    return {"out": shared * self.tiles, "in": (shared + 1) * self.tiles}

  def _places(self, rows):
    cls, count = self._cls, self._start.weight.shape[0]
    ids = np.zeros(cls.tiles * cls.size, np.int32)
    ids[cls.place] = np.arange(count)
    learns = np.ones(count, bool)
    if rows is not None:
      chosen = np.asarray(rows)
      if (
        chosen.ndim != 1
        or not np.issubdtype(chosen.dtype, np.integer)
        or not ((chosen >= 0) & (chosen < count)).all()
      ):
        raise ConfigError(
          f"rows is {rows!r}; allowed are rows of the layer, 0 to {count - 1}"
        )
      learns = np.isin(np.arange(count), chosen)
    shape = cls.tiles, cls.size
    return (
      jnp.asarray(ids.reshape(shape)),
      jnp.asarray(cls.real),
      self._lay(learns),
    )

  def _lay(self, values):
    """Values of rows [V, ...] at their tiles: [K, n, ...]."""
    if values is None:
      return None
    cls, values = self._cls, np.asarray(values)
    out = np.zeros((cls.tiles * cls.size, *values.shape[1:]), values.dtype)
    out[cls.place] = values
    return jnp.asarray(out.reshape(cls.tiles, cls.size, *values.shape[1:]))

  def _take(self, laid) -> np.ndarray:
    """The reverse of `_lay`."""
    cls, laid = self._cls, np.asarray(laid)
    return laid.reshape(cls.tiles * cls.size, *laid.shape[2:])[cls.place]

  def _bias_const(self) -> int:
    """Which constant of the neurons the bias is."""
    net, machine = self.engine.network, self.engine.machine
    nodes = net.graph.nodes
    for i in net.populations[self._synapse.dst].nodes:
      if nodes[i].op == "add" and self._synapse.target in nodes[i].args:
        program = self._cls.program.instructions[machine.local[i]]
        for kind, index, _ in program.operands:
          if kind == "const":
            return index
    raise RuntimeError("a layer with a bias does not add one; this is a bug")

  # --- weights on the cores

  @property
  def _weight(self) -> jax.Array:
    """Weights of the tiles, int8[K, n, D], as the cores hold them."""
    held = self.engine.weights.weights[self._group]
    assert held is not None
    return held[self._row]

  @property
  def head(self) -> Head:
    """The layer, put together from what the tiles hold."""
    bias = None if self._bias is None else jnp.asarray(self._take(self._bias))
    return dataclasses.replace(
      self._start, weight=jnp.asarray(self._take(self._weight)), bias=bias
    )

  def _write(self, weight: jax.Array, bias: jax.Array | None) -> None:
    engine, group = self.engine, self._group
    weights = engine.weights
    put = lambda held, i, new: (*held[:i], new, *held[i + 1 :])
    old, tally = weights.weights[group], weights.nonzero[group]
    assert old is not None
    assert tally is not None
    # What walks are counted by: weights that are not 0, per source and tile.
    few = jnp.int8 if self._cls.size <= 127 else jnp.int32
    number = jnp.sum((weight != 0).astype(jnp.int32), axis=1).T.astype(few)
    fresh = tally.astype(few).at[self._row].set(number)
    changed = {
      "weights": put(weights.weights, group, old.at[self._row].set(weight)),
      "nonzero": put(weights.nonzero, group, fresh),
    }
    if bias is not None:
      formats = self._start.formats
      assert formats.bias is not None
      top = 2**31 - 1
      aligned = round_shift(
        bias, formats.bias.frac - formats.sum_frac, -top, top
      )
      consts = weights.consts[self._class]
      consts = consts.at[self._slot, :, self._const].set(aligned)
      changed["consts"] = put(weights.consts, self._class, consts)
      self._bias = bias
    engine.weights = dataclasses.replace(weights, **changed)

  # --- running and learning

  def __call__(self, inputs, state=None):
    """Runs the cores with the weights they have learnt, as `loihi` does."""
    return self.engine(self._qparams, inputs, state)

  def learn(self, ids, target: int, state=None):
    """Runs a prompt on the cores and learns what should follow it.

    Args:
      ids: int32[T], one prompt.
      target: the row that is right after its last token.
      state: state of an earlier call, or None.

    Returns:
      (winner before the change, `Counts` of int32[K], one per tile, counters of
      the run).

    Raises:
      TokenError: ids that the model cannot read.
      ConfigError: a target that is no row.
    """
    count = self._start.weight.shape[0]
    if not 0 <= int(target) < count:
      raise ConfigError(
        f"target is {target}; the layer has rows 0 to {count - 1}"
      )
    ids = np.asarray(ids)
    out, _, counters = self({"ids": ids}, state)
    logits = next(
      leaf
      for leaf in jax.tree.leaves(out, is_leaf=lambda x: hasattr(x, "q"))
      if leaf.q.shape[-1] == count
    )
    z = self._lay(np.asarray(logits.q)[-1])
    self.hidden = np.asarray(self.engine.tapped[self._synapse.source])[-1]
    draw = generator.key(self.rule.seed), jnp.int32(self.step)
    held, counts = tile_step(
      *(dataclasses.replace(self.rule, seed=0), self._start.formats),
      *((self._weight, self._bias), self._where, z),
      *(jnp.asarray(self.hidden), jnp.int32(target), draw),
    )
    self._write(*held)
    self.step += 1
    winner = int(np.argmax(np.asarray(logits.q)[-1]))
    return winner, jax.device_get(counts), counters


def _find(placement, name: str):
  """The one dense synapse of a layer.

  Raises:
    PlacementError: there is none on the chips, or several, or it is sparse.
  """
  net = placement.network
  nodes = net.graph.nodes
  homes = {net.home[n.id] for n in nodes if n.site == name}
  found = [s for s in net.synapses if s.dst in homes and s.kind == "dense"]
  found = [s for s in found if placement.tiles_of[s.dst]]
  if len(found) != 1:
    raise PlacementError(
      f"layer {name!r} has {len(found)} matrices on the chips; one that learns"
      " has one there: place it with head='chip', on cores that need not cut"
      " its inputs or its weights"
    )
  (synapse,) = found
  code = placement.encodings[synapse.index]
  if code.kind == "sparse":
    raise PlacementError(
      f"layer {name!r} is stored without its zeros, which could not learn;"
      " place it with encoding='dense'"
    )
  return synapse
