"""Vocabularies that are cut: closed, total, and the same logits."""

import itertools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxnmc as nmc
from jaxnmc.compress import vocabulary
from jaxnmc.errors import TokenError
from jaxnmc.io import bpe, reduced
from jaxnmc.io import tokenizer as tokenizers
from jaxnmc.models import families, gpt, matmulfree
from jaxnmc.numerics.ternary import Ternary, ternarize
from jaxnmc.train import export

TEXT = (
  "turn the lights in the kitchen on, and turn the heating in the hall down.\n"
  "Set the thermostat to 21 degrees; is the heating on? Ça va, très bien.\n"
) * 3
WHOLE = tokenizers.BPETokenizer.train([TEXT], 330)
LEAST = bpe.FIRST_MERGE


def _cut(size, text=TEXT, whole=WHOLE):
  table = reduced.table(whole)
  seen = vocabulary.counts([whole.encode(text)], whole.vocab_size)
  kept = vocabulary.keep(table, seen, size)
  return kept, reduced.tokenizer(whole, kept)


CUTS = {size: _cut(size) for size in (LEAST, LEAST + 7, 300, 330)}


@settings(max_examples=200)
@given(st.binary(max_size=120), st.sampled_from(sorted(CUTS)))
def test_every_byte_string_comes_back_in_tokens_that_stay(data, size):
  kept, cut = CUTS[size]
  ids = cut.encode(data)
  assert cut.decode_bytes(ids) == data
  assert cut.vocab_size == size == len(kept)
  assert ids.max(initial=0) < size
  # What a new id stands for is what its old one stood for.
  assert WHOLE.decode_bytes(kept[ids]) == data


@given(st.text(alphabet="turn the lights on,Ç 21\n", max_size=60))
def test_only_kept_merges_are_applied(text):
  kept, cut = CUTS[300]
  merges = [WHOLE.merges[k - LEAST].tolist() for k in kept if k >= LEAST]
  ranks = {tuple(m): k for k, m in zip(kept[kept >= LEAST], merges)}
  wanted = []
  for word in bpe.WORD.findall(text.encode()):
    wanted += bpe.merge_word(word, {p: int(k) for p, k in ranks.items()})
  assert kept[cut.encode(text)].tolist() == wanted


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 14))
def test_keep_is_the_rule_word_for_word(seed, stay):
  rng = np.random.default_rng(seed)
  parts = [()] * 4
  for k in range(4, 18):
    parts.append(tuple(int(p) for p in rng.integers(0, k, rng.integers(2, 4))))
  seen = rng.integers(0, 5, 18).tolist()
  table = vocabulary.Table(tuple(parts))
  also = rng.integers(0, 18, 1).tolist()
  closed = table.needed(also)
  stay = max(stay, len(closed) - 4)
  found = vocabulary.keep(table, np.array(seen), 4 + stay, also)
  left, count = set(range(18)), list(seen)
  while len(left) > 4 + stay:
    made_of = {p for k in left for p in parts[k]}
    free = [k for k in left - made_of - {*also} if parts[k]]
    worst = min(free, key=lambda k: (count[k], -k))
    left.remove(worst)
    for p in parts[worst]:
      count[p] += count[worst]
  assert found.tolist() == sorted(left)
  assert all(p in left for k in left for p in parts[k])


def test_text_gets_longer_only_by_what_went():
  lengths = [len(CUTS[size][1].encode(TEXT)) for size in sorted(CUTS)]
  assert lengths == sorted(lengths, reverse=True)
  assert lengths[0] == len(TEXT.encode())
  assert CUTS[330][1] is WHOLE
  # Frequent words stay, rare ones go.
  cut = CUTS[300][1]
  assert len(cut.encode(" the")) == 1
  assert len(cut.encode(" thermostat")) > len(WHOLE.encode(" thermostat"))


def test_the_text_decides_which_tokens_stay():
  about = WHOLE.encode("thermostat thermostat thermostat").size
  _, other = _cut(300, "thermostat " * 20)
  assert other.encode("thermostat thermostat thermostat").size == about


def test_it_saves_and_loads(tmp_path):
  _, cut = CUTS[300]
  cut.save(tmp_path / "tokenizer.npz")
  again = tokenizers.load(tmp_path)
  assert again.serialized() == cut.serialized()
  assert again.vocab_size == 300


# --- models


def _gpt(**more):
  return gpt.Config(
    **{
      "vocab_size": 332,
      "hidden_size": 8,
      "num_layers": 1,
      "num_heads": 2,
      "max_position_embeddings": 16,
      **more,
    }
  )


CONFIGS = {
  "own head": _gpt(tie_word_embeddings=False, head_bias=True),
  "tied": _gpt(),
  "ternary": _gpt(tie_word_embeddings=False, ternary=True),
  "matmulfree": matmulfree.Config(
    vocab_size=332, hidden_size=8, num_layers=1, intermediate_size=8
  ),
}


def _model(name):
  config = CONFIGS[name]
  init = families.family_of(config).init_params
  params = jax.tree.map(
    lambda x: 10 * x if x.ndim == 2 else x, init(config, jax.random.key(0))
  )
  if "bias" in params.get("head", {}):
    params["head"]["bias"] += np.arange(332) / 100
  return families.model(name, config, params, tokenizer=WHOLE)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_of_what_stays_are_what_they_were(name, tmp_path):
  model = _model(name)
  cut, kept = reduced.reduce(model, [TEXT], 300)
  assert cut.config.vocab_size == cut.tokenizer.vocab_size == 300
  # Rows that no token has are gone, and the special tokens are there.
  assert kept.max() < 330
  assert (cut.config.bos_token_id, cut.config.eos_token_id) == (1, 2)
  ids = cut.tokenizer.encode("turn the heating on")[:8]
  run = lambda m, ids: (
    jax.jit(nmc.reference(m.fn))(m.params, {"ids": ids})[0].logits
  )
  # A ternary head's mean is over other rows: float32 rounds it elsewhere.
  np.testing.assert_allclose(
    run(cut, ids), run(model, kept[ids])[:, kept], rtol=2e-5, atol=2e-5
  )
  folder = tmp_path / "cut"
  folder.mkdir()
  export.save_folder(folder, cut, {})
  again = nmc.load(folder)
  np.testing.assert_array_equal(run(again, ids), run(cut, ids))
  assert again.tokenizer.serialized() == cut.tokenizer.serialized()


def test_a_trained_ternary_head_keeps_codes_and_scale():
  model = _model("matmulfree")
  weight = ternarize(model.params["head"]["weight"])
  params = {**model.params, "head": {**model.params["head"], "weight": weight}}
  kept = np.array([0, 1, 2, 9, 40])
  _, found = vocabulary.rows(model.config, params, kept)
  assert isinstance(found["head"]["weight"], Ternary)
  np.testing.assert_array_equal(
    found["head"]["weight"].codes, np.asarray(weight.codes)[kept]
  )
  assert found["head"]["weight"].scale == weight.scale
  # The caller's own tree is left alone.
  assert params["head"]["weight"] is weight


def test_special_tokens_of_the_config_get_rows_and_new_ids():
  model = _model("tied")
  config = gpt.Config(
    **{**model.config.__dict__, "eos_token_id": 331, "bos_token_id": 329}
  )
  cut, kept = reduced.reduce(model.replace(config=config), [TEXT], 300)
  assert kept[-2:].tolist() == [329, 331]
  assert {*WHOLE.merges[-1].tolist()} <= {*kept.tolist()}
  assert (cut.config.bos_token_id, cut.config.eos_token_id) == (298, 299)
  assert cut.tokenizer.vocab_size == 299


@pytest.mark.parametrize("size", [0, 258, 331, 300.0, True])
def test_a_vocabulary_too_small_for_bytes_is_refused(size):
  with pytest.raises(TokenError, match="all 256 bytes.*to 330") as error:
    _cut(size)
  assert "allowed are 259" in str(error.value)


def test_what_does_not_belong_together_is_refused():
  model = _model("tied")
  with pytest.raises(TokenError, match="no tokenizer"):
    reduced.reduce(model.replace(tokenizer=None), [TEXT], 300)
  small = _gpt(vocab_size=300)
  with pytest.raises(TokenError, match="330 ids, the model 300"):
    reduced.reduce(model.replace(config=small), [TEXT], 300)
  with pytest.raises(TokenError, match="token 5 needs"):
    reduced.tokenizer(WHOLE, [k for k in range(330) if k != 5])
  last = int(WHOLE.merges[-1][0])
  if last >= LEAST:
    with pytest.raises(TokenError, match=f"token {last} is not among"):
      reduced.tokenizer(WHOLE, [k for k in range(330) if k != last])
  with pytest.raises(TokenError, match="'eos_token_id' is 2"):
    vocabulary.rows(model.config, model.params, np.array([0, 1]))
  for kept in ([1, 0], [0, 0], [0, 332], [-1, 0], [], [[0]]):
    with pytest.raises(TokenError, match="ascending, each once"):
      vocabulary.rows(model.config, model.params, np.array(kept, int))
  with pytest.raises(TokenError, match="'str'"):
    reduced.table("words")


# --- Hugging Face files


def _level(tmp_path, size=330):
  package = pytest.importorskip("tokenizers")
  inner = package.ByteLevelBPETokenizer()
  inner.train_from_iterator(
    [TEXT], size, 1, show_progress=False, special_tokens=["<|endoftext|>"]
  )
  path = tmp_path / "tokenizer.json"
  inner.save(str(path))
  return tokenizers.HFTokenizer(path)


def _fallback(tmp_path):
  package = pytest.importorskip("tokenizers")
  names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
  chars = ["▁", *sorted(set(TEXT) - {" ", "\n"})]
  merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("o", "n"), ("▁", "on")]
  vocab = [*names, *chars, *(a + b for a, b in merges)]
  inner = package.Tokenizer(
    package.models.BPE(
      {t: k for k, t in enumerate(vocab)},
      merges,
      unk_token="<unk>",
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  inner.normalizer = package.normalizers.Replace(" ", "▁")
  inner.decoder = package.decoders.Sequence(
    [
      package.decoders.Replace("▁", " "),
      package.decoders.ByteFallback(),
      package.decoders.Fuse(),
    ]
  )
  inner.add_special_tokens(["<unk>", "<s>", "</s>"])
  path = tmp_path / "tokenizer.json"
  inner.save(str(path))
  return tokenizers.HFTokenizer(path)


@pytest.mark.parametrize("make", [_level, _fallback])
def test_hugging_face_vocabularies_are_cut_too(make, tmp_path):
  whole = make(tmp_path)
  table = reduced.table(whole)
  least = len(table.fixed)
  assert least == {_level: 257, _fallback: 260}[make]
  texts = [TEXT, "naïve 数え 🙂 \x00 don't", "the on the", ""]
  seen = vocabulary.counts(map(whole.encode, texts), whole.vocab_size)
  for size in (least, (least + whole.vocab_size) // 2, whole.vocab_size - 1):
    kept = vocabulary.keep(table, seen, size)
    cut = reduced.tokenizer(whole, kept)
    assert cut.vocab_size == size
    assert cut.eos_id == int(np.flatnonzero(kept == whole.eos_id)[0])
    (tmp_path / "cut.json").write_bytes(cut.serialized())
    again = tokenizers.HFTokenizer(tmp_path / "cut.json")
    for text in texts:
      ids = cut.encode(text)
      assert cut.decode(ids) == text
      assert whole.decode(kept[ids]) == text
      np.testing.assert_array_equal(again.encode(text), ids)
  if make is _level:
    assert len(cut.encode(TEXT)) >= len(whole.encode(TEXT))


def test_hugging_face_vocabularies_without_bytes_are_refused(tmp_path):
  data = json.loads(_level(tmp_path).serialized())
  spoil = {
    "of 256 bytes have no token": lambda d: d["model"]["vocab"].pop("ÿ"),
    "'WordPiece'": lambda d: d["model"].update(type="WordPiece"),
    "marks on words": lambda d: d["model"].update(end_of_word_suffix="</w>"),
  }

  class Stub(tokenizers.HFTokenizer):
    def __init__(self, text):
      self.text = text

    def serialized(self):
      return self.text

  for words, change in spoil.items():
    other = json.loads(json.dumps(data))
    change(other)
    with pytest.raises(TokenError, match=words):
      reduced.table(Stub(json.dumps(other)))
  with pytest.raises(TokenError, match="not readable"):
    reduced.HFText("{}")


def test_counts_add_up():
  rows = [np.array([0, 2, 2]), np.array([], np.int32), np.array([1])]
  assert vocabulary.counts(rows, 4).tolist() == [1, 1, 2, 0]
  total = vocabulary.counts(itertools.repeat(np.array([3]), 5), 4)
  assert total.tolist() == [0, 0, 0, 5]
