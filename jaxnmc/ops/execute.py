"""Evaluates a recorded graph on whole sequences, layers by scan.

What lies between reading and writing a state is scanned over time; everything
else is computed for all tokens at once.  Consecutive layers that are the same
program (see `layout`) are scanned, too.
"""

import dataclasses

import jax
import numpy as np
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.kernels import pallas_recurrence, stack
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.graph import Graph
from jaxnmc.ops.layout import Layout, Op, Run, common, runs
from jaxnmc.ops.settle import settle


@struct.dataclass
class Numbers:
  """The data of a run, each with a leading axis of layers.

  Attributes:
    scalars: int32[layers, S].
    consts: int32[layers, width] each.
    layers: int32[layers], 0, 1, ...
    matrices: of all layers each; the scan over layers does not slice them.
  """

  scalars: jax.Array
  consts: tuple[jax.Array, ...]
  layers: jax.Array
  matrices: tuple[stack.Stack, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Executable:
  """A graph, ready to be evaluated.

  Attributes:
    graph: what was recorded.
    runs: its layers.
  """

  graph: Graph
  runs: tuple[Run, ...]

  def load(self) -> tuple[Numbers, ...]:
    """Puts the numbers on the device: one `Numbers` per run."""
    return tuple(_numbers(run) for run in self.runs)

  def weight_bytes(self, numbers: tuple[Numbers, ...], rows: int) -> int:
    """Bytes of all matrices in the form that so many rows are multiplied by."""
    stacks = (weights for data in numbers for weights in data.matrices)
    return sum(stack.nbytes(weights, rows) for weights in stacks)

  def kept(self, run: Run) -> list[int]:
    """Local indices that are read outside of their layer, or are outputs."""
    leaves = {leaf.node for leaf in jax.tree.leaves(self.graph.outputs)}
    found = set(run.layers[0].layout.exports)
    for layer in run.layers:
      found.update(i for i, v in enumerate(layer.nodes) if v in leaves)
    return sorted(found)


def before(run: Run, states) -> tuple[jax.Array, ...]:
  """States of all layers of a run, int32[layers, E] each."""
  return tuple(
    jnp.stack([states[layer.nodes[old]] for layer in run.layers])
    for old, _ in run.layers[0].layout.states
  )


def leave(run: Run, keep, kept, after, values: dict, fresh: dict) -> None:
  """Puts what a run computed where its readers look.

  Args:
    run: the layers.
    keep: their local indices that are kept.
    kept: of each int32[layers, T, width].
    after: of each state int32[layers, E].
    values: by node id; gets the kept ones.
    fresh: states by `prev` node id; gets the new ones.
  """
  for n, layer in enumerate(run.layers):
    for i, rows in zip(keep, kept, strict=True):
      values[layer.nodes[i]] = rows[n]
    for (old, _), new in zip(layer.layout.states, after, strict=True):
      fresh[layer.nodes[old]] = new[n]


# Results of these end a chain of element-wise instructions (`settle`).
_HEAVY = ("mul_shr", "round_shift", "sigmoid")


def executable(graph: Graph) -> Executable:
  """Prepares a graph: finds the layers that are one program."""
  return Executable(graph, tuple(runs(graph)))


def _numbers(run: Run) -> Numbers:
  consts = zip(*(layer.consts for layer in run.layers), strict=True)
  matrices = zip(*(layer.matrices for layer in run.layers), strict=True)
  return Numbers(
    jnp.asarray(run.scalars.astype(np.int32)),
    tuple(jnp.asarray(np.stack(same)) for same in consts),
    jnp.arange(len(run.layers), dtype=jnp.int32),
    tuple(stack.stack(same) for same in matrices),
  )


def _delays(layout: Layout) -> dict[int, int]:
  """States that only keep what does not depend on a loop: old -> new."""
  needs: list[set[int]] = []
  for i, op in enumerate(layout.ops):
    inputs = [needs[k] for kind, k in op.operands if kind == "local"]
    needs.append({i} if op.op == "prev" else set().union(*inputs))
  found: dict[int, int] = {}
  while True:
    more = {o: n for o, n in layout.states if needs[n] <= found.keys()}
    if more == found:
      return found
    found = more


def _cycle(layout: Layout, delays: dict[int, int]) -> set[int]:
  """Local indices between reading and writing a state that is no delay."""
  states = [(old, new) for old, new in layout.states if old not in delays]
  after: set[int] = {old for old, _ in states}
  for i, op in enumerate(layout.ops):
    if any(kind == "local" and k in after for kind, k in op.operands):
      after.add(i)
  before: set[int] = {new for _, new in states}
  for i in reversed(range(len(layout.ops))):
    if i in before:
      before |= {k for kind, k in layout.ops[i].operands if kind == "local"}
  return after & before


def _after(layout: Layout, cycle: set[int]) -> set[int]:
  """Local indices that depend on the cycle, itself left out."""
  found = set(cycle)
  for i, op in enumerate(layout.ops):
    if any(kind == "local" and k in found for kind, k in op.operands):
      found.add(i)
  return found - cycle


class _Evaluator:
  """One layer on int32[T, width] values."""

  def __init__(self, run: Run, numbers: Numbers, externals, length) -> None:
    self.layout = run.layers[0].layout
    self.numbers = numbers
    self.externals = externals
    self.length = length
    # A number that is the same in all layers stays a Python int.
    self.fixed = common(run.scalars)
    self.least = [int(c.min()) for c in run.scalars.T]
    self.alu = IntAlu()

  def scalar(self, i: int):
    fixed = self.fixed[i]
    return self.numbers.scalars[i] if fixed is None else fixed

  def apply(self, op: Op, read) -> jax.Array:
    args = [read(where) for where in op.operands]
    static = dict(op.static)
    for name, i in op.varying:
      static[name] = self.scalar(i)
      if name == "shift" and op.op in ("mul_shr", "round_shift"):
        static["least"] = self.least[i]
    if op.matrix is not None:
      weights = self.numbers.matrices[op.matrix]
      layer, bound = self.numbers.layers, static["bound"]
      return stack.product(weights, layer, args[0], bound)
    return getattr(self.alu, op.op)(*args, **static)

  def settle(self, x: jax.Array) -> jax.Array:
    """x, computed once: a value that is sent has many readers."""
    return settle(x, self.numbers.layers)

  def outside(self, where):
    kind, i = where
    if kind == "external":
      return self.externals[i]
    if kind == "const":
      return self.numbers.consts[i]
    return jnp.int32(self.scalar(i))

  def __call__(self, states):
    """(values by local index, new states) from int32[E] states."""
    layout = self.layout
    values: dict[int, jax.Array] = {}
    read = lambda w: values[w[1]] if w[0] == "local" else self.outside(w)
    delays = _delays(layout)
    cycle = _cycle(layout, delays)
    late = _after(layout, cycle)
    before = dict(zip((old for old, _ in layout.states), states))
    for i, op in enumerate(layout.ops):
      if i in delays:
        # The value, a token later.
        given = values[delays[i]]
        values[i] = jnp.concatenate([before[i][None], given[:-1]])
      elif i not in cycle and i not in late and op.op != "prev":
        values[i] = self.value(i, op, read)
    states = self._recur(layout, cycle, values, before)
    for i, op in enumerate(layout.ops):
      if i in late:
        values[i] = self.value(i, op, read)
    return values, states

  def value(self, i: int, op: Op, read) -> jax.Array:
    """The value of an instruction outside of a recurrence."""
    x = self.apply(op, read)
    heavy = op.op in _HEAVY and x.ndim == 2 and x.shape[0] > stack.FEW
    return self.settle(x) if heavy else x

  def _recur(self, layout: Layout, cycle: set[int], values, before):
    """The states after the last token; fills in the values of the cycle."""
    looped = [pair for pair in layout.states if pair[0] in cycle]
    if looped:
      self._loop(layout, cycle, values, before, looped)
    last = -1 if self.length is None else self.length - 1
    pick = lambda x: lax.dynamic_index_in_dim(x, last, keepdims=False)
    return tuple(pick(values[new]) for _, new in layout.states)

  def _loop(self, layout: Layout, cycle: set[int], values, before, looped):
    """Fills in the values of the cycle, by a scan over time."""
    inside = sorted(cycle)
    prevs = [old for old, _ in looped]
    # What the cycle reads from outside and that has a time axis.
    feeds = sorted(
      {
        where
        for i in inside
        for where in layout.ops[i].operands
        if where[0] == "external"
        or (where[0] == "local" and where[1] in values)
      }
    )
    series = [
      values[i] if kind == "local" else self.externals[i] for kind, i in feeds
    ]

    def step(carry, now):
      given = dict(zip(feeds, now, strict=True))
      here = dict(zip(prevs, carry, strict=True))

      def read(where):
        if where in given:
          return given[where]
        return here[where[1]] if where[0] == "local" else self.outside(where)

      for i in inside:
        if layout.ops[i].op != "prev":
          here[i] = self.apply(layout.ops[i], read)
      carry = tuple(here[new] for _, new in looped)
      return carry, tuple(here[i] for i in inside)

    start = tuple(before[old] for old in prevs)
    _, history = pallas_recurrence.scan(step, start, tuple(series))
    values.update(zip(inside, history, strict=True))


def execute(exe: Executable, numbers, rows, states, taps, extras, length=None):
  """Evaluates the graph on a sequence.

  Args:
    exe: prepared graph.
    numbers: `exe.load()`.
    rows: input node id -> int32[T, width], from the host.
    states: `prev` node id -> int32[E].
    taps: function (run index, {local index: int32[T, width]}, extra) ->
      pytree; its results come back stacked over the layers of the run.
    extras: per run a pytree with a leading axis of layers, for `taps`.
    length: int32[], tokens of the sequence, at least 1; rows behind them are
      padding, which no state has seen.  None: all rows are.

  Returns:
    (values, states, tapped): exported and output values by node id,
    int32[T, width]; new states by `prev` node id; the taps of each run.
  """
  values = dict(rows)
  fresh: dict[int, jax.Array] = {}
  tapped = []
  for index, (run, data) in enumerate(zip(exe.runs, numbers, strict=True)):
    keep = exe.kept(run)
    first = run.layers[0].externals
    start = [values[e] for e in first]
    chain = [k for k, link in enumerate(run.chained) if link is not None]

    # Whole stacks are no part of what the scan slices: that would copy them.
    sliced = dataclasses.replace(data, matrices=())

    def body(
      carry,
      xs,
      run=run,
      start=start,
      chain=chain,
      keep=keep,
      at=index,
      matrices=data.matrices,
    ):
      data, old, extra = xs
      data = dataclasses.replace(data, matrices=matrices)
      externals = list(start)
      for k, value in zip(chain, carry, strict=True):
        externals[k] = value
      found, after = _Evaluator(run, data, externals, length)(old)
      carry = tuple(found[run.chained[k]] for k in chain)
      return carry, (
        tuple(found[i] for i in keep),
        after,
        taps(at, found, extra),
      )

    given = before(run, states)
    carry = tuple(start[k] for k in chain)
    if len(run.layers) == 1:
      squeeze = lambda tree: jax.tree.map(lambda x: x[0], tree)
      _, out = body(carry, squeeze((sliced, given, extras[index])))
      kept, after, taken = jax.tree.map(lambda x: x[None], out)
    else:
      _, (kept, after, taken) = lax.scan(
        body, carry, (sliced, given, extras[index])
      )
    leave(run, keep, kept, after, values, fresh)
    tapped.append(taken)
  return values, fresh, tapped
