"""Bits per byte on a range: the sum over ids, whatever the batching."""

import json
import math

import jax
import numpy as np
import pytest

from jaxnmc.io.tokenizer import BPETokenizer, ByteTokenizer
from jaxnmc.models import matmulfree
from jaxnmc.ops.reference import Reference
from jaxnmc.train import evalrange
from jaxnmc.train.data import DataError

TEXTS = [b"Once upon a time", b"", "caf\u00e9".encode()[:4], b"The end. " * 5]


@pytest.fixture(scope="module")
def model():
  config = matmulfree.Config(
    vocab_size=259, hidden_size=16, num_layers=1, intermediate_size=24
  )
  fn = matmulfree.make(config)
  return fn, matmulfree.init_params(config, jax.random.key(0))


def test_equals_the_definition(model):
  fn, params = model
  t = ByteTokenizer()
  run = jax.jit(lambda p, x: fn(Reference(), p, x, None)[0].logits)
  nats = 0.0
  for text in TEXTS:
    ids = [t.bos_id, *t.encode(text)]
    inputs = {"ids": np.array(ids, np.int32)}
    logits = run(params, inputs)
    rows = jax.nn.log_softmax(logits)
    nats -= sum(float(rows[k, ids[k + 1]]) for k in range(len(ids) - 1))
  size = sum(len(text) for text in TEXTS)
  score = evalrange.score(fn)
  for batch, grain in ((2, 8), (16, 64)):
    got = evalrange.bits_per_byte(score, params, t, TEXTS, batch, grain)
    assert got["bytes"] == got["ids"] == size
    assert got["bpb"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert got["nats_per_id"] == pytest.approx(nats / size, rel=1e-5)
    assert got["perplexity"] == pytest.approx(math.exp(nats / size), rel=1e-4)


def test_bytes_do_not_depend_on_the_tokenizer(model):
  fn, params = model
  t = BPETokenizer.train([b"Once upon a time"] * 3, 259)
  score = evalrange.score(fn)
  one = evalrange.bits_per_byte(score, params, t, TEXTS)
  two = evalrange.bits_per_byte(score, params, ByteTokenizer(), TEXTS)
  assert one == two
  with pytest.raises(DataError, match="no bytes"):
    evalrange.bits_per_byte(score, params, t, [b""])


def test_cut():
  assert evalrange.cut(["ab", "\u00e9x"], None) == [b"ab", b"\xc3\xa9x"]
  assert evalrange.cut(["ab", "\u00e9x"], [1, 1]) == [b"a", b"\xc3"]
  with pytest.raises(DataError, match="3 lengths for 2"):
    evalrange.cut(["ab", "c"], [1, 1, 1])
  with pytest.raises(DataError, match="document 1 has 1 bytes"):
    evalrange.cut(["ab", "c"], [1, 2])


def test_read_lengths(tmp_path):
  path = tmp_path / "range.json"
  path.write_text(json.dumps([3, 0]))
  assert evalrange.read_lengths(str(path)) == [3, 0]
  for bad in ("[1, -2]", "[1.5]", '{"a": 1}', "[1"):
    path.write_text(bad)
    with pytest.raises(DataError, match=r"range\.json"):
      evalrange.read_lengths(str(path))
  with pytest.raises(DataError, match="absent"):
    evalrange.read_lengths(str(tmp_path / "absent"))
