"""Tokenizers: nothing is lost, files are plain, errors say what to do."""

import collections
import json
import pathlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnmc.errors import CheckpointError, MissingExtra, TokenError
from jaxnmc.io import bpe, tokenizer

TEXT = (
  "Once upon a time there was a little girl named Lily. She didn't like "
  'the big dog, but the dog liked her! "Don\'t run," said Mum.\n'
  "They found 12 shells and 345 stones. Ça va? 数え 🙂\n"
) * 4


@pytest.fixture(scope="module")
def small():
  return tokenizer.BPETokenizer.train([TEXT], 400)


@given(st.binary(max_size=200))
def test_words_of_any_bytes_join_to_them(data):
  assert b"".join(bpe.WORD.findall(data)) == data


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_round_trip(data):
  small = tokenizer.BPETokenizer.train([TEXT], 330)
  for t in (small, tokenizer.ByteTokenizer()):
    ids = t.encode(data)
    assert ids.dtype == np.int32
    assert t.decode_bytes(ids) == data


@given(st.text(max_size=100))
def test_text_round_trip(text):
  t = tokenizer.ByteTokenizer()
  assert t.decode(t.encode(text)) == text


@given(st.text(alphabet="the dog 'sLy.12\n數", max_size=60))
def test_bpe_text_round_trip(text):
  t = tokenizer.BPETokenizer.train([TEXT], 350)
  assert t.decode(t.encode(text)) == text


def _slow_merges(text, count):
  """The definition, word for word: recount all pairs after every merge."""
  words = collections.Counter(bpe.WORD.findall(text.encode()))
  rows = {w: [bpe.FIRST_BYTE + b for b in w] for w in words}
  out = []
  for k in range(count):
    pairs = collections.Counter()
    for w, row in rows.items():
      for pair in zip(row, row[1:]):
        pairs[pair] += words[w]
    if not pairs or max(pairs.values()) < 2:
      break
    best = min(pairs, key=lambda p: (-pairs[p], p))
    out.append(best)
    rows = {
      w: bpe.merge_pair(row, best, bpe.FIRST_MERGE + k)
      for w, row in rows.items()
    }
  return np.array(out, np.int32).reshape(-1, 2)


@pytest.mark.parametrize("text", [TEXT, "aaaa aaa aaaaaaa abab abab", "", "x"])
def test_training_is_the_definition(text):
  words = bpe.count_words([text.encode()])
  np.testing.assert_array_equal(
    bpe.train_merges(words, 90), _slow_merges(text, 90)
  )


def test_training_does_not_depend_on_order():
  lines = TEXT.splitlines()
  one = tokenizer.BPETokenizer.train(lines, 350)
  two = tokenizer.BPETokenizer.train(lines[::-1], 350)
  np.testing.assert_array_equal(one.merges, two.merges)


def test_words_that_were_learned_are_one_id(small):
  assert len(small.encode(" little")) == 1
  assert small.vocab_size <= 400
  # The cache gives the same ids as the first time.
  np.testing.assert_array_equal(small.encode(TEXT), small.encode(TEXT))


def test_special_ids_have_no_text(small):
  ids = [small.bos_id, *small.encode("a dog"), small.eos_id, small.pad_id]
  assert (small.pad_id, small.bos_id, small.eos_id) == (0, 1, 2)
  assert small.decode(ids) == "a dog"
  assert small.decode([]) == ""


def test_protocol(small):
  assert isinstance(small, tokenizer.Tokenizer)
  assert isinstance(tokenizer.ByteTokenizer(), tokenizer.Tokenizer)
  assert tokenizer.ByteTokenizer().vocab_size == 259


# --- streams


@given(st.text(max_size=40))
def test_stream_gives_the_whole_text(text):
  t = tokenizer.ByteTokenizer()
  push = tokenizer.stream_decoder(t)
  pieces = [push(i) for i in t.encode(text)]
  assert "�" not in "".join(pieces) or "�" in text
  assert "".join(pieces) + push() == text


def test_stream_holds_back_half_a_character():
  t = tokenizer.ByteTokenizer()
  push = tokenizer.stream_decoder(t)
  assert [push(i) for i in t.encode("é!")] == ["", "é", "!"]
  push = tokenizer.stream_decoder(t)
  assert push(t.encode("é")[0]) == ""
  assert push() == "�"


class _Foreign:
  """A tokenizer that only decodes whole sequences, as the adapters do."""

  def __init__(self):
    self._t = tokenizer.ByteTokenizer()
    self.vocab_size = 259
    self.bos_id = self.eos_id = self.pad_id = None
    self.encode, self.decode = self._t.encode, self._t.decode


@given(st.text(alphabet="aé數🙂 ", max_size=20))
def test_stream_of_a_foreign_tokenizer(text):
  t = _Foreign()
  push = tokenizer.stream_decoder(t)
  pieces = [push(i) for i in t.encode(text)]
  assert "�" not in "".join(pieces)
  assert "".join(pieces) + push() == text


# --- files


def test_save_and_load(tmp_path, small):
  small.save(tmp_path / "tokenizer.npz")
  again = tokenizer.load(tmp_path)
  np.testing.assert_array_equal(again.merges, small.merges)
  with np.load(tmp_path / "tokenizer.npz", allow_pickle=False) as file:
    assert {file[n].dtype.kind for n in file.files} <= {"i", "U"}
  tokenizer.ByteTokenizer().save(tmp_path / "b.npz")
  assert isinstance(tokenizer.load(tmp_path / "b.npz"), tokenizer.ByteTokenizer)
  assert isinstance(tokenizer.load("bytes"), tokenizer.ByteTokenizer)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    "b.npz",
    "tokenizer.npz",
  ]


def test_failed_save_leaves_the_old_file(tmp_path, small, monkeypatch):
  path = tmp_path / "tokenizer.npz"
  small.save(path)
  before = path.read_bytes()

  def fail(file, **arrays):
    file.write(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(np, "savez_compressed", fail)
  with pytest.raises(OSError, match="disk full"):
    tokenizer.ByteTokenizer().save(path)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.npz"]


def test_damaged_files_are_refused(tmp_path, small):
  path = tmp_path / "tokenizer.npz"
  small.save(path)
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(CheckpointError, match="copy it again"):
    tokenizer.load(path)
  path.write_bytes(b"")
  with pytest.raises(CheckpointError, match="tokenizer.npz"):
    tokenizer.load(path)
  np.savez(path, other=np.zeros(3))
  with pytest.raises(CheckpointError, match="jaxnmc-bpe-1"):
    tokenizer.load(path)
  with pytest.raises(CheckpointError, match="no such file"):
    tokenizer.load(tmp_path / "absent.npz")
  with pytest.raises(CheckpointError, match="unknown kind"):
    tokenizer.load(tmp_path / "x.txt")
  (tmp_path / "empty").mkdir()
  with pytest.raises(CheckpointError, match="no tokenizer"):
    tokenizer.load(tmp_path / "empty")


@pytest.mark.parametrize(
  ("merges", "said"),
  [
    (np.zeros((2, 3), np.int32), r"shape \(2, 3\)"),
    (np.zeros((2, 2)), "float64"),
    (np.array([[3, 4], [3, 260]]), "row 1"),
    (np.array([[1, 4]]), "row 0"),
  ],
)
def test_bad_merges(merges, said):
  with pytest.raises(TokenError, match=said):
    tokenizer.BPETokenizer(merges)


def test_bad_input(small):
  with pytest.raises(TokenError, match="999"):
    small.decode([999])
  with pytest.raises(TokenError, match="-1"):
    small.decode(np.array([3, -1]))
  with pytest.raises(TokenError, match="integers"):
    small.decode([0.5])
  with pytest.raises(TokenError, match="flat"):
    small.decode(np.zeros((2, 2), np.int32))
  with pytest.raises(TokenError, match="surrogate"):
    small.encode("a\ud800")
  with pytest.raises(TokenError, match="int"):
    small.encode(3)
  with pytest.raises(TokenError, match="259"):
    tokenizer.BPETokenizer.train(["x"], 100)


# --- adapters


def test_hugging_face(tmp_path):
  tokenizers = pytest.importorskip("tokenizers")
  model = tokenizers.models.WordLevel(
    {"<unk>": 0, "<s>": 1, "</s>": 2, "dog": 3, "cat": 4}, unk_token="<unk>"
  )
  inner = tokenizers.Tokenizer(model)
  inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  inner.save(str(tmp_path / "tokenizer.json"))
  t = tokenizer.load(tmp_path)
  assert isinstance(t, tokenizer.Tokenizer)
  assert (t.vocab_size, t.bos_id, t.eos_id, t.pad_id) == (5, 1, 2, 0)
  np.testing.assert_array_equal(t.encode("dog cat"), [3, 4])
  assert t.decode([3, 4]) == "dog cat"
  with pytest.raises(TokenError, match="5"):
    t.decode([5])
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
    tokenizer.load(tmp_path)
  with pytest.raises(CheckpointError, match="no such file"):
    tokenizer.load(tmp_path / "absent.json")


@pytest.fixture
def gpt2_files(tmp_path):
  """`vocab.json` and `merges.txt`, trained on two words; how many ids."""
  tokenizers = pytest.importorskip("tokenizers")
  made = tokenizers.ByteLevelBPETokenizer()
  made.train_from_iterator(
    *(["low lower"] * 9, 262, 2, False, ["<|endoftext|>"])
  )
  made.save_model(str(tmp_path))
  return tmp_path


def test_vocabulary_and_merges_of_gpt2(gpt2_files):
  t = tokenizer.load(gpt2_files)
  vocabulary = json.loads((gpt2_files / "vocab.json").read_text())
  assert t.vocab_size == len(vocabulary) == 262
  end = vocabulary["<|endoftext|>"]
  assert (t.bos_id, t.eos_id, t.pad_id) == (end, end, None)
  # Bytes are printable letters there: a blank is \u0120.
  want = ["low", "\u0120lower", "\u0120low", "e"]
  found = t.encode("low lower lowe")
  np.testing.assert_array_equal(found, [vocabulary[piece] for piece in want])
  text = " A caf\u00e9,\n\u4e2d <|endoftext|>x"
  ids = t.encode(text)
  assert end in ids
  # The end token is no text; everything else comes back.
  assert t.decode(ids) == text.replace("<|endoftext|>", "")
  # The newer file comes first where both are.
  (gpt2_files / "tokenizer.json").write_bytes(t.serialized())
  again = tokenizer.load(gpt2_files)
  np.testing.assert_array_equal(again.encode(text), ids)
  assert again.decode(ids) == t.decode(ids)


def test_damaged_files_of_gpt2(gpt2_files):
  merges = gpt2_files / "merges.txt"
  data = merges.read_bytes()
  merges.write_bytes(data + b"one two three\n")
  with pytest.raises(CheckpointError, match=r"vocab.json: .*merges.txt.*copy"):
    tokenizer.load(gpt2_files)
  merges.unlink()
  with pytest.raises(CheckpointError, match="merges.txt: no such file"):
    tokenizer.load(gpt2_files)
  merges.write_bytes(data)
  (gpt2_files / "vocab.json").write_text('{"a": ')
  with pytest.raises(CheckpointError, match=r"vocab.json: not readable"):
    tokenizer.load(gpt2_files)


def test_transformers_tokenizes_the_same(gpt2_files):
  library = pytest.importorskip("transformers", reason="needs transformers")
  names = {f"{w}_token": "<|endoftext|>" for w in ("unk", "bos", "eos")}
  theirs = library.GPT2Tokenizer.from_pretrained(gpt2_files, **names)
  ours = tokenizer.load(gpt2_files)
  for text in ("low lower", " it's  5 lows,\n\n \u00e9", "lowlow<|endoftext|>"):
    np.testing.assert_array_equal(ours.encode(text), theirs.encode(text))


class _FakeProcessor:
  """As much of `sentencepiece.SentencePieceProcessor` as is used."""

  def Load(self, path):
    if pathlib.Path(path).read_bytes() == b"bad":
      raise RuntimeError("could not parse")

  def GetPieceSize(self):
    return 10

  def bos_id(self):
    return 1

  def eos_id(self):
    return 2

  def pad_id(self):
    return -1

  def EncodeAsIds(self, text):
    return [len(word) for word in text.split()]

  def DecodeIds(self, ids):
    return " ".join("x" * i for i in ids)


def test_sentencepiece(tmp_path, monkeypatch):
  fake = type(sys)("sentencepiece")
  fake.SentencePieceProcessor = _FakeProcessor
  monkeypatch.setitem(sys.modules, "sentencepiece", fake)
  path = tmp_path / "tokenizer.model"
  path.write_bytes(b"good")
  t = tokenizer.load(tmp_path)
  assert (t.vocab_size, t.bos_id, t.eos_id, t.pad_id) == (10, 1, 2, None)
  np.testing.assert_array_equal(t.encode("a bb"), [1, 2])
  assert t.decode([1, 2]) == "x xx"
  path.write_bytes(b"bad")
  with pytest.raises(CheckpointError, match="could not parse"):
    tokenizer.load(path)


@pytest.mark.parametrize(
  ("module", "name"),
  [("tokenizers", "t.json"), ("sentencepiece", "t.model")],
)
def test_absent_extra_is_named(tmp_path, monkeypatch, module, name):
  monkeypatch.setitem(sys.modules, module, None)
  (tmp_path / name).write_text("{}")
  with pytest.raises(MissingExtra, match=r"jaxnmc\[hf\]"):
    tokenizer.load(tmp_path / name)


# --- labels


@given(st.lists(st.sampled_from(["<|on|>", "<|of|>", "<|", "on", " a", "é"])))
def test_labels_are_one_token_and_text_comes_back(parts):
  text = "".join(parts)
  t = tokenizer.BPETokenizer.train([TEXT], 300, ("on", "off"))
  ids = t.encode(text)
  assert t.decode(ids) == text
  assert (ids == t.label_id("on")).sum() == text.count("<|on|>")
  assert (ids != t.label_id("off")).all()


def test_labels_stand_behind_the_merges_and_are_kept(small, tmp_path):
  t = tokenizer.BPETokenizer(small.merges, ("on", "off"))
  assert t.vocab_size == small.vocab_size + 2
  assert t.encode("<|off|>").tolist() == [small.vocab_size + 1]
  assert t.encode(TEXT).tolist() == small.encode(TEXT).tolist()
  t.save(tmp_path / "t.npz")
  back = tokenizer.BPETokenizer.load(tmp_path / "t.npz")
  assert back.labels == ("on", "off")
  assert back.serialized() == t.serialized() != small.serialized()


def test_wrong_labels(small):
  with pytest.raises(TokenError, match=r"label 1: found 'on'.* each once"):
    tokenizer.BPETokenizer(small.merges, ("on", "on"))
  with pytest.raises(TokenError, match=r"label 0: found 'a b', allowed are"):
    tokenizer.BPETokenizer(small.merges, ("a b",))
  with pytest.raises(TokenError, match=r"allowed is 260 .*bytes and labels"):
    tokenizer.BPETokenizer.train([TEXT], 259, ("on",))
  t = tokenizer.BPETokenizer(small.merges, ("alarm_set", "alarm_off"))
  with pytest.raises(TokenError, match=r"'alarm_sit'.*nearest are alarm_set,"):
    t.label_id("alarm_sit")
