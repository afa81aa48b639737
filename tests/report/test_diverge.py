"""The first site at which two interpreters differ."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxnmc.errors import ConfigError
from jaxnmc.numerics.fx import Fx
from jaxnmc.report import diverge
from tests.chip.tiny import tiny_model

IDS = np.array([3, 0, 17, 5, 30, 1], np.int32)


def run(name, qparams=None, **more):
  fn, params, plan, integers = tiny_model("double")
  return diverge.values(
    fn, name, params, IDS, plan, qparams or integers, **more
  )


@pytest.mark.parametrize(
  ("ours", "theirs"),
  [("fixed", "graph"), ("fake_quant", "fixed"), ("fake_quant", "graph")],
)
def test_interpreters_of_one_plan_agree_everywhere(ours, theirs):
  first, second = (run(name, float64=True) for name in (ours, theirs))
  sites = diverge.compare(first, second)
  assert diverge.first(sites) is None
  paths = {site.path for site in sites}
  assert {"layers.1.attn.mlgru.h", "layers.0.mlp.glu", "head"} <= paths | {
    path.rsplit(".", 1)[0] for path in paths
  }
  if "graph" not in (ours, theirs):
    assert set(first) == set(second)


def test_float_is_off_by_a_rounding_that_is_named():
  sites = diverge.compare(run("float"), run("fixed"))
  found = diverge.first(sites)
  assert found is not None
  # Nothing is rounded before the embedding, whose table is in integers.
  assert found.path == sites[0].path == "embed"
  assert found.code is not None
  assert 0 < found.largest <= found.code / 2
  # Half a code is what one rounding may do, and no more.
  assert not diverge.compare(run("float"), run("fixed"), 0.5)[0].differ


def test_a_change_is_found_where_it_was_made():
  """One gain of the second layer, changed by one: nothing before it differs."""
  _, _, _, qparams = tiny_model("double")
  path = "layers.1.attn.in_norm.g"
  leaves, tree = jax.tree_util.tree_flatten_with_path(qparams.tree)
  name = lambda key: ".".join(
    str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k))))
    for k in key
  )
  changed = [
    np.asarray(x) + (np.arange(x.shape[0]) == 4).astype(x.dtype)
    if "layers.1" in name(key) and "g" in name(key).split(".") and x.ndim == 1
    else x
    for key, x in leaves
  ]
  moved = [
    name(key)
    for (key, x), y in zip(leaves, changed)
    if (np.asarray(x) != np.asarray(y)).any()
  ]
  assert moved, [name(key) for key, _ in leaves]
  other = dataclasses.replace(
    qparams, tree=jax.tree_util.tree_unflatten(tree, changed)
  )
  sites = diverge.compare(run("fixed"), run("fixed", other))
  found = diverge.first(sites)
  assert found is not None
  assert found.path == path, (found, moved)
  assert found.feature == 4
  before = [s for s in sites if s.path.startswith(("embed", "layers.0."))]
  assert before
  assert not any(site.differ for site in before)


def test_order_is_that_of_computation():
  paths = list(run("fixed"))
  place = [
    paths.index(path)
    for path in ("embed", "layers.0.attn.i.out", "layers.1.attn.i.out")
  ]
  assert place == sorted(place)
  assert paths != sorted(paths)


def test_numbers_of_a_site():
  fx = lambda *codes: Fx(np.array([codes]), frac=2)
  ours = {"a": fx(4, 8, 12), "b": fx(1, 1, 1)}
  theirs = {"b": fx(1, 1, 1), "a": np.array([[1.0, 2.5, 3.25]]), "c": fx(0)}
  a, b = diverge.compare(ours, theirs)
  assert (a.path, b.path) == ("a", "b")
  assert (a.values, a.differ, a.largest, a.code) == (3, 2, 0.5, 0.25)
  assert (a.token, a.feature, a.found) == (0, 1, (2.0, 2.5))
  assert (b.differ, b.token, b.found) == (0, None, None)
  assert diverge.compare(ours, theirs, 1)[0].differ == 1
  assert diverge.compare(ours, theirs, 2)[0].differ == 0


def test_what_is_no_number_differs():
  nan = {"a": np.array([[np.nan, np.inf]])}
  assert diverge.compare(nan, {"a": np.array([[1.0, np.inf]])})[0].differ == 1


def test_what_cannot_be_compared():
  ours = {"a": np.zeros((2, 3))}
  with pytest.raises(ConfigError, match="no site in common"):
    diverge.compare(ours, {"b": ours["a"]})
  with pytest.raises(ConfigError, match=r"a: found shapes \[2, 3\] and \[1\]"):
    diverge.compare(ours, {"a": np.zeros(1)})
  with pytest.raises(ConfigError, match="0 codes or more; found -1"):
    diverge.compare(ours, ours, -1)
  fn, params, _, _ = tiny_model("double")
  with pytest.raises(ConfigError, match="known are float, fake_quant"):
    diverge.values(fn, "loihi", params, IDS)
  with pytest.raises(ConfigError, match="fixed needs a plan"):
    diverge.values(fn, "fixed", params, IDS)
