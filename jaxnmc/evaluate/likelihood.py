"""Log-likelihood of continuations: ln p(continuation | context).

A context that several continuations share is computed once, where the model has
a state: in whole chunks, whose state each continuation goes on from; the rest
of the context, shorter than a chunk, goes in front of each.  So nothing that
enters a state is ever padded.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import TokenError
from jaxnmc.evaluate.predict import Row, Rows, window
from jaxnmc.io.tokenizer import Tokenizer


class Likely(NamedTuple):
  """How likely a continuation is.

  Attributes:
    log_p: sum of ln p over its ids.
    greedy: whether it is what greedy decoding would write.
  """

  log_p: float
  greedy: bool


class Pair(NamedTuple):
  """Ids of a context (no begin-of-text token; may be empty) and what follows.

  Attributes:
    context: int32[m].
    continuation: int32[n].
  """

  context: np.ndarray
  continuation: np.ndarray


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> Pair:
  """Ids of a context and of what follows, as they are in the whole text.

  Blanks at the end of the context go to the continuation, and the ids of the
  continuation are what the whole has beyond the ids of the context alone: the
  rule of lm-evaluation-harness, with which common tokenizers agree that the
  parts are the whole.

  Args:
    tokenizer: see `jaxnmc.io.tokenizer`.
    context: text that is given; may be empty.
    continuation: text to score.

  Returns:
    The ids, without begin-of-text token.
  """
  kept = context.rstrip()
  whole = np.asarray(tokenizer.encode(context + continuation), np.int32)
  given = np.asarray(tokenizer.encode(kept), np.int32)
  return Pair(given, whole[len(given) :])


class Likelihood:
  """Scores continuations with one backend; keeps the compiled programs.

  A pair's figure does not depend, to the bit, on what it is scored with.

  Attributes:
    rows: what scores the pieces.
  """

  def __init__(
    self,
    run: Callable,
    params: Any,
    *,
    bos: int,
    vocab_size: int,
    jit: bool = True,
    batch: int = 16,
    chunk: int = 32,
    context: int | None = None,
  ):
    """Takes a backend and its parameters.

    Args:
      run: `run(params, {"ids"}, state) -> (out, state[, counters])`.
      params: float params or qparams.
      bos: token in front of every context.
      vocab_size: tokens of the model.
      jit: whether to compile `run` here.
      batch: rows side by side.
      chunk: positions of a call.
      context: most positions the model takes, or None; a longer pair loses the
        beginning of its context.
    """
    self._bos, self._vocab, self._limit = bos, vocab_size, context
    self.rows = Rows(run, params, jit=jit, batch=batch, chunk=chunk)
    self._take = jax.jit(
      lambda state, index: jax.tree.map(lambda x: x[index], state)
    )
    self._keep = jax.jit(_keep)

  def __call__(
    self,
    pairs: Sequence[Pair],
    progress: Callable[[int], None] | None = None,
  ) -> list[Likely]:
    """Scores pairs.

    Args:
      pairs: contexts and continuations; an empty continuation is certain.
      progress: called with the number of pairs done since the last call.

    Returns:
      One `Likely` per pair, in order.

    Raises:
      TokenError: ids that the model lacks, or a continuation longer than what
        the model takes.
    """
    found = [Likely(0.0, True)] * len(pairs)
    shared: dict[bytes, list[int]] = {}
    cut = [self._cut(pair) for pair in pairs]
    for index, pair in enumerate(cut):
      if len(pair.continuation):
        shared.setdefault(pair.context.tobytes(), []).append(index)
    groups = sorted(shared.values(), key=lambda g: self._whole(cut[g[0]]))
    short = [g for g in groups if not self._whole(cut[g[0]])]
    for some in (short, groups[len(short) :]):
      for first in range(0, len(some), self.rows.batch):
        block = some[first : first + self.rows.batch]
        for index, likely in self._block(block, cut):
          found[index] = likely
        if progress is not None:
          progress(sum(map(len, block)))
    return found

  def _cut(self, pair: Pair) -> Pair:
    context = np.asarray(pair.context, np.int32)
    continuation = np.asarray(pair.continuation, np.int32)
    for ids in (context, continuation):
      if len(ids) and not 0 <= ids.min() <= ids.max() < self._vocab:
        raise TokenError(
          f"text to score: found token id {ids.max()}, the model has"
          f" {self._vocab} tokens; use the tokenizer it was trained with"
        )
    if self._limit is not None:
      # The begin token is an input, the last id is none.
      room = self._limit - len(continuation)
      if room < 0:
        raise TokenError(
          f"text to score: a continuation of {len(continuation)} ids, the model"
          f" takes {self._limit} positions; shorten it"
        )
      context = context[max(len(context) - room, 0) :]
    return Pair(context, continuation)

  def _whole(self, pair: Pair) -> int:
    """Chunks of the context that hold nothing to score."""
    if not self.rows.carries:
      return 0
    return len(pair.context) // self.rows.chunk

  def _block(self, block: list[list[int]], pairs: list[Pair]):
    """(index, Likely) of all pairs of at most `batch` contexts."""
    chunk, batch = self.rows.chunk, self.rows.batch
    contexts = [pairs[group[0]] for group in block]
    states = self._prefixes(contexts)
    todo = []
    for place, group in enumerate(block):
      done = self._whole(contexts[place]) * chunk
      for index in group:
        pair = pairs[index]
        ids = np.concatenate([[self._bos], pair.context, pair.continuation])
        row = Row(ids[done:].astype(np.int32), len(pair.context) - done)
        todo.append((index, place, row))
    todo.sort(key=lambda entry: len(entry[2].ids))
    for first in range(0, len(todo), batch):
      some = todo[first : first + batch]
      state = None
      if states is not None:
        places = np.zeros(batch, np.int32)
        places[: len(some)] = [place for _, place, _ in some]
        state = self._take(states, places)
      rows = self.rows.group([row for _, _, row in some], state)
      for (index, _, _), scored in zip(some, rows):
        total = float(scored.nats.astype(np.float64).sum())
        yield index, Likely(-total, bool(scored.hits.all()))

  def _prefixes(self, contexts: list[Pair]):
    """States [batch, ...] after the whole chunks of each; None: none has one.

    Blocks are either all short, or all have a whole chunk at least.
    """
    batch, chunk = self.rows.batch, self.rows.chunk
    whole = np.zeros(batch, np.int32)
    whole[: len(contexts)] = [self._whole(pair) for pair in contexts]
    rows = [np.concatenate([[self._bos], pair.context]) for pair in contexts]
    state = kept = None
    for k in range(whole.max()):
      ids = window(rows, k * chunk, chunk, batch)
      state = self.rows.step(ids, state).state
      kept = state if k == 0 else self._keep(whole > k, state, kept)
    return kept


def _keep(rows, new, old):
  """The state with some of its rows replaced."""

  def one(a, b):
    return jnp.where(rows.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

  return jax.tree.map(one, new, old)
