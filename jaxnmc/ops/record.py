"""The recording interpreter: which nodes, sites and state bindings is it?

`Quantized` with an ALU that writes every instruction down instead of computing
it.  A node whose operands are all constants is folded into a constant.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.kernels.ternary import MAX_TWO_PLANES
from jaxnmc.numerics.fx import Fx, is_fx
from jaxnmc.numerics.packed import Packed
from jaxnmc.numerics.weights import QDense
from jaxnmc.ops.alu import IntAlu, Value
from jaxnmc.ops.graph import (
  ELEMENTWISE,
  POSITION,
  TOKEN,
  Count,
  Graph,
  Node,
  Output,
)
from jaxnmc.ops.memory import READ, memory_width, wiring
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.stores import IntStore, check_qparams
from jaxnmc.ops.windows import delayed, widest


@dataclasses.dataclass(frozen=True, eq=False)
class Sym:
  """A value that is a node of the graph under construction."""

  alu: "GraphAlu"
  id: int
  width: int

  @property
  def shape(self) -> tuple[int, int]:
    """One token of `width` features."""
    return (1, self.width)

  def __getitem__(self, i: int) -> "Sym":
    node = self.alu.nodes[self.id]
    if node.op == "const" and node.data is not None and node.data.ndim > 1:
      return self.alu.param(node.data[i])
    # Axis 0 of anything else is time, and one token is recorded.
    return self


class GraphAlu(IntAlu):
  """Writes instructions down; operands and results are `Sym`s.

  Attributes:
    nodes: what was written so far, in order of evaluation.
    scope: function that returns the present path of names.
  """

  def __init__(self) -> None:
    self.nodes: list[Node] = []
    self.scope: Any = lambda: ()

  def _layer(self) -> int | None:
    path = self.scope()
    after = path[path.index("layers") + 1 :] if "layers" in path else ()
    return int(after[0]) if after and after[0].isdigit() else None

  def emit(self, op, args=(), static=None, width=None, data=None, **kw) -> Sym:
    """Appends a node; raw arrays among the operands become constants.

    An element-wise instruction on constants alone is computed here instead.

    Args:
      op: instruction name.
      args: operands, `Sym`s or integer arrays [..., n].
      static: static operands by name.
      width: features of the result; the widest operand's when not given.
      data: data of the node.
      **kw: further fields of `Node`.

    Returns:
      The new node's `Sym`.
    """
    syms = [a if isinstance(a, Sym) else self.param(a) for a in args]
    if op in ELEMENTWISE and syms and all(self._constant(s) for s in syms):
      values = [self.nodes[s.id].data for s in syms]
      return self.param(getattr(IntAlu(), op)(*values, **static))
    width = width or max(s.width for s in syms)
    node = Node(
      len(self.nodes),
      op,
      tuple(s.id for s in syms),
      static or {},
      width,
      self._layer(),
      data=data,
      **kw,
    )
    self.nodes.append(node)
    return Sym(self, node.id, width)

  def _constant(self, sym: Sym) -> bool:
    return self.nodes[sym.id].op == "const"

  def settle(self, x, const) -> Sym:
    """x: neurons compute once as it is."""
    del const
    return x

  def param(self, array) -> Sym:
    """A constant of the neurons."""
    if isinstance(array, Sym):
      return array
    data = np.asarray(array).astype(np.int32)
    width = data.shape[-1] if data.ndim else 1
    return self.emit("const", width=width, data=data)

  def zeros_like(self, x: Value) -> Sym:
    """Zero state."""
    return self.param(np.zeros(x.width, np.int32))

  def mark(self, x: Value, path: str, cast: bool) -> Sym:
    """Names a node.

    Raises:
      PlanError: it has a name already, or is a constant or a state.
    """
    node = self.nodes[x.id]
    if node.site is not None or node.op in ("const", "prev"):
      raise PlanError(
        f"{path}: the value is already named {node.site or node.op}; a site"
        " must name a computed value"
      )
    self.nodes[x.id] = dataclasses.replace(node, site=path, cast=cast)
    return x

  def gather_rows(self, table, ids) -> Sym:
    """A row comes from the host; `ids` says which (`Record.embed`)."""
    return self.emit(
      "input",
      static={"index": ids},
      width=int(table.shape[-1]),
      data=np.asarray(table),
    )

  def dense(self, x, weight, *, bound, parts=1):
    """One node per port."""
    codes = weight.codes
    packed = isinstance(codes, Packed)
    blocks = (
      codes.split(parts) if packed else np.split(np.asarray(codes), parts)
    )
    return tuple(
      self.emit(
        "dense", (x,), {"bound": bound}, width=block.shape[0], data=block
      )
      for block in blocks
    )

  def sum(self, x) -> Sym:
    """Sum at one aggregator neuron."""
    return self.emit("sum", (x,), {}, width=1)

  def broadcast(self, x, *, width) -> Sym:
    """One neuron to many."""
    return self.emit("broadcast", (x,), {"width": width}, width=width)

  def matmul(self, a, b):
    """Attention over a growing memory has no place on the cores.

    Raises:
      PlanError: always.
    """
    raise PlanError(
      "ops.matmul multiplies two activations over the whole sequence; its"
      " memory grows with the tokens, so it cannot be placed on cores; write"
      " it as a recurrence over a state (ops.scan, ops.outer)"
    )

  def outer(self, a, b):
    """Not placed yet.

    Raises:
      PlanError: always.
    """
    raise PlanError("ops.outer cannot be recorded yet")


def _elementwise(name: str):
  def instruction(self, *args, **static):
    return self.emit(name, args, static)

  return instruction


for _name in ELEMENTWISE:
  setattr(GraphAlu, _name, _elementwise(_name))


class Record(Quantized):
  """Quantized, writing a graph of one token.

  Attributes:
    bind: id of a `prev` node -> id of the value that replaces it.
    ids: stands for the token, int32[1].
    position: stands for the number of tokens before it, int32[1].
    count: stands for the number of tokens with it, int32[].
  """

  def __init__(self, plan) -> None:
    alu = GraphAlu()
    super().__init__(plan, alu, IntStore())
    self.bind: dict[int, int] = {}
    self.ids = np.zeros((1,), np.int32)
    self.position = np.zeros((1,), np.int32)
    self.count = np.ones((), np.int32)
    alu.scope = lambda: self._path

  def positions(self, ids, mask=None, before=None):
    """Known to the host only, which keeps count."""
    del ids, before
    self.keep(mask, None)
    return self.position, self.count

  def embed(self, name, table, ids):
    """A row of the token, or of its position, comes from the host.

    Raises:
      PlanError: any other row.
    """
    # By identity: what was computed from these is something else.
    known = {id(self.ids): TOKEN, id(self.position): POSITION}
    if id(ids) not in known:
      raise PlanError(
        f"{self.path(name)}: the host takes the row of a token or of its"
        " position; pass inputs['ids'] or what ops.positions returned, as it is"
      )
    return super().embed(name, table, known[id(ids)])

  def keep(self, mask, x):
    """A mask is for batches; cores simply do not get the masked tokens.

    Raises:
      PlanError: there is a mask.
    """
    if mask is not None:
      raise PlanError("record takes inputs without a mask")
    return x

  def memory(self, name, state, q, k, v, heads, size, windows=None, mask=None):
    """A memory of sums as d x d neurons per head (`jaxnmc.ops.memory`).

    Raises:
      FormatError: as `Quantized.memory`, or what is read has more than the two
        8-bit digits of a message.
    """
    del state
    path = self.path(name)
    q, k, v, fmt = self._memory_of(path, q, k, v, size)
    if size > MAX_TWO_PLANES:
      raise FormatError(
        f"{path}: {size} tokens may fill the memory to {size}, but its neurons"
        f" send at most {MAX_TWO_PLANES}; give the model a smaller context"
      )
    width = q.shape[-1]
    rows, columns, back = wiring(width, heads)
    reach = size * width // heads

    def through(x, codes, bound: int):
      return self.alu.dense(x, QDense(codes, frac=0, l1=0), bound=bound)[0]

    before = self.alu.emit("prev", width=memory_width(width, heads))
    written = self.alu.mul(through(k.q, rows, 1), through(v.q, columns, 1))
    after = self.alu.add(before, written)
    past = []
    if windows is not None:
      past = [
        self._delayed(path, name, x, widest(windows))
        for name, x in zip("kv", (k, v))
      ]
      for window in sorted({w for w in windows if w is not None}):
        # Synapses of the heads whose window ends here.
        ours = np.repeat([w == window for w in windows], len(rows) // heads)
        old = [
          through(x[window - 1].q, codes * ours[:, None], 1)
          for x, codes in zip(past, (rows, columns))
        ]
        after = self.alu.sub(after, self.alu.mul(*old))
    after = self.alu.mark(after, path, True)
    self.bind[before.id] = after.id
    read = self.alu.mul(through(q.q, rows, 1), after)
    read = self.alu.mark(read, path + READ, True)
    y = through(read, back, size)
    state = Fx(after, frac=0, low=fmt.low, high=fmt.high, site=path)
    y = self._value(path, y, 0, -reach, reach)
    if windows is None:
      return y, state
    # What the next token will find: this one is its last.
    past = [[x, *ages[:-1]] for x, ages in zip((k, v), past)]
    return y, {"sums": state, "past": past}

  def _delayed(self, path: str, name: str, x: Fx, tokens: int) -> list[Fx]:
    """Spikes of 1, 2, ... tokens ago: neurons that hand on what they hold."""
    chain = []
    for site in delayed(path, name, x.site, tokens + 1)[1:]:
      held = self.alu.emit("prev", width=x.shape[-1])
      self.bind[held.id] = x.q.id
      # It is sent again: to the memory, and to the next of the chain.
      held = self.alu.add_const(held, value=0)
      held = self.alu.mark(held, site, True)
      x = Fx(held, frac=0, low=x.low, high=x.high, site=site)
      chain.append(x)
    return chain

  def vmap(self, name, body, *args, in_axes=0, out_axes=0):
    """Not placed yet.

    Raises:
      PlanError: always.
    """
    raise PlanError(f"{self.path(name)}: ops.vmap cannot be recorded yet")

  def scan(self, name, body, init, xs):
    """One step of the loop; what it carries becomes state of the neurons."""
    nodes: list[Node] = self.alu.nodes
    mark = len(nodes)
    with self.at(name):
      # A dry run tells the format of the carry.
      formats, _ = body(self, init, xs)
      del nodes[mark:]
      state = jax.tree.map(
        lambda f: dataclasses.replace(
          f, q=self.alu.emit("prev", width=f.q.width)
        ),
        formats,
        is_leaf=is_fx,
      )
      carry, ys = body(self, state, xs)
    pairs = zip(
      jax.tree.leaves(state, is_leaf=is_fx),
      jax.tree.leaves(carry, is_leaf=is_fx),
      strict=True,
    )
    self.bind.update({old.q.id: new.q.id for old, new in pairs})
    return carry, ys


def record(fn, plan, qparams) -> Graph:
  """Writes down what the chip computes for one token, without a mask.

  Args:
    fn: model function.
    plan: number formats.
    qparams: integer parameters of this plan.

  Returns:
    The graph.

  Raises:
    PlanError: float params, qparams of another plan, a plan that is not
      integers everywhere, or an op that cannot be on cores.
  """
  plan.need_integers("record")
  check_qparams(qparams, plan)
  ops = Record(plan)
  out, state = fn(ops, qparams.tree, {"ids": ops.ids}, None)

  def output(x) -> Output | Count:
    if x is ops.count:
      return Count()
    if not is_fx(x):
      raise PlanError(
        f"record: a result or state of type {type(x).__name__} is no"
        " fixed-point value and no count of ops.positions, so neither cores nor"
        " host can keep it; leave it out"
      )
    return Output(x.q.id, x.frac, x.low, x.high, x.site)

  out, state = jax.tree.map(output, (out, state), is_leaf=is_fx)
  nodes = tuple(ops.alu.nodes)
  return Graph(nodes, ops.bind, out, state, qparams.plan, qparams.weights)
