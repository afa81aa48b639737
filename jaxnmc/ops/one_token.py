"""Evaluates a recorded graph on one token by the native interpreter.

What `execute` does with one row, in one call per run of layers: the layout of a
layer is written as a `kernels.program`, whose instructions are those of
`ops.alu` by their names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxnmc.kernels import native, program, tally
from jaxnmc.kernels.ternary import MAX_ONE_PLANE
from jaxnmc.ops.execute import Executable, Numbers, before, leave
from jaxnmc.ops.layout import Layout, Op, Run


def possible(exe: Executable, numbers: Sequence[Numbers]) -> bool:
  """Whether the interpreter knows all of a graph.

  Its products are ternary: a graph with 8-bit weights takes `execute`.

  Args:
    exe: prepared graph.
    numbers: `exe.load()`.
  """
  if not native.available():
    return False
  known = set(native.instructions())
  layouts = [run.layers[0].layout for run in exe.runs]
  stacks = (weights for data in numbers for weights in data.matrices)
  return all(op.op in known for lay in layouts for op in lay.ops) and all(
    weights.packed is not None for weights in stacks
  )


def _reads(op: Op) -> list[int]:
  """Local values that an instruction reads."""
  return [i for kind, i in op.operands if kind == "local"]


def _schedule(layout: Layout) -> list[list[int]]:
  """Order of evaluation: one instruction each, or products ready together.

  A product waits until nothing else can be done, so that those which share
  their input, or are fed by values of one time, stand together.
  """
  left, done = list(range(len(layout.ops))), set[int]()
  order: list[list[int]] = []
  while left:
    ready = [i for i in left if done.issuperset(_reads(layout.ops[i]))]
    light = [i for i in ready if layout.ops[i].op != "dense"]
    # In order, so that a value is read soon after it was computed.
    order += [[light[0]]] if light else [ready]
    done.update(order[-1])
    left = [i for i in left if i not in done]
  return order


class _Writer:
  """Writes the program of a run."""

  def __init__(
    self, run: Run, keep: Sequence[int], cuts: Mapping[int, np.ndarray]
  ) -> None:
    self.run, self.layout = run, run.layers[0].layout
    self.keep, self.cuts = list(keep), dict(cuts)
    self.to = program.Assembler()
    self.values: dict[int, program.Slot] = {}

  def write(self, widths: Sequence[int]) -> program.Program:
    """The program; `widths` are those of the externals."""
    layout, to = self.layout, self.to
    self.externals = [to.take(width) for width in widths]
    order = _schedule(layout)
    chain = [(k, i) for k, i in enumerate(self.run.chained) if i is not None]
    last = {i: len(order) for _, i in chain}
    for at, group in enumerate(order):
      for i in group:
        last.setdefault(i, at)
        for read in _reads(layout.ops[i]):
          last[read] = max(last[read], at)
    for at, group in enumerate(order):
      for i in group:
        self.values[i] = to.take(layout.ops[i].width)
      if layout.ops[group[0]].op == "dense":
        self.dense(group)
      else:
        self.single(group[0])
      for i in group:
        self.leave(i)
      for i in [i for i in self.values if last[i] == at]:
        to.give(self.values.pop(i))
    width = lambda i: layout.ops[i].width
    return to.done(
      self.externals,
      [(self.externals[k], self.values[i]) for k, i in chain],
      self.cuts.values(),
      [width(i) for i in self.keep],
      [width(old) for old, _ in layout.states],
    )

  def operand(self, where) -> Any:
    kind, i = where
    if kind == "local":
      return self.values[i]
    if kind == "external":
      return self.externals[i]
    return ("vector" if kind == "const" else "scalar", i)

  def dense(self, group: Sequence[int]) -> None:
    """Products that are ready together."""
    found = []
    for i in group:
      op = self.layout.ops[i]
      assert op.matrix is not None
      planes = 1 if dict(op.static)["bound"] <= MAX_ONE_PLANE else 2
      given = self.operand(op.operands[0])
      found.append((self.values[i], given, planes, op.matrix))
    self.to.products(found)

  def single(self, i: int) -> None:
    """Any other instruction."""
    op, out = self.layout.ops[i], self.values[i]
    if op.op == "prev":
      states = [old for old, _ in self.layout.states]
      self.to.write("prev", out.width, out, [], extra=states.index(i))
      return
    given = dict(op.static) | {n: ("scalar", s) for n, s in op.varying}
    extra = 0
    if op.op == "sigmoid":
      table = given["table"]
      extra = self.to.table(table.nodes)
      given |= {"spacing": table.spacing, "segments": table.segments}
      given["one"] = 1 << table.out_frac
    numbers = [given[name] for name in native.instructions()[op.op][1]]
    operands = [self.operand(where) for where in op.operands]
    width = operands[0].width if op.op == "sum" else op.width
    self.to.write(op.op, width, out, operands, numbers, extra)

  def leave(self, i: int) -> None:
    """What becomes of a value beside being read."""
    value = self.values[i]
    put = lambda name, at: self.to.write(
      name, value.width, None, [value], extra=at
    )
    if i in self.keep:
      put("keep", self.keep.index(i))
    for state, (_, new) in enumerate(self.layout.states):
      if new == i:
        put("bind", state)
    if i in self.cuts:
      put("count", list(self.cuts).index(i))


def execute(
  exe: Executable,
  numbers: Sequence[Numbers],
  rows: Mapping[int, jax.Array],
  states: Mapping[int, jax.Array],
  cuts: Sequence[Mapping[int, np.ndarray]],
  tables: Sequence[Sequence[tally.Table | None]],
  path: int = -1,
):
  """Evaluates the graph on one token and counts its messages.

  Args:
    exe: prepared graph.
    numbers: `exe.load()`.
    rows: input node id -> int32[1, width], from the host.
    states: `prev` node id -> int32[E].
    cuts: of each run local index -> where the stretches that are counted
      begin, and the end (see `kernels.tally`).
    tables: of each run, by counted value, its weights or None.
    path: instructions to use, see `program.run`.

  Returns:
    (values, states, counts): exported and output values by node id,
    int32[1, width]; new states by `prev` node id; of each run int32[layers, 1,
    columns].
  """
  values = dict(rows)
  fresh: dict[int, jax.Array] = {}
  counts = []
  every = zip(exe.runs, numbers, cuts, tables, strict=True)
  for run, data, cut, table in every:
    keep = exe.kept(run)
    start = [values[e] for e in run.layers[0].externals]
    written = _Writer(run, keep, cut).write([x.shape[-1] for x in start])
    kept, after, counted = program.run(
      written,
      start,
      before(run, states),
      data.scalars,
      data.consts,
      [w.packed for w in data.matrices if w.packed is not None],
      table,
      path=path,
    )
    leave(run, keep, kept, after, values, fresh)
    counts.append(counted)
  return values, fresh, counts
