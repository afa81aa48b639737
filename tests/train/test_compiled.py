"""The guard against compiling in the middle of a run."""

import logging

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.train.compiled import Compiled


def test_counts_and_says_why(caplog):
  step = Compiled(jax.jit(lambda s, x: {"a": s["a"] + x.sum()}))
  state = {"a": jnp.float32(1)}
  with caplog.at_level(logging.WARNING, "jaxnmc.train.compiled"):
    for _ in range(3):
      state = step(state, np.ones((4, 2), np.float32))
    assert [c.reason for c in step.compilations] == ["first call"]
    assert caplog.text == ""
    state = step(state, np.ones((4, 1), np.float32))
    assert float(state["a"]) == 1 + 3 * 8 + 4
    said = "argument [1]: was float32[4, 2], is float32[4, 1]"
    assert step.compilations[1].reason == said
    assert said in caplog.text
    # Both programs stay; a known shape makes no third.
    step(state, np.ones((4, 2), np.float32))
    step(state, np.ones((4, 1), np.float32))
    assert len(step.compilations) == 2
    step({"a": jnp.int32(1)}, np.ones((4, 1), np.float32))
    want = "argument [0]['a']: was float32[], is int32[]"
    assert step.compilations[2].reason == want
  assert all(c.seconds > 0 for c in step.compilations)


def test_a_changed_tree_is_named():
  step = Compiled(jax.jit(lambda s: sum(jax.tree.leaves(s))))
  x = jnp.float32(1)
  step({"a": x})
  step(dict.fromkeys("abcdef", x))
  assert step.compilations[1].reason == (
    "argument [0]['b']: was absent, is float32[]; argument [0]['c']: was"
    " absent, is float32[]; argument [0]['d']: was absent, is float32[] and 2"
    " more"
  )
