"""Tokenizers with fewer tokens, and models with them.

What stays is a set of merges and everything that they are made of, in the order
learned, so the reduced tokenizer is one of the same kind: it writes with the
tokens that stay and no others, and reads back every text.  `save` and `load`
are those of its kind (`jaxnmc.io.tokenizer`).
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnmc import _extras
from jaxnmc.compress import vocabulary
from jaxnmc.errors import TokenError
from jaxnmc.io import bpe
from jaxnmc.io.tokenizer import BPETokenizer, HFTokenizer, Tokenizer
from jaxnmc.models import families
from jaxnmc.models.model import Model

__all__ = ["HFText", "Reduced", "reduce", "table", "tokenizer"]


class HFText(HFTokenizer):
  """A Hugging Face tokenizer from the text of a `tokenizer.json` (extra `hf`).

  Raises:
    MissingExtra: without the package `tokenizers`.
    TokenError: the package does not take the text.
  """

  def __init__(self, text: str):
    package = _extras.need("tokenizers", "hf")
    try:
      self._inner = package.Tokenizer.from_str(text)
    except Exception as error:  # the package raises bare Exception
      raise TokenError(
        f"tokenizer.json: not readable as a tokenizer ({error}); give another"
      ) from error
    self.vocab_size = self._inner.get_vocab_size(with_added_tokens=True)
    self.bos_id = self._first(self._BOS)
    self.eos_id = self._first(self._EOS)
    self.pad_id = self._first(self._PAD)


class Reduced(NamedTuple):
  """A model of fewer tokens.

  Attributes:
    model: with its tokenizer; no plan.
    kept: int32[n], its tokens' ids in the model that it came from.
  """

  model: Model
  kept: np.ndarray


def table(found: Any) -> vocabulary.Table:
  """What the tokens of a tokenizer are made of.

  Args:
    found: a `BPETokenizer`, or an `HFTokenizer` of byte-pair encoding that
      falls back on bytes (GPT-2's byte level; or tokens <0x00> to <0xFF>).

  Raises:
    TokenError: of another kind, or without all bytes.
  """
  if isinstance(found, BPETokenizer):
    made = tuple(map(tuple, found.merges.tolist()))
    labels = found.vocab_size - bpe.FIRST_MERGE - len(made)
    return vocabulary.Table(((),) * bpe.FIRST_MERGE + made + ((),) * labels)
  if isinstance(found, HFTokenizer):
    return _hf_table(json.loads(found.serialized()))
  kind = getattr(found, "kind", type(found).__name__)
  raise TokenError(
    f"tokenizer: found kind {kind!r}, allowed are 'bpe' and 'hf', whose merges"
    " can be cut; convert it to a tokenizer.json of byte-pair encoding"
  )


def tokenizer(found: Any, kept: Sequence[int] | np.ndarray) -> Tokenizer:
  """The tokenizer of the tokens that stay.

  Args:
    found: as for `table`.
    kept: ids that stay, ascending and closed, as `vocabulary.keep` gives them.

  Returns:
    One of the same kind; the id of a token is its place in `kept`.

  Raises:
    TokenError: as `table`; a token that cannot go or a part is missing.
  """
  made = table(found)
  place = {int(token): k for k, token in enumerate(kept)}
  for token in {*made.fixed, *place}:
    lost = [part for part in (token, *made.parts[token]) if part not in place]
    if lost:
      raise TokenError(
        f"tokens to keep: token {lost[0]} is not among them, which token"
        f" {token} needs; keep special tokens, bytes and parts, as"
        " compress.vocabulary.keep does"
      )
  if isinstance(found, BPETokenizer):
    if len(place) == found.vocab_size:
      return found
    merges = [
      [place[part] for part in made.parts[token]]
      for token in place
      if made.parts[token]
    ]
    labels = getattr(found, "labels", ())
    options: dict[str, Any] = {"labels": labels} if labels else {}
    return BPETokenizer(np.array(merges, np.int32).reshape(-1, 2), **options)
  return HFText(_hf_cut(json.loads(found.serialized()), place))


def reduce(model: Model, texts: Iterable[str | bytes], size: int) -> Reduced:
  """A model of the `size` tokens that a text needs most.

  Rows of tokens that the tokenizer does not have go, too, but for special ones
  of the config.

  Args:
    model: with a tokenizer.
    texts: documents to count tokens in.
    size: how many tokens stay (`compress.vocabulary`).

  Returns:
    `Reduced`.

  Raises:
    TokenError: no tokenizer, one whose merges cannot be cut or of another
      model, or an impossible size.
  """
  config, found = model.config, model.tokenizer
  if found is None:
    raise TokenError(
      f"{model.name}: no tokenizer came with it; a vocabulary is reduced"
      " together with its tokenizer: put one into the folder"
    )
  made, whole = table(found), found.vocab_size
  if whole > config.vocab_size:
    raise TokenError(
      f"{model.name}: the tokenizer has {whole} ids, the model"
      f" {config.vocab_size}; give the one it was trained with"
    )
  special = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
  named = [t for t in special if t is not None and 0 <= t < config.vocab_size]
  extra = sorted(t for t in named if t >= whole)
  # Special tokens of the config that the tokenizer lacks take rows, too.
  stays = vocabulary.Table(made.parts + ((),) * len(extra))
  seen = vocabulary.counts(map(found.encode, texts), len(stays.parts))
  kept = vocabulary.keep(stays, seen, size, {*named} - {*extra})
  own = kept[kept < whole]
  # Those behind the tokenizer's were counted from its end.
  kept = np.concatenate([own, np.array(extra, np.int32)])
  config, params = vocabulary.rows(config, model.params, kept)
  cut = tokenizer(found, own)
  name = f"{model.name}, {size} tokens"
  return Reduced(families.model(name, config, params, tokenizer=cut), kept)


# --- tokenizer.json


def _byte_names() -> list[str]:
  """GPT-2's characters for the 256 bytes: visible ones stand for themselves."""
  own = [*range(33, 127), *range(161, 173), *range(174, 256)]
  other = [b for b in range(256) if b not in own]
  name = {b: chr(b) for b in own} | {
    b: chr(256 + k) for k, b in enumerate(other)
  }
  return [name[b] for b in range(256)]


def _kinds(part: Any) -> set[str]:
  """Types named anywhere in a part of tokenizer.json."""
  if isinstance(part, dict):
    found = {part["type"]} if isinstance(part.get("type"), str) else set()
    return found.union(*map(_kinds, part.values()))
  if isinstance(part, list):
    return set().union(*map(_kinds, part))
  return set()


def _strings(part: Any) -> str:
  """What a part of tokenizer.json reads or writes, one after the other."""
  if isinstance(part, dict):
    names = ("type", "prepend_scheme", "behavior")
    part = [value for name, value in part.items() if name not in names]
  if isinstance(part, list):
    return "".join(map(_strings, part))
  return part if isinstance(part, str) else ""


def _pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
  """Merges, which older files have as words with a blank between."""
  rows = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
  return [(left, right) for left, right in rows]


def _hf_table(data: dict[str, Any]) -> vocabulary.Table:
  """The table of a tokenizer.json.

  Raises:
    TokenError: no byte-pair encoding, words with marks, or bytes missing.
  """
  model = data["model"]
  marks = [
    field
    for field in ("continuing_subword_prefix", "end_of_word_suffix")
    if model.get(field)
  ]
  if model.get("type") != "BPE" or marks:
    raise TokenError(
      f"tokenizer.json: found a model of type {model.get('type')!r}"
      f"{' with ' + marks[0] if marks else ''}, allowed is 'BPE' without marks"
      " on words; another kind has no merges to cut"
    )
  ids: dict[str, int] = model["vocab"]
  level = "ByteLevel" in _kinds([data["pre_tokenizer"], data["decoder"]])
  names = _byte_names() if level else [f"<0x{b:02X}>" for b in range(256)]
  lost = [name for name in names if name not in ids]
  if lost or not (level or model.get("byte_fallback")):
    raise TokenError(
      f"tokenizer.json: {len(lost) or 256} of 256 bytes have no token, so not"
      " every text could be written with fewer tokens; allowed are vocabularies"
      " with all bytes (byte level, or byte_fallback)"
    )
  added = {token["id"]: token["content"] for token in data["added_tokens"]}
  size = max([*ids.values(), *added]) + 1
  parts: list[tuple[int, ...]] = [()] * size
  stays = {*names, *added.values(), model.get("unk_token")}
  # The sign for a blank, say: read back by its name, not by its bytes.
  stays.update(
    *(_strings(data[p]) for p in ("normalizer", "pre_tokenizer", "decoder"))
  )
  for left, right in _pairs(model):
    token = left + right
    # The first merge that gives a token is the one that learned it.
    if token not in stays and not parts[ids[token]]:
      parts[ids[token]] = (ids[left], ids[right])
  for token, k in ids.items():
    # A single character can be written with its bytes, too.
    if token not in stays and not parts[k] and not level and len(token) == 1:
      parts[k] = tuple(ids[names[byte]] for byte in token.encode())
  return vocabulary.Table(tuple(parts))


def _hf_cut(data: dict[str, Any], place: dict[int, int]) -> str:
  """The text of the tokenizer.json of the tokens that stay."""
  model = data["model"]
  ids: dict[str, int] = model["vocab"]
  vocab = {token: place[k] for token, k in ids.items() if k in place}
  model["vocab"] = vocab
  model["merges"] = [
    [left, right]
    for left, right in _pairs(model)
    if left in vocab and right in vocab and left + right in vocab
  ]
  for token in data["added_tokens"]:
    token["id"] = place[token["id"]]
  # What puts special tokens around a text, or pads it, names old ids; `encode`
  # does neither.
  data["post_processor"] = data["padding"] = None
  return json.dumps(data, ensure_ascii=False)
