"""Small models to score: one with a state, one without, and plain NumPy."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc import quantize as qz
from jaxnmc.evaluate.likelihood import Likelihood
from jaxnmc.evaluate.subject import Subject
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import matmulfree
from jaxnmc.models.matmulfree import Out
from jaxnmc.ops import transform

TOKENIZER = ByteTokenizer()
BOS, VOCAB = TOKENIZER.bos_id, TOKENIZER.vocab_size
CONFIG = matmulfree.Config(
  vocab_size=VOCAB,
  hidden_size=16,
  num_layers=1,
  intermediate_size=16,
  rms_norm_eps=1e-3,
  bitlinear_eps=1e-3,
)


@functools.cache
def recurrent():
  """(fn, params) of a tiny random model over bytes."""
  params = matmulfree.init_params(CONFIG, jax.random.key(0))
  params["embed"]["weight"] *= 20
  return matmulfree.make(CONFIG), params


@functools.cache
def integers():
  """(run, qparams) of the same model in integers."""
  fn, params = recurrent()
  ids = jax.random.randint(jax.random.key(1), (2, 64), 0, VOCAB)
  plan = qz.plan(qz.calibrate(fn)(params, [ids]), qz.W8A16)
  return transform.fixed(fn, plan), qz.quantize_params(params, plan)


@functools.cache
def stateless():
  """(run, params): logits from the ids so far, nothing handed on."""
  draw = np.random.default_rng(0)
  params = {
    "embed": jnp.asarray(draw.normal(size=(VOCAB, 8)), jnp.float32),
    "head": jnp.asarray(draw.normal(size=(8, VOCAB)), jnp.float32),
  }

  def run(params, inputs, state):
    seen = jnp.cumsum(params["embed"][inputs["ids"]], axis=-2)
    return Out(jnp.tanh(seen) @ params["head"]), state

  return run, params


def subject(kind: str, **changes) -> Subject:
  """`recurrent`, `integers` or `stateless` as a subject."""
  if kind == "recurrent":
    fn, params = recurrent()
    run = transform.reference(fn)
  else:
    run, params = integers() if kind == "integers" else stateless()
  return Subject(run, params, TOKENIZER, VOCAB, BOS, **changes)


@functools.cache
def likelihood(kind: str) -> Likelihood:
  """A scorer that all tests share, for its compiled programs."""
  return subject(kind).likelihood(4, 8)


@functools.cache
def _compiled(kind: str):
  one = subject(kind)
  return jax.jit(one.run), one.params


def log_p(kind: str, inputs: np.ndarray) -> np.ndarray:
  """ln p float64[T, V] after each input, by NumPy from all the logits."""
  run, params = _compiled(kind)
  # Padded behind, so that few lengths are compiled; causal models do not see.
  padded = np.zeros(-(-len(inputs) // 64) * 64, np.int32)
  padded[: len(inputs)] = inputs
  logits = run(params, {"ids": jnp.asarray(padded)[None]}, None)[0].logits
  if hasattr(logits, "to_float"):
    logits = logits.to_float()
  x = np.asarray(logits, np.float64)[0, : len(inputs)]
  x = x - x.max(axis=-1, keepdims=True)
  return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
