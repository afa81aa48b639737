"""Text files, documents, packing and windows."""

import gzip

import numpy as np
import pytest

from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.train import data

DOCS = ["Once upon a time.", "The end", "a" * 50]
TEXT = "\n<|endoftext|>\n".join(DOCS)


def test_read_plain_and_gz(tmp_path):
  (tmp_path / "a.txt").write_text(TEXT + "\n")
  with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
    file.write(TEXT)
  paths = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt.gz")]
  assert data.read_documents(paths) == DOCS + DOCS


def test_split_keeps_blank_lines_and_drops_empty_documents():
  text = "a\n\nb\n<|endoftext|>\n\n<|endoftext|>\nx <|endoftext|> y\n"
  assert data.split_documents(text) == ["a\n\nb", "x <|endoftext|> y"]


def test_articles_of_wikitext_are_documents():
  """A title is one `=` on either side, alone between empty lines."""
  text = (
    "\n = First = \n \n Some text . \n = x = \n more \n \n = = Part = = \n \n"
    " end \n \n = Second one = \n \n two \n"
  )
  first, second = data.split_documents(text)
  assert first.startswith(" = First = ")
  assert first.endswith(" end \n ")
  assert " = x = " in first
  assert " = = Part = = " in first
  assert second == " = Second one = \n \n two "
  # A text that does not begin with a title has no articles.
  assert len(data.split_documents("words\n" + text)) == 1
  # Separators that are there decide.
  both = text + "<|endoftext|>\nlast"
  assert data.split_documents(both)[1:] == ["last"]


def test_bad_files(tmp_path):
  with pytest.raises(data.DataError, match="absent"):
    data.read_text(str(tmp_path / "absent.txt"))
  (tmp_path / "bad.txt").write_bytes(b"ok \xff")
  with pytest.raises(data.DataError, match="byte 3"):
    data.read_text(str(tmp_path / "bad.txt"))
  whole = gzip.compress(TEXT.encode() * 50)
  (tmp_path / "cut.gz").write_bytes(whole[:-12])
  with pytest.raises(data.DataError, match="copy the file again"):
    data.read_text(str(tmp_path / "cut.gz"))
  (tmp_path / "none.gz").write_bytes(b"not gzip")
  with pytest.raises(data.DataError, match="none"):
    data.read_text(str(tmp_path / "none.gz"))
  (tmp_path / "empty.txt").write_text("")
  with pytest.raises(data.DataError, match="no text"):
    data.read_documents([str(tmp_path / "empty.txt")])
  with pytest.raises(data.DataError, match="no file"):
    data.read_documents([])


def test_hold_out_depends_on_each_text_only():
  documents = [f"story {k}" for k in range(500)]
  rest, held = data.hold_out(documents, 0.1)
  assert sorted(rest + held) == sorted(documents)
  assert 20 < len(held) < 90
  _, again = data.hold_out(documents[250:], 0.1)
  assert again == [d for d in held if d in documents[250:]]
  assert data.hold_out(documents, 0.0)[1] == []


def test_pack():
  t = ByteTokenizer()
  stream = data.pack(DOCS, t)
  assert stream.starts.tolist() == [0, 19, 28]
  assert (stream.ids[stream.starts] == t.bos_id).all()
  assert (stream.ids == t.eos_id).sum() == 3
  assert t.decode(stream.ids) == "".join(DOCS)
  assert stream.text_bytes == 74
  assert stream.bytes_per_id == 74 / 80
  assert stream.fingerprint() != data.pack(DOCS[:2], t).fingerprint()


class _NoSpecials(ByteTokenizer):
  bos_id = eos_id = None


def test_pack_without_special_ids():
  assert data.pack(["a"], _NoSpecials()).ids.tolist() == [0, 100, 0]


@pytest.mark.parametrize("seed", [0, 5])
def test_each_window_once_per_epoch(seed):
  stream = data.pack(DOCS * 4, ByteTokenizer())
  windows = data.Windows(stream, length=8, batch=1, seed=seed)
  seen = [windows.batch(k)[:, 0] for k in range(windows.per_epoch)]
  covered = np.zeros(len(stream.ids), bool)
  starts = []
  for row in seen:
    assert row.shape == (9,)
    assert row.dtype == np.int32
    at = [
      s
      for s in range(len(stream.ids) - 8)
      if (stream.ids[s : s + 9] == row).all()
    ]
    starts.append(tuple(at))
    for s in at:
      covered[s + 1 : s + 9] = True
  # Every id but the very first is a target, and most begin at a BOS.
  assert covered[1:].all()
  assert sum(row[0] == 1 for row in seen) == 12


def test_batches_are_a_function_of_seed_and_step():
  stream = data.pack(DOCS * 20, ByteTokenizer())
  one = data.Windows(stream, 16, 4, seed=3)
  two = data.Windows(stream, 16, 4, seed=3)
  last = 3 * one.per_epoch // 4
  batches = [one.batch(k) for k in range(last)]
  assert batches[0].shape == (17, 4)
  for k in (last - 1, 0, last // 2):  # any order, any reader
    np.testing.assert_array_equal(two.batch(k), batches[k])
  other = data.Windows(stream, 16, 4, seed=4)
  assert any((other.batch(k) != batches[k]).any() for k in range(5))


def test_epochs_differ_in_order_only():
  stream = data.pack(DOCS * 10, ByteTokenizer())
  windows = data.Windows(stream, 16, 1, seed=0)
  n = windows.per_epoch
  first = [windows.batch(k)[:, 0].tolist() for k in range(n)]
  second = [windows.batch(n + k)[:, 0].tolist() for k in range(n)]
  assert first != second
  assert sorted(first) == sorted(second)


def test_no_documents():
  with pytest.raises(data.DataError, match="no documents"):
    data.pack([], ByteTokenizer())


def test_text_shorter_than_a_window():
  with pytest.raises(data.DataError, match="shorter --seq"):
    data.Windows(data.pack(["ab"], ByteTokenizer()), 16, 1, 0)
