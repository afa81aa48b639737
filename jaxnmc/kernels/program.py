"""One token through equal layers by one native call.

A `Program` is a list of instructions that kernels/native/program.cc interprets
layer after layer.  XLA on CPU runs a layer of one token as about a hundred
small kernels that wait for one another; the interpreter needs a tenth of that
time.  An `Assembler` writes programs; it knows where values lie, not what they
mean.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.kernels import native, tally

# Where an operand is, as in program.cc.
_SLOT, _ONE, _VECTOR, _SCALAR = range(4)
# Numbers that fill a cache line; slots begin at one.
_LINE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """A layer, written for the interpreter.

  Attributes:
    code: int64[steps, 10], see `Step` in program.cc.
    literals: numbers that no layer changes, int64[n].
    nodes: of sigmoid tables, one after the other, int32[n].
    room: numbers that fit its memory.
    starts: where externals are, by number.
    chain: (to, from, width) of what the next layer reads, int64[n, 3].
    cuts: of each counted value where its stretches begin, and the end.
    kept: width of each kept value.
    states: width of each state.
  """

  code: np.ndarray
  literals: np.ndarray
  nodes: np.ndarray
  room: int
  starts: tuple[int, ...]
  chain: np.ndarray
  cuts: tuple[np.ndarray, ...]
  kept: tuple[int, ...]
  states: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Slot:
  """Place of a value: first number and width."""

  start: int
  width: int


class Assembler:
  """Writes a program, line by line.

  Operands are a `Slot`, ("vector", i) or ("scalar", i); numbers are ("scalar",
  i) or an int.
  """

  def __init__(self) -> None:
    self._code: list[list[int]] = []
    self._literals: dict[int, int] = {}
    self._nodes: list[int] = []
    self._free: dict[int, list[int]] = {}
    self._room = 0

  def take(self, width: int) -> Slot:
    """A slot that nobody uses."""
    size = -(-width // _LINE) * _LINE
    free = self._free.setdefault(size, [])
    if free:
      return Slot(free.pop(), width)
    self._room += size
    return Slot(self._room - size, width)

  def give(self, slot: Slot) -> None:
    """Its value is not needed any more."""
    size = -(-slot.width // _LINE) * _LINE
    self._free[size].append(slot.start)

  def table(self, nodes: np.ndarray) -> int:
    """Where a sigmoid table begins among all."""
    self._nodes += nodes.tolist()
    return len(self._nodes) - len(nodes)

  def _number(self, value) -> int:
    if isinstance(value, tuple):
      return value[1]
    return -1 - self._literals.setdefault(int(value), len(self._literals))

  def _operand(self, where, width: int) -> int:
    if isinstance(where, Slot):
      spread = where.width == 1 and width > 1
      return 4 * where.start + (_ONE if spread else _SLOT)
    kind, i = where
    return 4 * i + (_VECTOR if kind == "vector" else _SCALAR)

  def write(
    self,
    name: str,
    width: int,
    out: Slot | None,
    operands: Sequence,
    numbers: Sequence = (),
    extra: int = 0,
  ) -> None:
    """An instruction of `native.instructions` on vectors of some width."""
    words = [self._operand(where, width) for where in operands]
    given = [self._number(value) for value in numbers]
    pad = lambda row, fill: [*row, *[fill] * (3 - len(row))]
    row = [native.instructions()[name][0], width, out.start if out else 0]
    row += pad(words, 0) + pad(given, self._number(0)) + [extra]
    self._code.append(row)

  def products(self, group: Sequence[tuple[Slot, Slot, int, int]]) -> None:
    """Products that are ready together: (out, input, planes, matrix) each."""
    for i, (out, given, planes, matrix) in enumerate(group):
      numbers = (planes, len(group) - i)
      self.write("dense", out.width, out, [given], numbers, matrix)
      self._code[-1][5] = given.width

  def done(self, externals, chain, cuts, kept, states) -> Program:
    """The program.

    Args:
      externals: slots of what the first layer reads.
      chain: (slot to, slot from) of what each further layer reads.
      cuts: of the counted values.
      kept: widths of the kept values.
      states: widths of the states.
    """
    moves = [(to.start, at.start, to.width) for to, at in chain]
    return Program(
      np.array(self._code, np.int64),
      np.array(list(self._literals), np.int64),
      np.array(self._nodes or [0], np.int32),
      self._room,
      tuple(slot.start for slot in externals),
      np.array(moves, np.int64).reshape(-1, 3),
      tuple(cuts),
      tuple(kept),
      tuple(states),
    )


def run(
  program: Program,
  externals: Sequence[jax.Array],
  states: Sequence[jax.Array],
  scalars: jax.Array,
  vectors: Sequence[jax.Array],
  matrices: Sequence[jax.Array],
  tables: Sequence[tally.Table | None],
  *,
  path: int = -1,
) -> tuple[Sequence[jax.Array], Sequence[jax.Array], jax.Array]:
  """Interprets a program; nothing of its arguments is copied.

  Args:
    program: of `Assembler.done`.
    externals: int32[1, width] each, what the first layer reads.
    states: int32[layers, width] each.
    scalars: int32[layers, n].
    vectors: int32[layers, width] each.
    matrices: uint8[layers, out, bytes] each, of `packed.pack`.
    tables: of each counted value, or None.
    path: 0 plain C++, 1 AVX2, 2 AVX-512; -1: the best of this machine.

  Returns:
    (kept values int32[layers, 1, width] each, new states int32[layers, width]
    each, counts int32[layers, 1, all columns] in the order of `tally`).
  """
  layers = scalars.shape[0]
  like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  pieces = [len(cut) - 1 for cut in program.cuts]
  columns = tally.columns(tables)
  shapes = [like(layers, 1, width) for width in program.kept]
  shapes += [like(layers, width) for width in program.states]
  shapes += [like(layers, 1, sum(pieces) + sum(columns))]
  sizes = (
    *(program.room, len(externals), len(states), len(vectors)),
    *(len(matrices), len(pieces), len(program.kept)),
  )
  call = jax.ffi.ffi_call(native.PROGRAM, shapes, vmap_method="sequential")
  ints = lambda values: np.asarray(values, np.int64).reshape(-1)
  found = call(
    *externals,
    *states,
    scalars,
    *vectors,
    *matrices,
    *tally.operands(tables),
    code=ints(program.code),
    literals=program.literals,
    nodes=program.nodes,
    sizes=ints(sizes),
    starts=ints(program.starts),
    chain=ints(program.chain),
    pieces=ints(pieces),
    edges=ints(np.concatenate(program.cuts) if program.cuts else ()),
    columns=ints(columns),
    path=np.int64(path),
  )
  kept = len(program.kept)
  return found[:kept], found[kept:-1], found[-1]
