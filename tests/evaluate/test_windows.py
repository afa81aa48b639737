"""Sliding windows against NumPy over full logits, one window at a time."""

import math

import numpy as np
import pytest

from jaxnmc import errors, evaluate
from jaxnmc.evaluate import bits, text, windows
from tests.evaluate import small

TEXTS = [b"a tale of two cities", b"", b"x", b"it was the best of times"]


def _documents():
  rows, size = evaluate.encode(small.TOKENIZER, TEXTS, small.VOCAB)
  return rows, size


def _begin(t: int, window: int, stride: int) -> int:
  """First input that target t sees: the first window that reaches it."""
  return 0 if t < window else stride * math.ceil((t + 1 - window) / stride)


def _oracle(kind: str, rows, window: int, stride: int) -> float:
  total = 0.0
  for ids in rows:
    inputs = np.concatenate([[small.BOS], ids[:-1]]).astype(np.int32)
    for t in range(len(ids)):
      begin = _begin(t, window, stride)
      seen = inputs[begin : t + 1]
      assert len(seen) >= min(window - stride + 1, t + 1)
      assert len(seen) <= window
      total -= small.log_p(kind, seen)[-1, ids[t]]
  return total


@pytest.mark.parametrize("kind", ["recurrent", "stateless"])
@pytest.mark.parametrize(("window", "stride"), [(16, 8), (11, 3), (7, 7)])
def test_equals_numpy_over_full_logits(kind, window, stride):
  rows, size = _documents()
  one, seen = small.subject(kind), []
  found = windows.score(
    *(one.run, one.params, rows, size),
    bos=small.BOS,
    window=window,
    stride=stride,
    batch=4,
    chunk=8,
    words=9,
    progress=seen.append,
  )
  assert found.nats == pytest.approx(_oracle(kind, rows, window, stride), 1e-5)
  assert found.ids == sum(seen) == sum(map(len, TEXTS))
  assert (found.bytes, found.documents, found.digest) == (size, 4, None)
  assert found.word_perplexity == pytest.approx(math.exp(found.nats / 9))


def test_a_window_as_long_as_the_text_is_the_text():
  rows, size = _documents()
  rows = [row for row in rows if len(row)]
  one = small.subject("integers")
  whole = evaluate.Scorer(one.run)(
    *(one.params, rows, size), bos=small.BOS, batch=4, chunk=16
  )
  found = windows.score(
    *(one.run, one.params, rows, size),
    bos=small.BOS,
    window=128,
    stride=64,
    batch=4,
    chunk=16,
  )
  assert found.nats == pytest.approx(whole.nats, rel=1e-6)
  assert found.digest == whole.digest
  assert found.integers == whole.integers > 0


def test_each_target_is_scored_once():
  for count in range(40):
    for window, stride in ((1, 1), (5, 2), (8, 8), (9, 1)):
      scored = []
      for begin, done, end in windows.spans(count, window, stride):
        assert begin <= done < end <= begin + window
        scored.extend(range(done, end))
      assert scored == list(range(count))


def test_refusals():
  for window, stride in ((4, 5), (4, 0), (0, 0)):
    with pytest.raises(errors.ConfigError, match="1 <= stride <= window"):
      windows.check(window, stride)
  windows.check(4, 4, 4)
  with pytest.raises(errors.ConfigError, match="takes 3 positions"):
    windows.check(4, 4, 3)


def test_words_are_counted_as_wikitext_is(shared_dir):
  path = shared_dir / "data" / "wikitext-2" / "test.txt"
  assert text.count_words(path.read_bytes()) == 245_569


def test_words_of_what_was_kept():
  texts = [b"one two\nthree", b"four five"]
  rows, _ = evaluate.encode(small.TOKENIZER, texts, small.VOCAB, 9)
  assert bits.words_of(small.TOKENIZER, texts, rows, 9) == 4 + 2
  rows, _ = evaluate.encode(small.TOKENIZER, texts, small.VOCAB)
  assert bits.words_of(small.TOKENIZER, texts, rows) == 4 + 2
  assert evaluate.Score(1e6, 1, 1, 1, 1).word_perplexity is None
