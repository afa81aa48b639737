"""`loihi`, engine "stepped": the placed network itself, step by step.

It is the proof that the functional engine is right: the cores know nothing of
sequences, only of neurons, accumulators and a token clock.  What the host
computes is evaluated from the values that left the chips.
"""

import dataclasses
import functools

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip import host, states
from jaxnmc.chip import step as stepping
from jaxnmc.chip.counters import Counters, Segment
from jaxnmc.chip.engine import Engine
from jaxnmc.chip.machine import build
from jaxnmc.errors import PlanError

CHUNK = 64


class Stepped(Engine):
  """The stepped engine of one placed model; arguments as for `Engine`."""

  def __init__(self, fn, plan, placement, mode: str) -> None:
    super().__init__(fn, plan, placement, mode)
    self.machine = build(placement)
    self.weights = stepping.load(self.machine)
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
    inject = self._checked(inject, len(ids))
    rows = np.asarray(host.rows(self.graph, ids))
    steps = int(inject[-1]) + self.machine.last + 1
    taps, counts, cores = self.run(rows, inject, steps, self._enter(state))
    values = {
      tap.node: jnp.asarray(taps[i][inject + tap.depth])
      for i, tap in enumerate(self.machine.taps)
    }
    values = host.evaluate(self.graph, self._host_nodes, values)
    out = states.outputs(self.graph, values)
    counters = self._counters(inject, counts)
    return out, self._leave(cores), counters

  def _checked(self, inject, tokens: int) -> np.ndarray:
    if inject is None:
      return self.default_inject(tokens)
    inject = np.asarray(inject, np.int64)
    if inject.shape != (tokens,) or (inject < 0).any():
      raise PlanError(
        f"inject needs {tokens} non-negative steps, one per token; found shape"
        f" {list(inject.shape)}"
      )
    if (np.diff(inject) < 1).any():
      at = int(np.argmax(np.diff(inject) < 1))
      raise PlanError(
        "inject must be strictly increasing (one token per step); steps"
        f" {inject[at]} and {inject[at + 1]} of tokens {at} and {at + 1} are"
        " not"
      )
    return inject

  def run(self, rows: np.ndarray, inject: np.ndarray, steps: int, cores):
    """Steps the cores.

    Args:
      rows: int32[T, width], what the host injects.
      inject: step of each row.
      steps: number of steps.
      cores: `step.State` before the first step (donated).

    Returns:
      (taps, counts, cores): for each tap int32[steps, width]; counts
      int32[steps, columns] in the order of `machine.routes`.
    """
    here = np.zeros(steps + CHUNK, bool)
    here[inject] = True
    feed = np.zeros((steps + CHUNK, rows.shape[1]), np.int32)
    feed[inject] = rows
    taps, counts = [], []
    at = 0
    while at < steps:
      # Whole chunks: one compiled program for any length.  Steps past the
      # end change no state, because no token is there, and are cut off.
      part = slice(at, at + CHUNK)
      cores, (tap, count) = stepping.run_chunk(
        self.machine,
        self.weights,
        cores,
        (jnp.asarray(here[part]), jnp.asarray(feed[part])),
      )
      taps.append([np.asarray(t) for t in tap])
      flat = [np.asarray(c) for c in count]
      counts.append(self._ordered(flat))
      at += CHUNK
    columns = zip(*taps, strict=True)
    return (
      [np.concatenate(c)[:steps] for c in columns],
      np.concatenate(counts)[:steps],
      cores,
    )

  def _ordered(self, blocks: list[np.ndarray]) -> np.ndarray:
    """Rows of counts in the order of the routes, [S, columns]."""
    rows: dict[int, np.ndarray] = {}
    order = iter(stepping.count_order(self.machine))
    for block in blocks:
      for p in range(block.shape[1]):
        rows[next(order)] = block[:, p]
    return np.concatenate([rows[i] for i in sorted(rows)], axis=-1)

  def _counters(self, inject, counts: np.ndarray) -> Counters:
    at, parts = 0, []
    for route in self.routes:
      steps = inject + route.synapse.depth
      parts.append(counts[steps, at : at + route.columns])
      at += route.columns
    rows = np.concatenate(parts, axis=-1)
    if int(rows.sum(dtype=np.int64)) != int(counts.sum(dtype=np.int64)):
      raise RuntimeError(
        "the stepped machine counted events where no token was; this is a bug"
      )
    segment = Segment(inject, self.split(rows))
    return self.fold((segment,))

  # --- state

  def _slot(self, prev: int) -> tuple[int, int, int]:
    """Class, member and state word of a `prev` node."""
    cls, member = self.machine.where[self.network.home[prev]]
    index = self.machine.classes[cls].members[member]
    return cls, member, self.network.populations[index].states.index(prev)

  def _enter(self, state) -> stepping.State:
    cores = stepping.zero_state(self.machine)
    if state is None:
      return cores
    arrays = list(cores.states)
    for prev, codes in states.enter(self.graph, state).items():
      c, m, word = self._slot(prev)
      cls = self.machine.classes[c]
      flat = jnp.zeros(cls.tiles * cls.size, jnp.int32)
      flat = flat.at[cls.place].set(codes)
      tiled = flat.reshape(cls.tiles, cls.size)
      arrays[c] = arrays[c].at[m, :, word].set(tiled)
    return dataclasses.replace(cores, states=tuple(arrays))

  def _leave(self, cores: stepping.State):
    codes = {}
    for _, prev in states.slots(self.graph):
      c, m, word = self._slot(prev)
      place = self.machine.classes[c].place
      codes[prev] = cores.states[c][m, :, word].reshape(-1)[place]
    return states.leave(self.graph, codes)
