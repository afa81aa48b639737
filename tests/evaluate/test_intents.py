"""Questions answered by the next token: counted as by hand."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.evaluate import intents
from jaxnmc.evaluate.text import DataError
from jaxnmc.io.tokenizer import BPETokenizer
from jaxnmc.models import gpt
from jaxnmc.models.model import Out

TEXTS = ("light on<|ask|>", "off<|ask|>", "warmer please<|ask|>")


@pytest.fixture(scope="module")
def tokenizer():
  return BPETokenizer.train(["light on off"], 290, ("ask", "yes", "no"))


def asked(tokenizer, most=32):
  answers = [tokenizer.label_id(name) for name in ("yes", "no", "yes")]
  return intents.questions(tokenizer, TEXTS, answers, most)


def test_questions_are_padded_rows(tokenizer):
  found = asked(tokenizer)
  assert found.ids.shape[1] % 8 == 0
  for row, length, text in zip(found.ids, found.lengths, TEXTS, strict=True):
    assert row[0] == tokenizer.bos_id
    assert tokenizer.decode(row[1:length]) == text
    assert not row[length:].any()
  assert found.text_bytes.tolist() == list(map(len, TEXTS))
  np.testing.assert_array_equal(found.mask.sum(1), found.lengths)
  some = found[[0, 2]]
  assert some.answers.tolist() == found.answers[[0, 2]].tolist()


def test_scores_are_those_of_each_text_alone(tokenizer):
  found = asked(tokenizer)
  config = gpt.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    max_position_embeddings=32,
    norm_eps=1e-3,
  )
  params = gpt.init_params(config, jax.random.key(1))
  params["embed"]["weight"] *= 20
  run = nmc.reference(gpt.make(config))
  right, nats, told = 0, 0.0, 0
  for row, length, answer in zip(found.ids, found.lengths, found.answers):
    logits = run(params, {"ids": row[:length]})[0].logits
    logp = np.asarray(jax.nn.log_softmax(logits), np.float64)
    nats -= sum(logp[k, row[k + 1]] for k in range(length - 1))
    told += int(length) - 1
    right += int(logp[-1].argmax() == answer)
  got = intents.score(jax.jit(run), params, found, batch=2)
  assert got.questions == 3
  assert got.accuracy == right / 3
  assert got.perplexity == pytest.approx(math.exp(nats / told), rel=1e-5)
  bits = nats / math.log(2) / sum(map(len, TEXTS))
  assert got.bits_per_byte == pytest.approx(bits, rel=1e-5)


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_answer_must_win_the_whole_vocabulary(tokenizer, wrong):
  """A model that always says the same; an equal logit of a lower id wins."""
  found = asked(tokenizer)
  yes = tokenizer.label_id("yes")

  def run(params, inputs):
    logits = jnp.zeros((*inputs["ids"].shape, tokenizer.vocab_size))
    logits = logits.at[..., yes].set(1.0).at[..., 5].set(float(wrong))
    return Out(logits=logits), None

  score = intents.score(run, None, found)
  assert score.accuracy == (0 if wrong else 2 / 3)
  assert score.low <= score.accuracy <= score.high


def test_wrong_questions(tokenizer):
  with pytest.raises(DataError, match=r"question 2: has .* the model takes 8;"):
    asked(tokenizer, most=8)
  with pytest.raises(DataError, match="found 1 texts and 2 answers"):
    intents.questions(tokenizer, ["a"], [1, 2], 8)
