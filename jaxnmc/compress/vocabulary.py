"""Fewer tokens: which of them stay, and their rows of a model.

A token of a byte-pair vocabulary is made of parts, by the merge that learned
it, and can be written only where its parts are there (the vocabulary is
*closed*).  So tokens go one at a time, from the rare end:

    of the tokens that no other one is made of, the one that occurs least goes
    (of equals the youngest); where it stood, its parts stand now, and count

until n are left.  Each step is the one that adds the fewest tokens to the text:
as many as the token occurred, where it had two parts.  Special tokens and the
256 bytes never go, so that every byte string can still be written.
"""

import dataclasses
import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import TokenError
from jaxnmc.models import families
from jaxnmc.models.matmulfree_config import Config as MatMulFree
from jaxnmc.numerics.packed import Packed
from jaxnmc.numerics.ternary import Ternary, latent, ternarize

__all__ = ["Table", "counts", "keep", "rows"]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """What the tokens of a vocabulary are made of.

  Attributes:
    parts: per id the ids that it is written with where it is gone, older ones;
      () for what cannot go.
  """

  parts: tuple[tuple[int, ...], ...]

  @property
  def fixed(self) -> tuple[int, ...]:
    """Ids that cannot go: special tokens and bytes."""
    return tuple(k for k, parts in enumerate(self.parts) if not parts)

  def needed(self, tokens: Iterable[int] = ()) -> set[int]:
    """What has to stay: `fixed`, these tokens, and all they are made of."""
    found = set(self.fixed)
    todo = list(tokens)
    while todo:
      token = todo.pop()
      if token not in found:
        found.add(token)
        todo.extend(self.parts[token])
    return found


def counts(rows: Iterable[np.ndarray], vocab_size: int) -> np.ndarray:
  """How often each token occurs: int64[vocab_size].

  Args:
    rows: ids of texts, int[n] each, below vocab_size.
    vocab_size: number of ids.
  """
  total = np.zeros(vocab_size, np.int64)
  for row in rows:
    total += np.bincount(row, minlength=vocab_size)
  return total


def keep(
  table: Table,
  counts: Sequence[int] | np.ndarray,
  size: int,
  also: Iterable[int] = (),
) -> np.ndarray:
  """The ids that stay, by the rule of this file's head.

  Args:
    table: of the whole vocabulary.
    counts: how often each token occurs, int[V].
    size: how many stay.
    also: tokens that stay in any case.

  Returns:
    int32[size], ascending; the new id of a token is its place here.

  Raises:
    TokenError: size is no whole number, below the tokens that cannot go, or
      above what there is.
  """
  whole, stays = len(table.parts), table.needed(also)
  least = len(stays)
  good = isinstance(size, int | np.integer) and not isinstance(size, bool)
  if not good or not least <= size <= whole:
    raise TokenError(
      f"vocabulary: found a size of {size!r}, allowed are {least} (special"
      f" tokens and all 256 bytes, without which some text could not be"
      f" written) to {whole} (the tokens that there are); give a size in this"
      " range"
    )
  seen = [int(c) for c in counts]
  users = [0] * whole
  for parts in table.parts:
    for part in parts:
      users[part] += 1
  free = lambda k: not users[k] and k not in stays
  # A count grows only while something is made of the token, and then it is not
  # in the heap: what is in the heap is up to date.
  heap = [(seen[k], -k) for k in range(whole) if free(k)]
  heapq.heapify(heap)
  gone = np.zeros(whole, bool)
  for _ in range(whole - size):
    count, token = heapq.heappop(heap)
    gone[-token] = True
    for part in table.parts[-token]:
      seen[part] += count
      users[part] -= 1
      if free(part):
        heapq.heappush(heap, (seen[part], -part))
  return np.flatnonzero(~gone).astype(np.int32)


def _ternary_rows(matrix, kept: np.ndarray):
  """Rows with the scale of the whole; latents again where they were latents."""
  whole = matrix if isinstance(matrix, Ternary) else ternarize(matrix)
  codes = whole.codes
  codes = codes.astype(jnp.int8) if isinstance(codes, Packed) else codes
  cut = Ternary(jnp.asarray(codes)[kept], whole.scale)
  return cut if isinstance(matrix, Ternary) else latent(cut)


def rows(config: Any, params: Any, kept: np.ndarray) -> tuple[Any, Any]:
  """A model of the tokens that stay: their logits are what they were.

  Rows of the embedding and of the head (its bias, too) are taken.  A ternary
  head keeps the scale of the whole; from latents come latents that become these
  codes and this scale.

  Args:
    config: of one of `jaxnmc.models.families`.
    params: its float parameters.
    kept: int[n], ids that stay, ascending, as `keep` gives them.

  Returns:
    (config, params); the config's own special tokens have their new ids.

  Raises:
    ConfigError: a config of no family.
    TokenError: an id that the model lacks or that is there twice, or a special
      token of the config that does not stay.
  """
  families.family_of(config)
  kept = np.asarray(kept)
  size = config.vocab_size
  good = kept.ndim == 1 and np.issubdtype(kept.dtype, np.integer) and kept.size
  if not good or kept[0] < 0 or kept[-1] >= size or (np.diff(kept) <= 0).any():
    raise TokenError(
      f"tokens to keep: found {kept.dtype}{list(kept.shape)}, allowed are ids"
      f" of the model, 0 to {size - 1}, ascending, each once"
    )
  place = {int(token): k for k, token in enumerate(kept)}
  special = {}
  for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
    token = getattr(config, field)
    # As in files of others, where a token may be named that is not there.
    inside = token is not None and 0 <= token < size
    if inside and token not in place:
      raise TokenError(
        f"tokens to keep: config field {field!r} is {token}, which is not among"
        " them; keep it, too"
      )
    special[field] = place[token] if inside else None
  new = dataclasses.replace(config, vocab_size=len(kept), **special)
  take = lambda x: jnp.asarray(x)[kept]
  params = dict(params)
  params["embed"] = jax.tree.map(take, params["embed"])
  if "head" in params:
    head = dict(params["head"])
    ternary = isinstance(config, MatMulFree) or config.ternary
    weight = head["weight"]
    head["weight"] = _ternary_rows(weight, kept) if ternary else take(weight)
    if "bias" in head:
      head["bias"] = take(head["bias"])
    params["head"] = head
  return new, params
