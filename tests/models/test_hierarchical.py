"""Two-stage heads: a distribution, and a shortcut that says what it costs."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.models import clusters as clustered
from jaxnmc.models import families, gpt, hierarchical, matmulfree
from jaxnmc.numerics.ternary import ternarize

V, D = 23, 6


def _head(seed=0, size=V, clusters=None, bias=True):
  """(clusters, head, rows, biases) of a random plain head."""
  rng = np.random.default_rng(seed)
  weight = rng.normal(size=(size, D)).astype(np.float32)
  biases = rng.normal(size=size).astype(np.float32) if bias else None
  found = clustered.by_rows(weight, clusters)
  return found, hierarchical.convert(found, weight, biases), weight, biases


def _partition(clusters, size):
  members, cluster, slot = map(np.asarray, jax.tree.leaves(clusters))
  ids = members[members < size]
  assert sorted(ids.tolist()) == list(range(size))
  for token in range(size):
    assert members[cluster[token], slot[token]] == token


@given(st.integers(1, 40), st.data())
def test_clusters_are_a_partition_of_bounded_size(size, data):
  count = data.draw(st.integers(1, size))
  rng = np.random.default_rng(data.draw(st.integers(0, 99)))
  # Few different rows, so that many are equally near.
  rows = rng.integers(0, 3, (size, 2)).astype(float)
  for clusters in (
    clustered.by_rows(rows, count),
    clustered.by_frequency(rows[:, 0], count),
  ):
    _partition(clusters, size)
    assert clusters.members.shape[0] == count
    assert clusters.members.shape[1] <= -(-size // count)


def test_the_number_is_about_the_root():
  assert [clustered.number(v) for v in (1, 2, 4, 5, 8192)] == [
    *(1, 2, 2, 3, 91)
  ]
  clusters = clustered.by_frequency(np.zeros(8192))
  assert clusters.members.shape == (91, 91)


def test_frequent_tokens_lie_together():
  clusters = clustered.by_frequency([1, 9, 5, 9, 0, 2], 3)
  assert clusters.members.tolist() == [[1, 3], [2, 5], [0, 4]]


def test_similar_rows_lie_together_and_always_in_the_same_place():
  rng = np.random.default_rng(3)
  middle = 20 * rng.normal(size=(4, D))
  rows = np.repeat(middle, 5, 0) + rng.normal(size=(20, D)) / 10
  rows = rows[rng.permutation(20)]
  clusters = clustered.by_rows(rows, 4)
  members = np.asarray(clusters.members)
  assert max(rows[m].std(0).max() for m in members) < 1
  again = clustered.by_rows(rows, 4)
  np.testing.assert_array_equal(again.members, members)


# --- a trained two-level softmax


_log_probs = jax.jit(hierarchical.log_probs)
_likeliest = jax.jit(hierarchical.likeliest, static_argnums=3)


def _by_hand(clusters, head, x):
  """p of every token, in float64, from the definition."""
  a = np.asarray(head["clusters"]["weight"], np.float64) @ x
  a = a + head["clusters"]["bias"]
  sizes = (np.asarray(clusters.members) < V).sum(1)
  a = np.where(sizes > 0, a, -np.inf)
  outer = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
  p = np.zeros(V)
  for k, members in enumerate(np.asarray(clusters.members)):
    mine = [m for m in members if m < V]
    if mine:
      b = np.asarray(head["words"]["weight"], np.float64)[k, : len(mine)] @ x
      b = b + np.asarray(head["words"]["bias"])[k, : len(mine)]
      p[mine] = outer[k] * np.exp(b - b.max()) / np.exp(b - b.max()).sum()
  return p


@pytest.mark.parametrize("count", [None, 1, 9, V])
def test_it_is_a_distribution_by_the_definition(count):
  clusters, head, _, _ = _head(1, clusters=count)
  x = np.random.default_rng(0).normal(size=(7, D)).astype(np.float32)
  found = np.exp(_log_probs(clusters, head, x))
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
  for row, p in zip(x, found):
    np.testing.assert_allclose(p, _by_hand(clusters, head, row), 1e-4, 1e-7)
  targets = np.arange(7) * 3
  np.testing.assert_allclose(
    jax.jit(hierarchical.token_log_probs)(clusters, head, x, targets),
    np.log(found)[np.arange(7), targets],
    rtol=1e-4,
    atol=1e-5,
  )


def test_an_empty_cluster_takes_no_probability():
  clusters = clustered.from_assignment(np.array([0, 0, 2] + [2] * 20), 3)
  _, _, weight, bias = _head(2)
  head = hierarchical.convert(clusters, weight, bias)
  x = np.ones((1, D), np.float32)
  p = np.exp(_log_probs(clusters, head, x))
  np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
  np.testing.assert_allclose(p[0], _by_hand(clusters, head, x[0]), 1e-4, 1e-7)


def test_it_learns():
  clusters, head, _, _ = _head(4)
  rng = np.random.default_rng(5)
  x = rng.normal(size=(V, D)).astype(np.float32)
  targets = rng.permutation(V)
  loss = lambda head: (
    -hierarchical.token_log_probs(clusters, head, x, targets).mean()
  )
  step = jax.jit(jax.value_and_grad(loss))
  first = float(step(head)[0])
  for _ in range(60):
    value, slope = step(head)
    assert all(np.isfinite(s).all() for s in jax.tree.leaves(slope))
    head = jax.tree.map(lambda p, g: np.asarray(p) - np.asarray(g), head, slope)
  assert float(value) < first / 3


@pytest.mark.parametrize("best", [1, 2, 5])
def test_a_certain_choice_is_the_likeliest_token(best):
  clusters, head, _, _ = _head(6)
  head["clusters"]["weight"] *= 4
  x = np.random.default_rng(1).normal(size=(64, D)).astype(np.float32)
  found = _likeliest(clusters, head, x, best)
  wanted = np.argmax(_log_probs(clusters, head, x), -1)
  sure = np.asarray(found.certain)
  np.testing.assert_array_equal(np.asarray(found.token)[sure], wanted[sure])
  assert sure.any()
  if best == clusters.members.shape[0]:
    assert sure.all()
  elif best == 1:
    # Some are not, and some of these are wrong: the flag says something.
    assert (np.asarray(found.token) != wanted).any()


# --- a converted head


def _rule(clusters, head, x, best):
  """(token, rows read) in Python's integers."""
  sums = lambda w, b: [
    sum(int(p) * int(q) for p, q in zip(row, x)) + int(c)
    for row, c in zip(w, b)
  ]
  stage, words = (
    jax.tree.map(np.asarray, head[n]) for n in ("clusters", "words")
  )
  first = sums(stage["weight"], stage["bias"])
  order = sorted(range(len(first)), key=lambda k: (-first[k], k))[:best]
  found = []
  for k in order:
    scores = sums(words["weight"][k], words["bias"][k])
    found += [
      (-s, int(m))
      for s, m in zip(scores, np.asarray(clusters.members)[k])
      if m < V
    ]
  return min(found)[1], len(first) + len(found)


_choose = jax.jit(hierarchical.choose, static_argnums=3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([2, 3, 8]))
def test_integers_are_those_of_python(seed, best, bits):
  # Two bits: rows of -1, 0 and 1, and many ties.
  clusters, head, _, _ = _head(seed % 5, clusters=4)
  whole = hierarchical.quantize(head, 127, 1 / 16, bits)
  x = np.random.default_rng(seed).integers(-127, 128, (5, D)).astype(np.int32)
  x[0] = np.sign(x[0])
  found = _choose(clusters, whole, x, best)
  wanted = [_rule(clusters, whole, row, best) for row in x]
  assert list(zip(found.token.tolist(), found.rows.tolist())) == wanted
  assert (np.asarray(found.certain) == (best == 4)).all()


def test_no_float_in_the_integers():
  clusters, head, _, _ = _head()
  whole = hierarchical.quantize(head, 127)
  call = lambda x: hierarchical.choose(clusters, whole, x, 2)
  text = str(jax.make_jaxpr(call)(np.zeros((2, D), np.int32)))
  assert "f32" not in text
  assert "f64" not in text


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_all_clusters_give_the_full_head(seed, whole, bias):
  clusters, head, weight, biases = _head(seed % 7, bias=bias)
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(4, D)).astype(np.float32)
  full = weight, biases
  if whole:
    x = np.round(16 * x).astype(np.int32)
    head = hierarchical.quantize(head, 127, 1 / 16)
    full = hierarchical.flat(clusters, head)
  count = clusters.members.shape[0]
  found = hierarchical.compare(clusters, head, full, x, count)
  assert found.positions == found.same == 4
  assert found.agreement == 1.0
  assert found.full == 4 * V
  assert found.rows == 4 * (V + count)


def test_fewer_clusters_read_fewer_rows_and_are_sometimes_wrong():
  clusters, head, weight, biases = _head(1, size=V)
  x = np.random.default_rng(2).normal(size=(200, D)).astype(np.float32)
  rows = [
    hierarchical.compare(clusters, head, (weight, biases), x, best)
    for best in (1, 2, 5)
  ]
  assert all(a.rows < b.rows for a, b in zip(rows, rows[1:]))
  assert rows[0].agreement < 1
  assert rows[0].same <= rows[1].same <= rows[2].same
  # Counted apart: every cluster scored, and the members of those looked into.
  chosen = _choose(clusters, head, x, 1)
  sizes = (np.asarray(clusters.members) < V).sum(1)
  own = sizes[np.asarray(clusters.cluster)[np.asarray(chosen.token)]]
  assert rows[0].rows == 200 * len(sizes) + own.sum()


# --- heads of models


CONFIGS = {
  "own": gpt.Config(
    vocab_size=V,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    tie_word_embeddings=False,
    head_bias=True,
  ),
  "tied": gpt.Config(vocab_size=V, hidden_size=8, num_layers=1, num_heads=2),
  "matmulfree": matmulfree.Config(
    vocab_size=V, hidden_size=8, num_layers=1, intermediate_size=8
  ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_head_of_a_model_and_what_it_reads(name):
  config = CONFIGS[name]
  init = families.family_of(config).init_params
  params = init(config, jax.random.key(0))
  if name == "own":
    params["head"]["bias"] += jnp.arange(V)
  ids = np.arange(9, dtype=np.int32)
  run = lambda c, p: (
    jax.jit(nmc.reference(families.make(c)))(p, {"ids": ids})[0].logits
  )
  x = run(*hierarchical.head_input(config, params))
  weight, bias = hierarchical.head_rows(config, params)
  logits = x @ weight.T + (0 if bias is None else bias)
  np.testing.assert_allclose(logits, run(config, params), 1e-4, 1e-4)


def test_a_head_that_is_ternary_already():
  config = CONFIGS["matmulfree"]
  params = matmulfree.init_params(config, jax.random.key(0))
  latent = hierarchical.head_rows(config, params)[0]
  params["head"]["weight"] = ternarize(params["head"]["weight"])
  np.testing.assert_array_equal(
    hierarchical.head_rows(config, params)[0], latent
  )


CLUSTERS, HEAD, WEIGHT, BIAS = _head()
X = np.zeros((1, D), np.float32)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: clustered.by_rows(WEIGHT, 0), "allowed are 1 to 23"),
    (lambda: clustered.by_frequency(WEIGHT[:, 0], 24), "found 24 clusters"),
    (lambda: clustered.by_rows(WEIGHT[0], 1), r"\[V, D\]"),
    (lambda: hierarchical.convert(CLUSTERS, WEIGHT[1:]), "23 tokens"),
    (lambda: hierarchical.convert(CLUSTERS, WEIGHT, BIAS[1:]), "23 tokens"),
    (lambda: hierarchical.quantize(HEAD, 1, bits=9), "2 to 8"),
    (
      lambda: hierarchical.quantize(jax.tree.map(lambda a: a / 0, HEAD), 1),
      "not finite",
    ),
    (lambda: hierarchical.choose(CLUSTERS, HEAD, X, 6), "allowed are 1 to 5"),
    (lambda: hierarchical.likeliest(CLUSTERS, HEAD, X, 0), "found 0 clusters"),
    (
      lambda: hierarchical.compare(CLUSTERS, HEAD, (WEIGHT, BIAS), X[0], 1),
      r"\[N, D\]",
    ),
    (
      lambda: hierarchical.head_input(
        gpt.Config(hidden_size=8, num_heads=2, ternary=True), {}
      ),
      "'tie_word_embeddings'",
    ),
  ],
)
def test_what_makes_no_head_is_refused(call, words):
  with pytest.raises(ConfigError, match=words):
    call()


def test_sums_beyond_32_bits_are_refused():
  with pytest.raises(FormatError, match="32 bits"):
    hierarchical.quantize(HEAD, 2**24)
