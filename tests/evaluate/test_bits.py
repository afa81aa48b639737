"""Bits per byte: equal to a one-by-one computation, for any batching."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc import errors, evaluate
from jaxnmc import quantize as qz
from jaxnmc.evaluate import bits, predict, provenance, text
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import matmulfree
from jaxnmc.ops import transform

TOKENIZER = ByteTokenizer()
CONFIG = matmulfree.Config(
  vocab_size=TOKENIZER.vocab_size,
  hidden_size=16,
  num_layers=1,
  intermediate_size=16,
)
TEXTS = [b"one", b"", b"a longer document", b"two"]


@pytest.fixture(scope="module")
def model():
  """(fn, params) of a tiny random model over bytes."""
  params = matmulfree.init_params(CONFIG, jax.random.key(0))
  params["embed"]["weight"] *= 20
  return matmulfree.make(CONFIG), params


def _score(run, params, jit=True, **options) -> evaluate.Score:
  rows, size = evaluate.encode(TOKENIZER, TEXTS, CONFIG.vocab_size)
  scorer = evaluate.Scorer(run, jit=jit)
  return scorer(params, rows, size, bos=TOKENIZER.bos_id, **options)


def test_equals_one_document_at_a_time(model):
  fn, params = model
  want = 0.0
  run = jax.jit(transform.reference(fn))
  for document in TEXTS:
    ids = TOKENIZER.encode(document)
    if not len(ids):
      continue
    fed = np.concatenate([[TOKENIZER.bos_id], ids[:-1]]).astype(np.int32)
    logits = run(params, {"ids": jnp.asarray(fed)})[0].logits
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    want -= log_p[np.arange(len(ids)), ids].sum()
  seen = []
  rows, size = evaluate.encode(TOKENIZER, TEXTS, CONFIG.vocab_size)
  found = evaluate.Scorer(run)(
    *(params, rows, size),
    bos=TOKENIZER.bos_id,
    batch=2,
    chunk=8,
    progress=seen.append,
  )
  assert found.nats == pytest.approx(want, rel=1e-5)
  assert (found.ids, found.bytes, found.documents) == (23, 23, 4)
  assert sum(seen) == 23
  assert found.bits_per_byte == pytest.approx(want / math.log(2) / 23)
  assert found.perplexity == pytest.approx(math.exp(want / 23))
  assert found.digest is None


def test_digest_does_not_depend_on_batching_or_compilation(model):
  fn, params = model
  ids = jax.random.randint(jax.random.key(1), (2, 12), 0, 250)
  plan = qz.plan(qz.calibrate(fn)(params, [ids]), qz.W8A16)
  qparams = qz.quantize_params(params, plan)
  run = transform.fixed(fn, plan)
  one = _score(run, qparams, batch=4, chunk=32)
  two = _score(run, qparams, batch=1, chunk=5)
  assert one.digest == two.digest
  assert one.integers == 23 * CONFIG.vocab_size
  assert one.nats == pytest.approx(two.nats, rel=1e-6)

  counting = lambda *args: (*jax.jit(run)(*args), "counters")
  three = _score(counting, qparams, jit=False, batch=4, chunk=32)
  assert three.digest == one.digest


def test_first_ids_and_their_bytes():
  rows, size = evaluate.encode(TOKENIZER, TEXTS, 300, max_ids=5)
  assert [len(row) for row in rows] == [3, 0, 5, 3]
  assert size == 11

  class Blank:
    """A tokenizer without exact bytes."""

    encode = staticmethod(TOKENIZER.encode)
    decode = staticmethod(TOKENIZER.decode)

  assert evaluate.encode(Blank(), TEXTS, 300, max_ids=5)[1] == 11


def test_refusals():
  with pytest.raises(errors.TokenError, match="model has 9 tokens"):
    evaluate.encode(TOKENIZER, TEXTS, 9)
  with pytest.raises(evaluate.DataError, match="no bytes"):
    evaluate.encode(TOKENIZER, [b""], 300)
  with pytest.raises(evaluate.DataError, match="max_ids"):
    evaluate.encode(TOKENIZER, TEXTS, 300, max_ids=0)


def test_documents_and_ranges(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("one\ntwo\n<|endoftext|>\n\n<|endoftext|>\nthree\n")
  documents = text.read_documents([path])
  assert documents == ["one\ntwo", "three"]
  assert text.cut(documents, None) == [b"one\ntwo", b"three"]
  assert text.cut(documents, [3, 0]) == [b"one", b""]
  for lengths, message in (([1], "1 lengths for 2"), ([9, 1], "asks for 9")):
    with pytest.raises(evaluate.DataError, match=message):
      text.cut(documents, lengths)
  ranges = tmp_path / "range.json"
  ranges.write_text("[3, 0]")
  assert text.read_lengths(ranges) == [3, 0]
  for bad in ("[-1]", "{", "[true]"):
    ranges.write_text(bad)
    with pytest.raises(evaluate.DataError, match=r"range\.json"):
      text.read_lengths(ranges)


def test_bad_files_name_the_file(tmp_path):
  for name, data in (
    ("none.txt", None),
    ("empty.txt", b""),
    ("latin.txt", b"\xff\xfe"),
    ("cut.gz", b"\x1f\x8b\x08\x00"),
  ):
    path = tmp_path / name
    if data is not None:
      path.write_bytes(data)
    with pytest.raises(evaluate.DataError, match=name):
      text.read_documents([str(path)])


def test_provenance(tmp_path):
  assert {"jaxnmc", "jax", "numpy", "python"} <= set(provenance.versions())
  (tmp_path / "x").write_bytes(b"x")
  assert provenance.file_sha256(tmp_path / "x").startswith("2d711642b726b044")
  with pytest.raises(evaluate.DataError, match="nothing"):
    provenance.file_sha256(tmp_path / "nothing")
  one = {"a": np.zeros(3), "b": [np.ones(2, np.int8)]}
  two = {"a": np.zeros(3), "b": [np.ones(2, np.int16)]}
  assert provenance.params_sha256(one) == provenance.params_sha256(dict(one))
  assert provenance.params_sha256(one) != provenance.params_sha256(two)


def test_nats_of_codes_are_those_of_floats():
  from jaxnmc.numerics.fx import Fx

  codes = Fx(jnp.array([[[16, 0, -8]]]), frac=3, low=-128, high=127)
  targets = jnp.array([[2]])
  one = predict.nats_of(codes, targets)
  two = predict.nats_of(codes.to_float(), targets)
  np.testing.assert_array_equal(one, two)


def test_first_pieces_are_cut_and_counted():
  texts = ["abcdef", "gh", "", "ijk"]
  found = bits.first_pieces(
    *(TOKENIZER, texts, CONFIG.vocab_size), most=3, max_ids=4
  )
  codes = lambda s: list(TOKENIZER.encode(s))
  assert [list(p) for p in found] == [codes("abcd"), codes("ef"), codes("gh")]


@pytest.mark.parametrize("entry", ["file", "=file", "name=", ""])
def test_a_text_has_a_name_and_a_file(entry):
  assert text.named("a=b=c.txt") == ("a", "b=c.txt")
  with pytest.raises(text.DataError, match="expected NAME=FILE"):
    text.named(entry)
