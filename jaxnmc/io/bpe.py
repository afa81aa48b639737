"""Byte-level byte-pair encoding: the trainer and the merge loop.

A vocabulary is one plain array `merges int32[n, 2]`; token `FIRST_MERGE + k`
is the concatenation of the two older tokens `merges[k]`. Ids:

  0 padding and unknown, 1 begin of text, 2 end of text,
  3 ... 258 the 256 byte values, 259 ... the merges in the order learned.

Text is cut into words by `WORD` before merging, and no token crosses a word
border. `WORD` works on bytes, and every byte string is the concatenation of
its words, so that encoding is total and loses nothing.
"""

import collections
import heapq
import re
from collections.abc import Iterable

import numpy as np

PAD_ID = 0
BOS_ID = 1
EOS_ID = 2
FIRST_BYTE = 3
FIRST_MERGE = FIRST_BYTE + 256

# In order of preference: an English contraction; a word of letters (any byte
# above 127 counts as a letter, so a UTF-8 character is never cut) with the
# blank before it; up to three digits; a run of signs with the line ends that
# follow it; blanks, all but the last one if a word comes next.
WORD = re.compile(
  rb"'(?:s|t|d|m|re|ve|ll)(?![A-Za-z\x80-\xff])"
  rb"| ?[A-Za-z\x80-\xff]+"
  rb"| ?[0-9]{1,3}"
  rb"| ?[^\sA-Za-z0-9\x80-\xff]+[\r\n]*"
  rb"|\s+(?!\S)"
  rb"|\s"
)


def count_words(texts: Iterable[bytes]) -> dict[bytes, int]:
  """Returns how often each word of `WORD` occurs in the texts."""
  counts: collections.Counter[bytes] = collections.Counter()
  for text in texts:
    counts.update(WORD.findall(text))
  return dict(counts)


def train_merges(words: dict[bytes, int], merges: int) -> np.ndarray:
  """Learns up to `merges` merges from word counts.

  The most frequent neighbouring pair of tokens becomes a token, again and
  again (Sennrich et al. 2016). Of equally frequent pairs the one with the
  smaller ids wins, so the result depends on nothing but the counts.

  Args:
    words: word -> count, as from `count_words`.
    merges: how many merges are wanted.

  Returns:
    int32[n, 2], n <= merges; fewer when no pair occurs twice any more.
  """
  ordered = sorted(words.items())
  tokens = [[FIRST_BYTE + b for b in word] for word, _ in ordered]
  counts = [count for _, count in ordered]
  pairs: collections.Counter[tuple[int, int]] = collections.Counter()
  where: dict[tuple[int, int], set[int]] = collections.defaultdict(set)
  for index, word in enumerate(tokens):
    for pair in zip(word, word[1:], strict=False):
      pairs[pair] += counts[index]
      where[pair].add(index)

  # The heap holds outdated counts too; an entry is valid only if it agrees
  # with `pairs`. Every change pushes the new count, so the true maximum is
  # always in the heap.
  heap = [(-count, pair) for pair, count in pairs.items()]
  heapq.heapify(heap)
  out: list[tuple[int, int]] = []
  while len(out) < merges and heap:
    negative, pair = heapq.heappop(heap)
    if pairs[pair] != -negative:
      continue
    if -negative < 2:
      break
    new = FIRST_MERGE + len(out)
    out.append(pair)
    changed: set[tuple[int, int]] = set()
    for index in where.pop(pair):
      word, count = tokens[index], counts[index]
      merged = merge_pair(word, pair, new)
      for old in zip(word, word[1:], strict=False):
        pairs[old] -= count
        changed.add(old)
      for fresh in zip(merged, merged[1:], strict=False):
        pairs[fresh] += count
        where[fresh].add(index)
        changed.add(fresh)
      tokens[index] = merged
    del pairs[pair]
    changed.discard(pair)
    for other in changed:
      if pairs[other] > 0:
        heapq.heappush(heap, (-pairs[other], other))
      else:
        del pairs[other]
  return np.array(out, np.int32).reshape(-1, 2)


def merge_pair(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
  """Replaces each occurrence of `pair`, from the left, by the token `new`."""
  out: list[int] = []
  position, last = 0, len(word) - 1
  while position <= last:
    if (
      position < last
      and word[position] == pair[0]
      and word[position + 1] == pair[1]
    ):
      out.append(new)
      position += 2
    else:
      out.append(word[position])
      position += 1
  return out


def merge_word(word: bytes, ranks: dict[tuple[int, int], int]) -> list[int]:
  """Encodes one word: applies the earliest learned merge until none is left.

  Args:
    word: any bytes.
    ranks: pair -> token id; a smaller id was learned earlier.

  Returns:
    Token ids whose bytes concatenate to `word`.
  """
  tokens = [FIRST_BYTE + b for b in word]
  while len(tokens) > 1:
    known = [
      ranks[pair]
      for pair in zip(tokens, tokens[1:], strict=False)
      if pair in ranks
    ]
    if not known:
      break
    new = min(known)
    position = next(
      p
      for p, pair in enumerate(zip(tokens, tokens[1:], strict=False))
      if ranks.get(pair) == new
    )
    tokens = merge_pair(tokens, (tokens[position], tokens[position + 1]), new)
  return tokens


def token_bytes(merges: np.ndarray) -> list[bytes]:
  """Returns the bytes of every token id; the three special ones are empty.

  Args:
    merges: int32[n, 2], each row of older tokens.
  """
  out = [b""] * FIRST_BYTE + [bytes([b]) for b in range(256)]
  for left, right in merges.tolist():
    out.append(out[left] + out[right])
  return out
