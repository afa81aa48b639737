"""`loihi`, engine "stepped": the placed network itself, step by step.

It is the proof that the functional engine is right: the cores know nothing of
sequences, only of neurons, accumulators and a token clock.  What the host
computes is evaluated from the values that left the chips.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.engines import arrays, checking, host, sharding, states
from jaxnmc.chip.engines import step as stepping
from jaxnmc.chip.engines.engine import Engine
from jaxnmc.chip.engines.machine import build
from jaxnmc.chip.engines.stream import Stream
from jaxnmc.chip.routing.segments import SynapseCount
from jaxnmc.chip.routing.traffic import columns
from jaxnmc.errors import PlanError


class Stepped(Engine):
  """The stepped engine of one placed model.

  Args:
    fn: model function.
    plan: number formats.
    placement: where the recorded network lies.
    mode: as for `Engine`.
    mesh: devices over which the machine is split (`chip.engines.sharding`), or
      None.
    checked: refuse what does not fit the chip (`chip.engines.checking`).
    watch: nodes on the chips that are read besides the outputs.

  Attributes:
    tapped: node -> int32[tokens, width]: what left the chips with the last
      outputs.
  """

  def __init__(
    self,
    fn,
    plan,
    placement,
    mode: str,
    mesh=None,
    checked: bool = False,
    watch: Sequence[int] = (),
  ) -> None:
    super().__init__(fn, plan, placement, mode)
    self.checked = checked
    self.tapped: dict[int, np.ndarray] = {}
    self.machine = build(placement, watch)
    self.spread = sharding.spread(self.machine, mesh, checked)
    if checked:
      checking.check_summable(self.network)
    self.weights = arrays.load(self.spread)
    self._places = _Places(self)
    off = [p.index for p in self.network.populations if not p.host]
    off = [i for i in off if i not in self.machine.where]
    self._host_nodes = [
      n.id
      for n in self.graph.nodes
      if n.op != "const" and self.network.home[n.id] in off
    ]

  def __call__(self, qparams, inputs, state=None, inject=None):
    """Steps the machine until the last token has left.

    Args:
      qparams: integer parameters the placement was made from.
      inputs: {"ids": int32[T] or [B, T]}, no mask.
      state: state of an earlier call, or None.
      inject: strictly increasing step numbers, one per token (default: by
        mode).

    Returns:
      (out, state, Counters); sequences of a batch run one after the other.

    Raises:
      TokenError: inputs that the model cannot read.
      PlanError: a mask, steps that are not strictly increasing, parameters or
        a state of another plan, or other weights.
      ChipError: checked, and something did not fit.
    """
    state = self.begin(qparams, inputs, state)
    if inputs.get("mask") is not None:
      raise PlanError(
        "the stepped engine takes no mask: cores do not get masked tokens;"
        " pass each sequence without its padding"
      )
    ids = np.asarray(inputs["ids"])
    if ids.ndim == 1:
      return self._sequence(ids, state, inject)
    pick = lambda b: jax.tree.map(lambda x: x[b], state)
    results = [
      self._sequence(row, None if state is None else pick(b), inject)
      for b, row in enumerate(ids)
    ]
    outs, ends, counters = zip(*results, strict=True)
    stack = lambda *x: jnp.stack(x)
    merged = functools.reduce(lambda a, b: a.merge(b), counters)
    return jax.tree.map(stack, *outs), jax.tree.map(stack, *ends), merged

  def _sequence(self, ids: np.ndarray, state, inject):
    stream = self._begin_stream(state)
    stream.feed(ids, inject)
    return stream.finish()

  def stream(self, qparams, state=None) -> Stream:
    """A run that the caller feeds: bursts, gaps, an early stop.

    Args:
      qparams: integer parameters the placement was made from.
      state: state of an earlier call, or None.

    Returns:
      The stream, no token in it.

    Raises:
      PlanError: parameters or a state of another plan, or other weights.
    """
    self.check_params(qparams)
    return self._begin_stream(state)

  def _begin_stream(self, state) -> Stream:
    count = 0
    if state is not None:
      count = int(states.parts(self.graph, state)[1])
    return Stream(self, self._enter(state), count)

  @property
  def device_bytes(self) -> dict[str, int]:
    """Bytes of weights and state that each device of this process holds."""
    held: dict[str, int] = {}
    for array in jax.tree.leaves((self.weights, self._enter(None))):
      for shard in array.addressable_shards:
        name = str(shard.device)
        held[name] = held.get(name, 0) + shard.data.nbytes
    return held

  # --- what a stream asks for

  def run(self, cores: arrays.State, here, feed, steps: int):
    """Steps the cores once or more.

    Args:
      cores: what the cores remember (donated).
      here: bool[S], whether a token enters.
      feed: int32[S, width], its rows.
      steps: how many of the S steps to take.

    Returns:
      (cores, `step.Seen` of NumPy arrays with a leading axis of S).
    """
    cores, seen = stepping.run_chunk(
      *(self.spread, self.checked, self.weights, cores),
      *((here, feed), np.int32(steps)),
    )
    return cores, jax.device_get(seen)

  def outputs(self, taps: list[np.ndarray], tokens: int):
    """The model's outputs, [tokens, ...], from what left the chips.

    Args:
      taps: for each tap int32[tokens, width].
      tokens: how many.
    """
    nodes = [tap.node for tap in self.machine.taps]
    self.tapped = dict(zip(nodes, taps))
    # What the host computes is compiled per length, so there are few of them.
    length = max(1, 1 << (tokens - 1).bit_length() if tokens else 1)
    values = {}
    for i, tap in enumerate(self.machine.taps):
      width = self.graph.nodes[tap.node].width
      rows = np.zeros((length, width), np.int32)
      if tokens:
        rows[:tokens] = taps[i]
      values[tap.node] = jnp.asarray(rows)
    values = host.evaluate(self.graph, self._host_nodes, values)
    out = states.outputs(self.graph, values)
    return jax.tree.map(lambda x: x[:tokens], out)

  def counted(
    self, out, each, entered: np.ndarray, inject: np.ndarray
  ) -> tuple[SynapseCount, ...]:
    """Traffic token by token.

    Args:
      out: as in `step.Seen`, of all steps.
      each: as in `step.Seen`, of all steps.
      entered: int[steps, width], 1 where the host injected a value.
      inject: step of each token.

    Returns:
      One count per route.
    """
    places = self._places
    met: dict[tuple, int] = {}
    parts = []
    for i, route in enumerate(self.routes):
      at = inject + route.synapse.depth
      if i in places.sent:
        k, slot = places.sent[i]
        sent = out[k][at, slot, : route.src.count]
        total = sent.sum(-1, keepdims=True, dtype=np.int32)
        met["out", k, slot] = int(total.sum(dtype=np.int64))
      else:
        sent = np.zeros((len(at), 0), np.int32)
        own = entered[at][:, self.machine.entries[route.synapse.source]]
        total = own.sum(-1, keepdims=True, dtype=np.int32)
      walked = None
      if i in places.rows:
        g, row = places.rows[i]
        if each[g] is not None:
          walked = each[g][at, row, : route.dst.count]
          met["each", g, row] = int(walked.sum(dtype=np.int64))
      found = columns(route, sent, total, walked)
      synapse = route.synapse
      found += [np.zeros((len(at), 0), np.int32)] * (4 - len(found))
      parts.append(SynapseCount(synapse.index, synapse.depth, *found))
    every = [x for x in (*out, *each) if x is not None]
    if sum(met.values()) != sum(int(x.sum(dtype=np.int64)) for x in every):
      raise RuntimeError(
        "the stepped machine counted events where no token was; this is a bug"
      )
    return tuple(parts)

  def check_extremes(
    self, extremes, at: np.ndarray, start: int, clock: checking.Clock
  ) -> None:
    """Refuses tokens with a message or a sum that the chip cannot hold.

    Args:
      extremes: as in `step.Seen`, of steps from `start` on.
      at: step at which each token entered.
      start: step of the first row.
      clock: where steps and tokens start.

    Raises:
      ChipError: see `checking.check_extremes`.
    """
    places, sent = self._places, len(self.spread.sent)
    rows = []
    for i, route in enumerate(self.routes):
      steps = at + route.synapse.depth - start
      messages = sums = None
      if i in places.sent:
        k, slot = places.sent[i]
        messages = extremes[k][steps, slot, : route.src.count]
      if i in places.rows:
        g, row = places.rows[i]
        sums = extremes[sent + g][steps, row, : route.dst.count]
      rows.append((messages, sums))
    checking.check_extremes(self.placement, self.routes, at, rows, clock)

  # --- state

  def _slot(self, prev: int) -> tuple[int, int, int]:
    """Class, member and state word of a `prev` node."""
    cls, member = self.machine.where[self.network.home[prev]]
    index = self.machine.classes[cls].members[member]
    return cls, member, self.network.populations[index].states.index(prev)

  def _enter(self, state) -> arrays.State:
    if state is None:
      return arrays.put_state(self.spread)
    words = [
      np.zeros(
        (len(c.members), c.tiles, len(c.program.updates), c.size), np.int32
      )
      for c in self.machine.classes
    ]
    if self.checked:
      checking.check_state(self.graph, state)
    for prev, codes in states.enter(self.graph, state)[0].items():
      c, m, word = self._slot(prev)
      cls = self.machine.classes[c]
      flat = np.zeros(cls.tiles * cls.size, np.int32)
      flat[cls.place] = codes
      words[c][m, :, word] = flat.reshape(cls.tiles, cls.size)
    return arrays.put_state(self.spread, words)

  def leave(self, cores: arrays.State, count: int):
    """The state pytree of what the cores remember, no token in them.

    Args:
      cores: the cores.
      count: tokens so far, which the host counts.
    """
    words = self.spread.fetch(cores.states)
    codes = {}
    for _, prev in states.slots(self.graph):
      c, m, word = self._slot(prev)
      cls, split = self.machine.classes[c], self.spread.classes[c]
      own = words[c][split.slots[m], : cls.tiles, word]
      codes[prev] = jnp.asarray(own.reshape(-1)[cls.place])
    return states.leave(self.graph, codes, jnp.int32(count))


class _Places:
  """Where the counts of each route are among those of a step.

  Attributes:
    sent: route -> (position in `Spread.sent`, slot of the source).
    rows: route -> (group, row).
  """

  def __init__(self, engine: Stepped) -> None:
    spread, machine = engine.spread, engine.machine
    order = {key: k for k, key in enumerate(spread.sent)}
    self.sent: dict[int, tuple[int, int]] = {}
    for i, route in enumerate(engine.routes):
      if route.synapse.src in machine.where:
        c, member, value = machine.source(route.synapse)
        slot = int(spread.classes[c].slots[member])
        self.sent[i] = order[c, value], slot
    self.rows: dict[int, tuple[int, int]] = {
      i: (g, int(row))
      for g, (group, split) in enumerate(zip(machine.groups, spread.groups))
      for i, row in zip(group.routes, split.rows)
    }
