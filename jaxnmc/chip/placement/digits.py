"""Numbers wider than the chip's, as sums of shifted digits.

A weight of 8n bits is n synapses of 8 bits whose products are added with
different exponents, and a message of more than 32 bits is sent as several
(Abreu et al. 2025, footnotes 4 and 5):

    v = sum_k d_k 2^(bits k),    -2^(bits-1) <= d_k < 2^(bits-1)

Digits are balanced, so that each is a legal signed weight or payload. n of
them hold -2^(bits-1) R to (2^(bits-1) - 1) R, with R = (2^(bits n) - 1) /
(2^bits - 1): two digits of 8 bits hold -32,896 to 32,639.

What the model's recorder writes never needs either on a Loihi 2: its weights
have 8 bits or fewer, and every value is an int32. The passes matter for chips
with narrower words and for graphs that others build.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from jaxnmc.chip.hardware import Hardware
from jaxnmc.errors import PlacementError
from jaxnmc.numerics import rsqrt
from jaxnmc.ops.graph import SYNAPSES, Graph, Node, Output

__all__ = ["count", "is_digit", "narrow", "ranges", "split"]

_DIGIT = "digit"  # and its number: last part of the name of such a message
_INT32 = (-(2**31), 2**31 - 1)


def count(low: int, high: int, bits: int) -> int:
  """Digits that numbers from `low` to `high` need, 1 at least.

  Raises:
    PlacementError: fewer than 2 bits.
  """
  if bits < 2:
    raise PlacementError(
      f"balanced digits need 2 bits or more, not {bits}; give more"
    )
  low, high, n, ones = int(low), int(high), 1, 1
  while low < -(1 << bits - 1) * ones or high > ((1 << bits - 1) - 1) * ones:
    n, ones = n + 1, (ones << bits) + 1
  return n


def split(values, bits: int, digits: int | None = None):
  """Balanced digits of integers, the lowest first.

  Args:
    values: integers of any shape, also Python's.
    bits: of a digit.
    digits: how many; as many as the values need when not given.

  Returns:
    (digits, shifts): values == sum(d << s for d, s in zip(digits, shifts)),
    each d an array of int64 and of the shape of values.

  Raises:
    PlacementError: fewer than 2 bits, or too few digits for the values.
  """
  rest = np.asarray(values)
  if rest.dtype.kind not in "iub" and rest.dtype != object:
    raise PlacementError(f"digits are of integers, not of {rest.dtype}")
  rest = rest.astype(object)  # Python's integers: no width to overflow
  need = count(rest.min(initial=0), rest.max(initial=0), bits)
  if digits is not None and digits < need:
    raise PlacementError(
      f"values from {rest.min()} to {rest.max()} need {need} digits of {bits}"
      f" bits, not {digits}; give more digits or more bits"
    )
  found, half = [], 1 << bits - 1
  for _ in range(digits or need):
    high = (rest + half) >> bits
    found.append((rest - (high << bits)).astype(np.int64))
    rest = high
  return found, [bits * k for k in range(len(found))]


def is_digit(path: str) -> bool:
  """Whether a message is one of the digits that `narrow` made of a value."""
  last = path.rpartition(".")[2]
  return last.startswith(_DIGIT) and last.removeprefix(_DIGIT).isdigit()


def ranges(graph: Graph) -> list[tuple[int, int]]:
  """Smallest and largest value of every node; that of int32 if unknown."""
  found: list[tuple[int, int]] = []
  states = _state_ranges(graph)
  for node in graph.nodes:
    args = [found[i] for i in node.args]
    if node.op in SYNAPSES:
      low, high = _sum_range(graph, node, *args)
    else:
      low, high = states.get(node.id) or _range(node, args)
    inside = _INT32[0] <= low and high <= _INT32[1]
    found.append((low, high) if inside else _INT32)
  return found


def _state_ranges(graph: Graph) -> dict[int, tuple[int, int]]:
  """Of `prev` nodes: the formats of the state, which one handed in keeps."""
  leaves = jax.tree.leaves(graph.state)
  kept = {x.node: (x.low, x.high) for x in leaves if isinstance(x, Output)}
  return {old: kept[new] for old, new in graph.bind.items() if new in kept}


def _sum_range(graph: Graph, node: Node, span) -> tuple[int, int]:
  """Of what synapses add up, messages within `span`."""
  low, high = span
  if node.op == "broadcast":
    return low, high
  if node.op == "sum":
    n = graph.nodes[node.args[0]].width
    return n * low, n * high
  weights = np.asarray(node.data)
  up = np.maximum(weights, 0).sum(axis=1, dtype=np.int64)
  down = up - weights.sum(axis=1, dtype=np.int64)
  ends = [(int(u), int(d)) for u, d in {*zip(up.tolist(), down.tolist())}]
  return (
    min((u * low - d * high for u, d in ends), default=0),
    max((u * high - d * low for u, d in ends), default=0),
  )


def _range(node: Node, args) -> tuple[int, int]:
  """Of one other node, by interval arithmetic."""
  static = node.static
  if node.op in ("const", "input") and node.data is not None and node.data.size:
    return int(node.data.min()), int(node.data.max())
  if "low" in static and "high" in static:
    return static["low"], static["high"]
  if node.op == "low_bits":
    return 0, (1 << static["bits"]) - 1
  if node.op == "inv_sqrt":
    return rsqrt.MIN_ROOT, rsqrt.MAX_ROOT
  if node.op == "sigmoid":
    return 0, 1 << static["table"].out_frac
  if node.op == "mean_square":
    return 0, static["limit"]
  if node.op == "ge":
    return 0, 1
  if node.op in ("shl", "shr"):
    move = (lambda v: v << static["bits"]) if node.op == "shl" else None
    move = move or (lambda v: v >> static["bits"])
    return move(args[0][0]), move(args[0][1])
  if node.op == "add_const":
    return args[0][0] + static["value"], args[0][1] + static["value"]
  if node.op == "rsub_const":
    return static["value"] - args[0][1], static["value"] - args[0][0]
  if node.op == "add":
    return args[0][0] + args[1][0], args[0][1] + args[1][1]
  if node.op == "sub":
    return args[0][0] - args[1][1], args[0][1] - args[1][0]
  if node.op == "mul":
    ends = [a * b for a in args[0] for b in args[1]]
    square = node.args[0] == node.args[1]
    return max(0, min(ends)) if square else min(ends), max(ends)
  return _INT32


class _Writer:
  """A graph that is copied node by node, some of them replaced."""

  def __init__(self, graph: Graph):
    self.graph = graph
    self.nodes: list[Node] = []
    self.new: dict[int, int] = {}  # old id -> new id
    self.parts: dict[int, list[int]] = {}  # old id -> new ids of its digits
    self.whole: dict[tuple[int, int | None], int] = {}

  def put(self, node: Node, args, **changes) -> int:
    """Appends a copy of a node; returns its id."""
    found = dataclasses.replace(
      node, id=len(self.nodes), args=tuple(args), **changes
    )
    self.nodes.append(found)
    return found.id

  def act(self, op: str, args, like: Node, static=None, **changes) -> int:
    """Appends an element-wise node of the width and layer of another one."""
    plain = Node(0, op, (), static or {}, like.width, like.layer)
    return self.put(plain, args, **changes)

  def join(self, parts, shifts, like: Node, **last) -> int:
    """Appends the sum of shifted digits; `last` is for its last node."""
    total = parts[0]
    for k, (part, shift) in enumerate(zip(parts[1:], shifts[1:], strict=True)):
      moved = self.act("shl", (part,), like, {"bits": shift})
      end = last if k == len(parts) - 2 else {}
      total = self.act("add", (total, moved), like, **end)
    return total

  def finish(self) -> Graph:
    """The new graph."""
    result = lambda tree: _outputs(tree, self.new)
    return dataclasses.replace(
      self.graph,
      nodes=tuple(self.nodes),
      bind={self.new[a]: self.new[b] for a, b in self.graph.bind.items()},
      outputs=result(self.graph.outputs),
      state=result(self.graph.state),
    )


def _outputs(tree, new: Mapping[int, int]):
  def moved(leaf):
    if isinstance(leaf, Output):
      return dataclasses.replace(leaf, node=new[leaf.node])
    return leaf

  return jax.tree.map(moved, tree)


def _crosses(reader: Node, source: Node) -> bool:
  """Whether the reader gets the value by a message."""
  if source.op == "const":
    return False
  return reader.op in SYNAPSES or reader.layer != source.layer


def narrow(graph: Graph, hardware: Hardware) -> Graph:
  """Rewrites a graph for a chip's widths of weights and messages.

  A matrix with weights over `weight_bits_max` becomes several, each with a port
  of its own; a value over `message_bits` is sent in several messages, and each
  reader gets a synapse for each. The target shifts and adds. Values are not
  changed, and no depth is: what is added is element-wise. Messages from the
  host keep the 32 bits of its interface.

  Args:
    graph: what was recorded.
    hardware: the chip.

  Returns:
    The graph itself where nothing is too wide.

  Raises:
    PlacementError: a value whose digits would leave int32.
  """
  write = _Writer(graph)
  wide = _wide_messages(graph, hardware.message_bits)
  bits, most = hardware.message_bits or 32, hardware.weight_bits_max
  if not wide and not any(_too_wide(n, most) for n in graph.nodes):
    return graph
  for node in graph.nodes:
    if node.op in SYNAPSES:
      write.new[node.id] = _synapse(write, node, bits, most)
    else:
      args = [_whole(write, node, i, bits) for i in node.args]
      write.new[node.id] = write.put(node, args)
    if node.id in wide:
      _send(write, node, wide[node.id], bits)
  return write.finish()


def _too_wide(node: Node, bits: int) -> bool:
  if node.op != "dense" or node.data is None or not node.data.size:
    return False
  return count(node.data.min(), node.data.max(), bits) > 1


def _wide_messages(graph: Graph, bits: int | None) -> dict[int, int]:
  """Values that need several messages: id -> number of digits."""
  if bits is None or bits >= 32:
    return {}
  found, spans = {}, ranges(graph)
  for node in graph.nodes:
    for arg in node.args:
      source = graph.nodes[arg]
      if arg in graph.before_cores or not _crosses(node, source):
        continue
      low, high = spans[arg]
      parts = count(low, high, bits)
      if parts > 1 and high + (1 << bits - 1) > _INT32[1]:
        raise PlacementError(
          f"{source.site or source.op}: a value up to {high:,} needs {parts}"
          f" messages of {bits} bits (message_bits), and its digits leave"
          " int32; give the site a range"
        )
      if parts > 1:
        found[arg] = parts
  return found


def _send(write: _Writer, node: Node, parts: int, bits: int) -> None:
  """Digits of a value, each a named message of its neuron."""
  rest, found = write.new[node.id], []
  half = 1 << bits - 1
  for k in range(parts):
    name = {"site": f"{node.site}.{_DIGIT}{k}", "cast": True}
    if k == parts - 1:
      # A name of its own, also where it is the value of the last shift.
      found.append(write.act("add_const", (rest,), node, {"value": 0}, **name))
      break
    up = write.act("add_const", (rest,), node, {"value": half})
    # Two's complement: the low bits of a negative number, too, are mod 2^bits.
    low = write.act("low_bits", (up,), node, {"bits": bits})
    digit = write.act("add_const", (low,), node, {"value": -half}, **name)
    found.append(digit)
    rest = write.act("shr", (up,), node, {"bits": bits})
  write.parts[node.id] = found


def _whole(write: _Writer, reader: Node, arg: int, bits: int) -> int:
  """An operand of an element-wise node; digits are joined once a layer."""
  source = write.graph.nodes[arg]
  if arg not in write.parts or not _crosses(reader, source):
    return write.new[arg]
  key = (arg, reader.layer)
  if key not in write.whole:
    parts = write.parts[arg]
    like = dataclasses.replace(reader, width=source.width)
    shifts = [bits * k for k in range(len(parts))]
    write.whole[key] = write.join(parts, shifts, like)
  return write.whole[key]


def _synapse(write: _Writer, node: Node, bits: int, most: int) -> int:
  """A synapse node, once for each digit of its message and of its weights."""
  (arg,) = node.args
  plain = {"site": None, "cast": False}
  named = {"site": node.site, "cast": node.cast}
  sent = write.parts.get(arg)
  static = dict(node.static)
  if sent is not None and "bound" in static:
    static["bound"] = min(static["bound"], 1 << bits - 1)
  matrices, shifts = [node.data], [0]
  if _too_wide(node, most):
    matrices, shifts = split(node.data, most)
    matrices = [m.astype(np.int8) for m in matrices]
  sources = [write.new[arg]] if sent is None else sent
  if len(sources) * len(matrices) == 1:
    return write.put(node, sources)
  found, moves = [], []
  for k, source in enumerate(sources):
    for matrix, shift in zip(matrices, shifts, strict=True):
      changes = {"static": static, "data": matrix, **plain}
      found.append(write.put(node, (source,), **changes))
      moves.append(bits * k + shift)
  return write.join(found, moves, node, **named)
