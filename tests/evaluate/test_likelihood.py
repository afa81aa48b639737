"""Log-likelihood of continuations: NumPy's, for any company, to the bit."""

import jax
import numpy as np
import pytest

from jaxnmc import errors
from jaxnmc.evaluate.likelihood import Likelihood, Pair, encode_pair
from tests.evaluate import small

KINDS = ("recurrent", "integers", "stateless")
TEXTS = (
  ("", "begins with nothing"),
  ("What is it?", " a cat"),
  ("What is it?", " a dog that barks"),
  ("A long context, longer than chunks of eight ids:", " x"),
  (
    "A long context, longer than chunks of eight ids:",
    " yes, so",
  ),
  ("12345678", "at the edge"),
  ("1234567", "before the edge"),
  ("some context", ""),
)


def _pairs() -> list[Pair]:
  return [encode_pair(small.TOKENIZER, *texts) for texts in TEXTS]


def _oracle(kind: str, pair: Pair) -> tuple[float, bool]:
  inputs = np.concatenate([[small.BOS], *pair])[:-1].astype(np.int32)
  log_p = small.log_p(kind, inputs)[len(pair.context) :]
  chosen = log_p[np.arange(len(pair.continuation)), pair.continuation]
  return chosen.sum(), bool((log_p.argmax(-1) == pair.continuation).all())


@pytest.mark.parametrize("kind", KINDS)
def test_equals_numpy_over_full_logits(kind):
  pairs, seen = _pairs(), []
  found = small.likelihood(kind)(pairs, seen.append)
  for pair, likely in zip(pairs[:-1], found):
    want, greedy = _oracle(kind, pair)
    assert likely.log_p == pytest.approx(want, rel=1e-5)
    assert likely.greedy == greedy
  assert found[-1] == (0.0, True)
  assert sum(seen) == len(pairs) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_company_changes_no_bit(kind):
  pairs = _pairs()
  score = small.likelihood(kind)
  together = score(pairs)
  assert [score([pair])[0] for pair in pairs] == together
  order = [5, 2, 7, 0, 4, 1, 6, 3]
  assert score([pairs[k] for k in order]) == [together[k] for k in order]


def test_shapes_change_no_integer():
  pairs = _pairs()
  one = small.likelihood("integers")(pairs)
  two = small.subject("integers").likelihood(1, 64)(pairs)
  for a, b in zip(one, two):
    assert a.log_p == pytest.approx(b.log_p, rel=1e-6)
    assert a.greedy == b.greedy


@pytest.mark.parametrize("kind", KINDS)
def test_what_greedy_decoding_writes_is_greedy(kind):
  inputs, new = [small.BOS, 70, 71], []
  for _ in range(5):
    new.append(int(small.log_p(kind, np.array(inputs + new))[-1].argmax()))
  other = [*new[:-1], (new[-1] + 1) % small.VOCAB]
  pairs = [Pair(np.array([70, 71]), np.array(ids)) for ids in (new, other)]
  found = small.likelihood(kind)(pairs)
  assert [likely.greedy for likely in found] == [True, False]


def test_a_shared_context_is_computed_once():
  """Also: a backend that counts is handed arrays, not compiled here."""
  one, calls = small.subject("recurrent"), []
  inner = jax.jit(one.run)

  def run(params, inputs, state):
    assert not isinstance(inputs["ids"], jax.core.Tracer)
    calls.append((inputs["ids"].shape, state is None))
    return (*inner(params, inputs, state), "counters")

  score = Likelihood(
    *(run, one.params),
    bos=small.BOS,
    vocab_size=small.VOCAB,
    jit=False,
    batch=4,
    chunk=8,
  )
  assert score.rows.carries
  calls.clear()
  context = small.TOKENIZER.encode("x" * 35)  # four chunks and three ids
  pairs = [Pair(context, np.array([80 + k])) for k in range(4)]
  found = score(pairs)
  assert calls == [((4, 8), True), *[((4, 8), False)] * 4]
  for pair, likely in zip(pairs, found):
    assert likely.log_p == pytest.approx(_oracle("recurrent", pair)[0], 1e-5)


def test_bounded_context_loses_its_beginning():
  pair = encode_pair(small.TOKENIZER, "abcdefghij", "klm")
  (found,) = small.subject("recurrent", context=8).likelihood(4, 8)([pair])
  want, _ = _oracle("recurrent", Pair(pair.context[-5:], pair.continuation))
  assert found.log_p == pytest.approx(want, rel=1e-5)
  with pytest.raises(errors.TokenError, match="takes 2 positions"):
    small.subject("recurrent", context=2).likelihood(2, 4)([pair])


def test_ids_that_the_model_lacks():
  pair = Pair(np.array([small.VOCAB]), np.array([3]))
  with pytest.raises(errors.TokenError, match=f"has {small.VOCAB} tokens"):
    small.subject("recurrent").likelihood()([pair])


def test_blanks_go_with_what_follows():
  context, continuation = encode_pair(small.TOKENIZER, "to be ", "or not")
  assert small.TOKENIZER.decode(context) == "to be"
  assert small.TOKENIZER.decode(continuation) == " or not"
