"""How close two forms of a model are: against NumPy over the whole logits."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.evaluate import closeness, text
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import gpt, matmulfree
from jaxnmc.ops import transform

BOS = ByteTokenizer().bos_id
CONFIG = matmulfree.Config(
  vocab_size=ByteTokenizer().vocab_size,
  hidden_size=16,
  num_layers=1,
  intermediate_size=16,
)
DOCUMENTS = [
  np.frombuffer(x, np.uint8).astype(np.int32) % CONFIG.vocab_size
  for x in (b"one", b"", b"a longer document", b"two and three")
]


@pytest.fixture(scope="module")
def forms():
  """((run, params) of a random model, the same with other weights)."""
  made = []
  for seed in (0, 1):
    params = matmulfree.init_params(CONFIG, jax.random.key(seed))
    params["embed"]["weight"] *= 20
    made.append((transform.reference(matmulfree.make(CONFIG)), params))
  return made


def by_hand(forms):
  """Sums per document that is not empty, shortest first, from all logits."""
  rows = []
  for ids in sorted((d for d in DOCUMENTS if len(d)), key=len):
    fed = np.concatenate([[BOS], ids[:-1]]).astype(np.int32)
    logs = []
    for run, params in forms:
      logits = run(params, {"ids": jnp.asarray(fed)})[0].logits
      logits = np.asarray(logits, np.float64)
      top = logits.max(-1, keepdims=True)
      logs.append(
        logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
      )
    p, q = logs
    at = np.arange(len(ids))
    same = (p.argmax(-1) == q.argmax(-1)).sum()
    kl = (np.exp(p) * (p - q)).sum()
    rows.append((len(ids), -p[at, ids].sum(), -q[at, ids].sum(), same, kl))
  return np.array(rows).T


@pytest.mark.parametrize(("batch", "chunk"), [(2, 4), (16, 128), (1, 1)])
def test_sums_are_those_of_the_whole_logits(forms, batch, chunk):
  seen = []
  found = closeness.compare(
    *(*forms, DOCUMENTS),
    bos=BOS,
    batch=batch,
    chunk=chunk,
    progress=seen.append,
  )
  ids, base, other, same, kl = by_hand(forms)
  np.testing.assert_array_equal(found.ids, ids)
  np.testing.assert_allclose(found.base_nats, base, rtol=1e-5)
  np.testing.assert_allclose(found.nats, other, rtol=1e-5)
  np.testing.assert_array_equal(found.same, same)
  np.testing.assert_allclose(found.kl, kl, rtol=1e-4)
  assert sum(seen) == ids.sum()
  assert found.perplexity == pytest.approx(math.exp(other.sum() / ids.sum()))
  grown = found.perplexity / found.base_perplexity - 1
  assert found.loss.value == pytest.approx(grown)
  assert found.agreement.value == pytest.approx(same.sum() / ids.sum())
  assert found.divergence.value == pytest.approx(kl.sum() / ids.sum(), rel=1e-4)


def test_a_form_is_closest_to_itself(forms):
  found = closeness.compare(forms[0], forms[0], DOCUMENTS, bos=BOS)
  assert found.loss == closeness.Figure(0.0, 0.0)
  assert found.agreement == closeness.Figure(1.0, 0.0)
  assert abs(found.divergence.value) < 1e-6


def test_intervals_hold_what_they_promise():
  """Of many samples of documents, 95 % of the intervals hold the truth."""
  rng = np.random.default_rng(0)
  held = 0
  for _ in range(400):
    ids = rng.integers(20, 60, 50).astype(float)
    same = rng.binomial(ids.astype(int), rng.beta(8, 2, 50)).astype(float)
    zero = np.zeros(50)
    figure = closeness.Closeness(ids, zero, zero, same, zero).agreement
    held += abs(figure.value - 0.8) <= figure.spread
  assert 0.91 <= held / 400 <= 0.98


def test_one_document_has_no_interval(forms):
  found = closeness.compare(*forms, DOCUMENTS[:1], bos=BOS)
  assert found.loss.spread is None
  with pytest.raises(text.DataError, match="no ids to predict"):
    closeness.compare(*forms, DOCUMENTS[1:2], bos=BOS)


def test_a_bounded_context_cuts_documents():
  """Pieces of a transformer's context, each from its own begin token."""
  config = gpt.Config(
    vocab_size=CONFIG.vocab_size,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    max_position_embeddings=6,
  )
  made = []
  for seed in (0, 1):
    params = gpt.init_params(config, jax.random.key(seed))
    made.append((transform.reference(gpt.make(config)), params))
  found = closeness.compare(*(*made, DOCUMENTS), bos=BOS, batch=2)
  cut = [d[a : a + 6] for d in DOCUMENTS for a in range(0, len(d), 6)]
  want = closeness.compare(*(*made, cut), bos=BOS, chunk=3)
  np.testing.assert_array_equal(found.ids, want.ids)
  np.testing.assert_allclose(found.nats, want.nats, rtol=1e-5)
  assert np.isfinite(found.kl).all()
  assert found.ids.sum() == sum(map(len, DOCUMENTS))
