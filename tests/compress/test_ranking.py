"""What goes: the lowest of all, never all of a layer; shares as counts."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxnmc.compress import heads, ranking, units
from jaxnmc.errors import ConfigError
from jaxnmc.models import gpt, matmulfree
from tests.compress.small import CONFIGS, SIZES, make_params

ROWS = st.lists(
  st.lists(st.integers(0, 6).map(float), min_size=1, max_size=6),
  min_size=1,
  max_size=5,
)


@hypothesis.given(ROWS, st.floats(0, 1))
def test_the_lowest_go_and_every_layer_keeps_its_best(rows, share):
  scores = [np.array(row) for row in rows]
  most = sum(len(x) - 1 for x in scores)
  gone = int(share * most)
  kept = ranking.lowest(scores, gone)
  assert [len(k) for k in kept] == [len(x) for x in scores]
  assert sum(int((~k).sum()) for k in kept) == gone
  for k, x in zip(kept, scores):
    assert x[k].max() == x.max()
  # Whatever went is no better than whatever stayed and was not protected.
  lost = [v for k, x in zip(kept, scores) for v in x[~k]]
  free = [v for k, x in zip(kept, scores) if k.sum() > 1 for v in x[k]]
  assert max(lost, default=0) <= min(free, default=np.inf)


def test_of_equals_the_first_goes_first():
  kept = ranking.lowest([np.ones(3), np.ones(2)], 3)
  assert [k.tolist() for k in kept] == [[False, False, True], [False, True]]


@pytest.mark.parametrize(
  ("share", "total", "layers", "want"),
  [(0.4, 32, 4, 13), (0.3, 1024, 1, 307), (0.5, 3, 1, 2), (0, 7, 7, 0)],
)
def test_a_share_is_a_whole_number(share, total, layers, want):
  assert ranking.count("heads", share, total, layers) == want


@pytest.mark.parametrize(
  ("share", "message"),
  [
    (0.9, "share of 0.9 removes 29 of 32 heads, .* at most 28 may go; give a"),
    (1, "found a share of 1 to remove, allowed is 0 to below 1"),
    (-0.1, "found a share of -0.1"),
    (float("nan"), "found a share of nan"),
  ],
)
def test_a_share_that_leaves_nothing(share, message):
  with pytest.raises(ConfigError, match=message) as error:
    ranking.count("heads", share, 32, 4)
  assert "\n" not in str(error.value)


def test_the_share_that_is_named_is_the_limit():
  """Just below it is taken, at it is refused."""
  with pytest.raises(ConfigError, match=r"share below 0.8906"):
    ranking.count("heads", 28.5 / 32, 32, 4)
  assert ranking.count("heads", 0.8906, 32, 4) == 28


# --- scores


@pytest.mark.parametrize("name", ["gpt2", "llama", "spiking"])
def test_the_score_of_a_head_is_the_norm_of_all_that_it_has(name):
  config, params = CONFIGS[name], make_params(name)
  size, groups = config.head_size, config.kv_heads
  wide = config.num_heads // groups * size
  for layer, found in zip(params["layers"], heads.scores(config, params)):
    p = layer["attn"]
    for h in range(groups):
      mine, one = (
        slice(h * wide, (h + 1) * wide),
        slice(h * size, (h + 1) * size),
      )
      rows = [p["q"]["weight"][mine], p["o"]["weight"][:, mine]]
      rows += [p[n]["weight"][one] for n in "kv"]
      if config.bias:
        rows += [p["q"]["bias"][mine], p["k"]["bias"][one], p["v"]["bias"][one]]
      want = np.linalg.norm(np.concatenate([x.ravel() for x in rows]))
      assert found[h] == pytest.approx(want, rel=1e-12)
    assert len(found) == groups


@pytest.mark.parametrize("name", ["gpt2", "llama", "windows"])
def test_the_score_of_a_unit_is_the_norm_of_row_bias_and_column(name):
  config, params = CONFIGS[name], make_params(name)
  for layer, found in zip(params["layers"], units.scores(config, params)):
    p = layer["mlp"]
    names = ["up", "gate"] if config.mlp == "swiglu" else ["up"]
    for u in range(10):
      rows = [p["down"]["weight"][:, u]]
      rows += [p[n]["weight"][u] for n in names]
      if config.bias:
        rows += [[p[n]["bias"][u]] for n in names]
      want = np.linalg.norm(np.concatenate([np.ravel(x) for x in rows]))
      assert found[u] == pytest.approx(want, rel=1e-12)
    assert len(found) == 10


def test_heads_are_ranked_over_all_layers():
  """13 of 32, the weakest of all: one layer may lose most of its own."""
  config = gpt.Config(
    **{**SIZES, "hidden_size": 16, "num_layers": 4, "num_heads": 8}
  )
  params = gpt.init_params(config, jax.random.key(0))
  scale = lambda i: lambda x: x * (i + 1)
  layers = [jax.tree.map(scale(i), p) for i, p in enumerate(params["layers"])]
  kept = heads.keep(config, {**params, "layers": layers}, 0.4)
  assert [int(k.sum()) for k in kept] == [1, 2, 8, 8]
  found = heads.scores(config, {**params, "layers": layers})
  assert found[0][kept[0]] == max(found[0])


def test_units_go_by_layer_or_over_all():
  config, params = CONFIGS["gpt2"], make_params("gpt2")
  layers = [dict(p) for p in params["layers"]]
  layers[1] = {
    **layers[1],
    "mlp": jax.tree.map(lambda x: 0.01 * x, layers[1]["mlp"]),
  }
  params = {**params, "layers": layers}
  each = units.keep(config, params, 0.3)
  assert [int(k.sum()) for k in each] == [7, 7]
  found = units.scores(config, params)
  for k, x in zip(each, found):
    assert x[~k].max() < x[k].min()
  every = units.keep(config, params, 0.3, rank="global")
  assert [int(k.sum()) for k in every] == [10, 4]


# --- what is refused


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda c, p: heads.keep(c, p, 0.95), "removes 8 of 8 heads.* most 6"),
    (lambda c, p: units.keep(c, p, 0.96), "removes 10 of 10 units.* most 9"),
    (lambda c, p: units.keep(c, p, 0.97, "global"), "removes 19 of 20 .* 18"),
    (lambda c, p: units.keep(c, p, 0.3, "all"), "found rank 'all', allowed"),
  ],
)
def test_a_ratio_that_would_leave_none(call, message):
  with pytest.raises(ConfigError, match=message) as error:
    call(CONFIGS["gpt2"], make_params("gpt2"))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("score", [heads.scores, units.scores])
def test_other_models_have_no_such_parts(score):
  with pytest.raises(ConfigError, match="type .*matmulfree.*allowed is a"):
    score(matmulfree.Config(hidden_size=8, num_layers=1), {})
  with pytest.raises(ConfigError, match="are ternary .*with dense ones"):
    score(gpt.Config(**SIZES, head_dim=4, ternary=True), {})
