"""The delta rule equals Python's integers, bit for bit, example by example."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.chip import learning
from jaxnmc.chip.learning import delta, generator, mismatch
from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.numerics.formats import Format
from tests.chip.learning import oracle

V, D, N = 5, 4, 6
COUNTS = ("rows", "updates", "writes", "biases", "randoms", "saturations")


def formats(hidden=16, weight=8, fh=12, fw=6, fz=9, fb=12, bias=True):
  return learning.Formats(
    Format(hidden, fh),
    Format(weight, fw),
    Format(16, fz),
    Format(16, fb) if bias else None,
  )


def plain(f):
  """The numbers of the oracle."""
  found = {"Fh": f.hidden.frac, "Fw": f.weight.frac, "Fz": f.logits.frac}
  found |= {"high_h": f.hidden.high, "high_w": f.weight.high}
  found["high_z"] = f.logits.high
  if f.bias is not None:
    found |= {"Fb": f.bias.frac, "high_b": f.bias.high}
  return found


def draw_case(f, seed, scale=1.0):
  rng = np.random.default_rng(seed)
  full = lambda fmt, size: rng.integers(
    int(-fmt.high * scale), int(fmt.high * scale) + 1, size
  )
  weight, hidden = full(f.weight, (V, D)), full(f.hidden, (N, D))
  hidden[0, 1] = 0
  bias = None if f.bias is None else full(f.bias, V)
  return weight, bias, hidden, rng.integers(0, V, N)


def by_hand(f, case, rule, rows=None, epochs=1, shuffle=True):
  weight, bias, hidden, targets = case
  w = [[int(x) for x in row] for row in weight]
  b = None if bias is None else [int(x) for x in bias]
  fields, seen, n = dataclasses.asdict(rule), [], 0
  for epoch in range(epochs):
    each = oracle.order(rule.seed, epoch, N) if shuffle else range(N)
    for k in each:
      h = [int(x) for x in hidden[k]]
      found = oracle.delta_step(
        w, b, h, int(targets[k]), n, plain(f), fields, rows
      )
      seen.append((k, *found))
      n += 1
  return w, b, seen


def same(f, case, rule, rows=None, **options):
  weight, bias, hidden, targets = case
  head = learning.Head.of(weight, f, bias)
  head, log = learning.tune(head, hidden, targets, rule, rows=rows, **options)
  w, b, seen = by_hand(f, case, rule, rows, **options)
  np.testing.assert_array_equal(head.weight, w)
  if b is not None:
    np.testing.assert_array_equal(head.bias, b)
  assert head.weight.dtype == jnp.int8
  np.testing.assert_array_equal(log.order, [k for k, _, _ in seen])
  right = [won == targets[k] for k, won, _ in seen]
  np.testing.assert_array_equal(log.right, right)
  for name in COUNTS:
    found = getattr(log.counts, name)
    np.testing.assert_array_equal(found, [c[name] for _, _, c in seen], name)
  return log, w


BYTES = (8, 6, 4, 4, 8)
# One program each, so there are few; data are drawn.
CASES = {
  "softmax": (learning.Delta(rate=-4), {}, None),
  "softmax, some rows": (learning.Delta(rate=-1), {}, (3, 0)),
  "perceptron, no bias": (
    learning.Delta(rate=-6, error="perceptron"),
    {"bias": False},
    None,
  ),
  "sigmoid, nearest, 8 bits": (
    learning.Delta(rate=-1, error="sigmoid", rounding="nearest"),
    dict(zip(("hidden", "weight", "fh", "fw", "fz"), BYTES)),
    (4,),
  ),
  "short factors": (
    learning.Delta(rate=-2, error_frac=7, pre_shift=9),
    {"fz": 12},
    None,
  ),
}


@pytest.mark.parametrize("name", CASES)
@given(
  scale=st.sampled_from((1.0, 0.1, 0.01)),
  seeds=st.tuples(st.integers(0, 2**20), st.integers(-(2**40), 2**40)),
)
def test_the_rule_is_that_of_the_page(name, scale, seeds):
  rule, options, rows = CASES[name]
  f = formats(**options)
  rule = dataclasses.replace(rule, seed=seeds[1])
  same(f, draw_case(f, seeds[0], scale), rule, rows)


def test_epochs_go_on_and_are_in_other_orders():
  f = formats()
  rule = learning.Delta(rate=-3)
  log, _ = same(f, draw_case(f, 1, 0.2), rule, epochs=3)
  orders = log.order.reshape(3, N)
  assert (np.sort(orders) == np.arange(N)).all()
  assert (orders[0] != orders[1]).any()
  same(f, draw_case(f, 1, 0.2), rule, epochs=2, shuffle=False)
  # In two calls what one call does.
  weight, bias, hidden, targets = draw_case(f, 1, 0.2)
  head = learning.Head.of(weight, f, bias)
  once, _ = learning.tune(head, hidden, targets, rule, epochs=2, shuffle=False)
  half, _ = learning.tune(head, hidden, targets, rule, shuffle=False)
  half, _ = learning.tune(half, hidden, targets, rule, shuffle=False, start=N)
  jax.tree.map(np.testing.assert_array_equal, once, half)


def test_what_saturates_is_counted():
  f = formats(weight=3, fw=0)
  log, w = same(f, draw_case(f, 2), learning.Delta(rate=1))
  assert log.totals()["saturations"] > 0
  assert {abs(x) for row in w for x in row} <= {0, 1, 2, 3}


def test_a_bias_finer_than_the_error_is_multiplied():
  f = learning.Formats(
    Format(8, 4), Format(8, 5), Format(16, 8), Format(24, 20)
  )
  rule = learning.Delta(rate=0)
  assert rule.bias_shift(f) == -5
  same(f, draw_case(f, 3, 0.3), rule)


def test_only_the_rows_asked_for_change():
  f = formats()
  weight, bias, hidden, targets = draw_case(f, 4, 0.1)
  head = learning.Head.of(weight, f, bias)
  rule = learning.Delta(rate=-2)
  after, log = learning.tune(head, hidden, targets, rule, rows=[2, 0])
  for row in (1, 3, 4):
    np.testing.assert_array_equal(after.weight[row], head.weight[row])
    assert after.bias[row] == head.bias[row]
  assert (np.asarray(after.weight[2]) != weight[2]).any()
  assert log.counts.rows.max() <= 2


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4))
def test_words_are_those_of_the_page(counters):
  assert int(generator.word(generator.key(7), *counters)) == oracle.word(
    7, *counters
  )
  assert int(generator.word(generator.key(-3), *counters)) == oracle.word(
    -3, *counters
  )


def test_words_are_fair():
  """Means, and bits of neighbours: 2^20 words, 5 standard deviations."""
  n = jnp.arange(1024, dtype=jnp.int32)
  words = np.asarray(
    generator.word(generator.key(5), 0, n[:, None], n[None, :])
  )
  assert len(np.unique(words)) > 0.999 * words.size
  bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
  limit = 5 * 0.5 / words.size**0.5
  assert np.abs(bits.mean((0, 1)) - 0.5).max() < limit
  for a, b in ((words[1:], words[:-1]), (words[:, 1:], words[:, :-1])):
    unlike = ((a ^ b)[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(unlike.mean((0, 1)) - 0.5).max() < 1.1 * limit


def test_random_rounding_is_right_on_average():
  words = generator.word(generator.key(1), jnp.arange(1 << 16, dtype=jnp.int32))
  for x in (-1000, -3, 0, 5, 700):
    found = np.asarray(generator.round_by(jnp.int32(x), 10, words))
    assert set(np.unique(found)) <= {x >> 10, (x >> 10) + 1}
    assert abs(found.mean() - x / 1024) < 5 * 0.5 / 256


def test_the_integer_softmax_is_a_softmax():
  z = np.random.default_rng(0).normal(0, 2, (20, 300))
  codes = jnp.asarray(np.round(z * 1024), jnp.int32)
  ids = jnp.arange(300, dtype=jnp.int32)

  @jax.jit
  def share(row):
    told = mismatch.shared("softmax", 10, row, ids)
    return mismatch.error("softmax", 10, 15, row, ids, jnp.int32(-1), told)

  for row, real in zip(codes, z):
    p = share(row)
    want = np.exp(real - real.max())
    want /= want.sum()
    assert np.abs(np.asarray(p) / 2**15 - want).max() < 0.012 * want.max()


@given(st.integers(2**15, 2**31 - 1))
def test_the_inverse_is_a_floor(total):
  assert int(mismatch.inverse(jnp.int32(total))) == 2**45 // total


def test_no_float_and_no_wide_integer():
  f = formats()
  weight, bias, hidden, targets = draw_case(f, 5)
  head = learning.Head.of(weight, f, bias)
  with jax.enable_x64(True):
    for kind in mismatch.KINDS:
      rule = learning.Delta(error=kind)
      rows, key = jnp.array([1, 2], jnp.int32), generator.key(1)
      state = delta.State(head, rows, jnp.int32(0), key)
      example = jnp.asarray(hidden[0], jnp.int32), jnp.int32(targets[0])
      run = jax.make_jaxpr(lambda s, x, r=rule: delta.step(r, s, x))
      for kind_of in _types(run(state, example).jaxpr):
        assert kind_of in ("int32", "uint32", "int8", "bool"), kind_of


def _types(jaxpr):
  for eqn in jaxpr.eqns:
    for v in eqn.outvars:
      yield str(v.aval.dtype)
    for sub in jax.tree.leaves(list(eqn.params.values())):
      if hasattr(sub, "jaxpr"):
        yield from _types(sub.jaxpr)


def head(**options):
  f = formats(**options)
  weight, bias, hidden, targets = draw_case(f, 6)
  return learning.Head.of(weight, f, bias), hidden, targets


def refused(error, text, **changes):
  layer, hidden, targets = head()
  given = {"head": layer, "hidden": hidden, "targets": targets}
  given |= {"rule": learning.Delta()} | changes
  with pytest.raises(error, match=text):
    learning.tune(**given)


def test_bad_input_is_refused():
  _, hidden, targets = head()
  refused(
    ConfigError, r"targets\[0\] is 9; the head has rows 0 to 4", targets=[9] * N
  )
  refused(ConfigError, "hidden is float32", hidden=np.float32(hidden))
  refused(ConfigError, "hidden has 3 columns, the head 4", hidden=hidden[:, :3])
  refused(ConfigError, "6 examples, targets 5", targets=targets[:5])
  refused(ConfigError, "at least one", hidden=hidden[:0], targets=targets[:0])
  refused(
    FormatError,
    r"hidden\[0, 0\] is 40000; .* -32639 to 32639",
    hidden=np.full((N, D), 40000),
  )
  refused(ConfigError, "2 entries, 1 of them different", rows=[1, 1])
  refused(ConfigError, r"rows\[0\] is 5", rows=[5])
  refused(ConfigError, "epochs is 0", epochs=0)
  refused(ConfigError, "start is -1", start=-1)
  refused(
    FormatError, "take a rate from -9 to 21", rule=learning.Delta(rate=-20)
  )
  for field, value in (
    ("error", "hinge"),
    ("rounding", "up"),
    ("rate", 0.5),
    ("error_frac", 16),
  ):
    with pytest.raises(ConfigError, match=field):
      learning.Delta(**{field: value})


def test_a_head_is_checked():
  f = formats(bias=False)
  with pytest.raises(FormatError, match=r"weight\[0, 0\] is 128"):
    learning.Head.of(np.full((2, 2), 128), f)
  with pytest.raises(ConfigError, match="bias is given, its format absent"):
    learning.Head.of(np.zeros((2, 2), int), f, np.zeros(2, int))
  with pytest.raises(FormatError, match="sums over 600 columns"):
    learning.Head.of(np.zeros((2, 600), int), f)
  with pytest.raises(FormatError, match="format of weight is 9 bits"):
    formats(weight=9)
