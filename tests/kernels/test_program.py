"""The interpreter of single tokens.

Every instruction against Python's integers, on every instruction set; layers,
products and counts; what it refuses.
"""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from numpy import testing as npt

from jaxnmc.kernels import native, packed, program, tally
from jaxnmc.numerics.sigmoid import SigmoidTable
from tests import oracle

PATHS = (0, 1, 2, -1)
WIDTHS = (1, 7, 64, 65, 1000)
INT = 2**31
NONE = jnp.zeros((1, 0), jnp.int32)


@pytest.fixture(autouse=True)
def _needs(kernel):
  del kernel


def wrap(x: int) -> int:
  """x modulo 2^32, as int32."""
  return (x + INT) % (2 * INT) - INT


def around(rng, width: int, low: int, high: int) -> list[int]:
  """Ends, what is near zero, powers of two and anything between."""
  edges = [low, high, 0, 1, -1, low + 1, high - 1]
  edges += [
    s * 2**k + d for k in range(31) for s in (1, -1) for d in (-1, 0, 1)
  ]
  edges = [x for x in edges if low <= x <= high]
  anything = rng.integers(low, high + 1, width).tolist()
  mixed = [rng.choice(edges) if rng.random() < 0.5 else x for x in anything]
  return [int(x) for x in mixed]


# Name -> (range of each operand, some choices of the numbers, meaning).
ANY = (-INT, INT - 1)
WORD = (-(2**15), 2**15 - 1)
CLIPS = ((-32639, 32639), (-INT, INT - 1), (0, 1), (-5, -5))
SHIFTED = [(s, *c) for s in (1, 2, 15, 31, 32, 60) for c in CLIPS]
rounded = lambda x, s, low, high: oracle.clip(oracle.rounded(x, s), low, high)
CASES = {
  "add": ((ANY, ANY), [()], lambda a, b: wrap(a + b)),
  "sub": ((ANY, ANY), [()], lambda a, b: wrap(a - b)),
  "mul": ((ANY, ANY), [()], lambda a, b: wrap(a * b)),
  "add_const": ((ANY,), [(7,), (-INT,)], lambda a, v: wrap(a + v)),
  "rsub_const": ((ANY,), [(7,), (-INT,)], lambda a, v: wrap(v - a)),
  "min": ((ANY, ANY), [()], min),
  "max": ((ANY, ANY), [()], max),
  "ge": ((WORD, WORD), [()], lambda a, b: int(a >= b)),
  "select": (((0, 1), ANY, ANY), [()], lambda c, a, b: a if c else b),
  "shl": ((ANY,), [(0,), (1,), (31,)], lambda a, s: wrap(a << s)),
  "shr": ((ANY,), [(0,), (1,), (31,)], lambda a, s: a >> s),
  "low_bits": (((0, INT - 1),), [(1,), (15,), (31,)], lambda a, s: a % 2**s),
  "clip": ((ANY,), CLIPS, lambda a, low, high: oracle.clip(a, low, high)),
  "round_shift": (
    (ANY,),
    SHIFTED + [(s, *c) for s in (0, -1, -30) for c in CLIPS],
    rounded,
  ),
  "mul_shr": (
    (ANY, ANY),
    SHIFTED,
    lambda a, b, s, low, high: rounded(a * b, s, low, high),
  ),
  "mean_square": (
    ((0, 2**26), (0, 2**26)),
    [(2**15, 16, 2**24 - 1), (65535, 40, 2**24 - 1), (40000, 62, 9)],
    lambda a, b, m, s, top: rounded((2**15 * a + b) * m, s, 0, top),
  ),
  "inv_sqrt": (((1, 2**24 - 1),), [()], oracle.inv_sqrt),
}


def compute(jobs, path):
  """Instructions (name, operands, numbers, width, nodes) in one program.

  Returns:
    The result of each, a list of `width` ints.
  """
  to = program.Assembler()
  inputs, slots = [], []
  for _, operands, _, _, _ in jobs:
    slots.append([to.take(len(x)) for x in operands])
    inputs += [jnp.asarray(np.array(x, np.int32))[None] for x in operands]
  for k, ((name, _, numbers, width, nodes), given) in enumerate(
    zip(jobs, slots)
  ):
    out = to.take(width)
    table = 0 if nodes is None else to.table(nodes)
    n = given[0].width if name == "sum" else width
    to.write(name, n, out, given, numbers, table)
    to.write("keep", width, None, [out], extra=k)
  widths = [job[3] for job in jobs]
  done = to.done([x for some in slots for x in some], (), (), widths, ())
  kept, _, _ = program.run(done, inputs, (), NONE, (), (), (), path=path)
  assert [x.shape for x in kept] == [(1, 1, width) for width in widths]
  return [x[0, 0].tolist() for x in jax.device_get(kept)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CASES)
def test_instructions_are_python_s(name, path):
  ranges, choices, meaning = CASES[name]
  jobs = []
  for seed, width in enumerate(WIDTHS):
    rng = np.random.default_rng(seed)
    operands = [around(rng, width, *ends) for ends in ranges]
    jobs += [(name, operands, numbers, width, None) for numbers in choices]
  for job, found in zip(jobs, compute(jobs, path), strict=True):
    _, operands, numbers, width, _ = job
    want = [meaning(*row, *numbers) for row in zip(*operands)]
    assert found == want, (numbers, width)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
  "shape", [(6, 6, 8, 15), (0, 0, 1, 1), (15, 15, 1, 15), (6, 4, 33, 12)]
)
def test_sigmoid_tables(shape, path):
  """Few segments and many, which are looked up, take different roads."""
  table, want = SigmoidTable(*shape), oracle.Table(*shape)
  numbers = (table.spacing, table.segments, 1 << table.out_frac)
  rng = np.random.default_rng(0)
  jobs = []
  for width in WIDTHS:
    x = around(rng, width, -2 * table.reach, 2 * table.reach)
    x[: width // 2] = around(rng, width // 2, *ANY)
    jobs.append(("sigmoid", [x], numbers, width, table.nodes))
  for (_, (x,), *_), found in zip(jobs, compute(jobs, path), strict=True):
    assert found == [oracle.sigmoid(k, want) for k in x]


@pytest.mark.parametrize("path", PATHS)
def test_sums_and_spreading(path):
  rng = np.random.default_rng(1)
  for width in WIDTHS:
    x = around(rng, width, *ANY)
    total, spread, met = compute(
      [
        ("sum", [x], (), 1, None),
        ("broadcast", [x[:1]], (), width, None),
        # One number meets a whole vector.
        ("add", [x[:1], x], (), width, None),
      ],
      path,
    )
    assert total == [wrap(sum(x))]
    assert spread == x[:1] * width
    assert met == [wrap(x[0] + k) for k in x]


def test_every_instruction_is_tried():
  beside = {"sigmoid", "sum", "broadcast"}
  moves = {"dense", "prev", "keep", "bind", "count"}
  assert set(native.instructions()) == set(CASES) | beside | moves


def layered(path: int, layers: int = 3):
  """y = W (x + v) + W' x + k, s' = s + y, x' = y; counts of x and y."""
  to = program.Assembler()
  x, v, old = to.take(300), to.take(300), to.take(40)
  a, b, sums, more = (to.take(40) for _ in range(4))
  total, new, back = to.take(40), to.take(40), to.take(300)
  to.write("add", 300, v, [x, ("vector", 0)])
  to.products([(a, v, 2, 0), (b, x, 2, 1)])
  to.write("add", 40, sums, [a, b])
  to.write("add_const", 40, more, [sums], [("scalar", 1)])
  to.write("clip", 40, total, [more], [-9000, 9000])
  to.write("prev", 40, old, [])
  to.write("add", 40, new, [old, total])
  to.write("bind", 40, None, [new])
  to.write("keep", 40, None, [total])
  to.write("count", 300, None, [x], extra=0)
  to.write("count", 40, None, [total], extra=1)
  # The next layer reads seven of them, and zeros.
  to.write("mul", 300, back, [x, ("scalar", 0)])
  chain = [(x, back), (program.Slot(x.start, 7), program.Slot(total.start, 7))]
  cuts = (np.array([0, 100, 300]), np.array([0, 40]))
  done = to.done([x], chain, cuts, [40], [40])
  rng = np.random.default_rng(layers)
  codes = [rng.integers(-1, 2, (layers, 40, 300)) for _ in range(2)]
  vectors = rng.integers(-50, 50, (layers, 300))
  scalars = np.stack([np.zeros(layers), np.arange(layers) * 5], 1)
  states = rng.integers(-9, 9, (layers, 40))
  table = rng.integers(0, 128, (layers, 6, 300))
  start = rng.integers(-500, 500, 300) * (rng.random(300) < 0.9)
  i32 = lambda x: jnp.asarray(x, jnp.int32)
  small = [jnp.asarray(packed.pack(c.astype(np.int8))) for c in codes]
  tables = [tally.Table.of(table.astype(np.int8)), None]
  call = lambda x: program.run(
    *(done, [x], [i32(states)], i32(scalars), [i32(vectors)], small, tables),
    path=path,
  )
  kept, after, counts = jax.jit(call)(i32(start)[None])

  x, rows = start, []
  for n in range(layers):
    y = codes[0][n] @ (x + vectors[n]) + codes[1][n] @ x + scalars[n][1]
    y = np.clip(y, -9000, 9000).astype(int)
    sent = x != 0
    first = [sent[:100].sum(), sent[100:].sum(), *(table[n] @ sent)]
    rows.append((y, states[n] + y, [*first, (y != 0).sum()]))
    x = np.concatenate([y[:7], np.zeros(293, int)])
  return (kept[0][:, 0], after[0], counts[:, 0]), [
    np.array(part) for part in zip(*rows)
  ]


@pytest.mark.parametrize("path", PATHS)
def test_layers_products_states_and_counts(path):
  found, want = layered(path)
  for mine, by_numpy in zip(found, want, strict=True):
    npt.assert_array_equal(mine, by_numpy)


@pytest.mark.parametrize("path", PATHS)
def test_large_products_are_shared_out(path):
  """More work than one thread does alone, in matrices of unlike size."""
  to = program.Assembler()
  x, small, large = to.take(1500), to.take(3), to.take(3001)
  to.products([(small, x, 1, 0), (large, x, 2, 1)])
  to.write("keep", 3, None, [small], extra=0)
  to.write("keep", 3001, None, [large], extra=1)
  done = to.done([x], (), (), [3, 3001], ())
  rng = np.random.default_rng(0)
  codes = [rng.integers(-1, 2, (1, n, 1500), np.int8) for n in (3, 3001)]
  small = [jnp.asarray(packed.pack(c)) for c in codes]
  # Twice, so that what the first left in memory is wrong for the second.
  for given in rng.integers(-127, 128, (2, 1500)):
    kept, _, _ = program.run(
      *(done, [jnp.asarray(given, jnp.int32)[None]], (), NONE, (), small, ()),
      path=path,
    )
    for mine, matrix in zip(kept, codes, strict=True):
      npt.assert_array_equal(mine[0, 0], matrix[0].astype(int) @ given)


def test_threads_do_not_disturb_one_another(in_threads):
  def work(i: int):
    found, want = layered(-1, layers=1 + i % 3)
    return [all((a == b).all() for a, b in zip(found, want))]

  assert all(in_threads(work))


def test_slots_are_used_again():
  to = program.Assembler()
  first, second = to.take(20), to.take(20)
  to.give(first)
  third = to.take(17)  # the same number of cache lines
  assert third.start == first.start != second.start
  assert to.take(20).start not in (second.start, third.start)


def _bad(**changes):
  """A program of one instruction, with something else in it."""
  to = program.Assembler()
  x, out = to.take(4), to.take(4)
  to.write("add", 4, out, [x, x])
  to.write("keep", 4, None, [out])
  done = to.done([x], (), (), [4], ())
  for name, value in changes.items():
    object.__setattr__(done, name, value)
  return done


@pytest.mark.parametrize(
  ("changes", "wide", "words"),
  [
    ({"code": np.full((1, 10), 99)}, 4, "no such instruction"),
    ({"code": np.zeros((1, 9), np.int64)}, 4, "do not fit one another"),
    ({"starts": ()}, 4, "do not fit one another"),
    ({"starts": (10**6,)}, 4, "no such slot"),
    ({"kept": (3,)}, 4, "no such kept value"),
    ({"room": 16}, 4, "no such slot"),
    ({"literals": np.zeros(0, np.int64)}, 4, "no such number"),
    ({"chain": np.array([[0, 30, 9]])}, 4, "no such slot"),
    ({}, 5000, "no such slot"),
  ],
)
def test_programs_that_do_not_fit_are_refused(changes, wide, words):
  x = jnp.zeros((1, wide), jnp.int32)
  with pytest.raises(Exception, match=words):
    jax.block_until_ready(
      program.run(_bad(**changes), [x], (), NONE, (), (), ())
    )
