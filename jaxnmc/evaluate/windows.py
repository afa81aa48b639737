"""Bits per byte and perplexity by a sliding window.

For comparison with models whose context is bounded.  Windows of a document
begin at multiples of the stride, each from no state; the first scores all its
targets, each further one its last `stride` only.  So every id is scored once,
and from at least `window - stride` ids before it (or all that there are; the
begin-of-text token, which stands before the first, is one of them).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import bits
from jaxnmc.evaluate.predict import Row, Rows


def check(window: int, stride: int, context: int | None = None) -> None:
  """Refuses lengths that leave ids unscored.

  Args:
    window: inputs of a window.
    stride: steps between windows.
    context: most inputs that the model takes, or None.

  Raises:
    ConfigError: not 1 <= stride <= window <= context.
  """
  if not 1 <= stride <= window:
    raise ConfigError(
      f"window {window} with stride {stride}: allowed is 1 <= stride <= window;"
      " half a window is usual"
    )
  if context is not None and window > context:
    raise ConfigError(
      f"window {window}: the model takes {context} positions; allowed is a"
      " window of that length or less"
    )


def spans(count: int, window: int, stride: int) -> Iterator[tuple[int, ...]]:
  """Which windows cover `count` targets.

  Args:
    count: targets; target t is predicted from inputs 0 ... t.
    window: inputs of a window.
    stride: steps between windows.

  Yields:
    (first input, first scored target, end of the targets).
  """
  done = begin = 0
  while done < count:
    end = min(begin + window, count)
    yield begin, done, end
    done, begin = end, begin + stride


def score(
  run: Callable,
  params: Any,
  documents: Sequence[np.ndarray],
  size: int,
  *,
  bos: int,
  window: int,
  stride: int,
  jit: bool = True,
  batch: int = 16,
  chunk: int = 128,
  words: int | None = None,
  done: Mapping[int, bits.Part] | None = None,
  keep: Callable[[dict[int, bits.Part]], Any] | None = None,
  progress: Callable[[int], None] | None = None,
) -> bits.Score:
  """Scores encoded documents.

  Args:
    run: `run(params, {"ids"}, state) -> (out, state[, counters])`.
    params: float params or qparams.
    documents: ids of each, int32[n] (see `bits.encode`).
    size: UTF-8 bytes they stand for.
    bos: token in front of every document.
    window: most ids that a prediction sees.
    stride: how far a window is from the next.
    jit: whether to compile `run` here.
    batch: windows side by side.
    chunk: positions per call, for models with a state.
    words: words they stand for, or None.
    done: windows that are scored already, by place.
    keep: called with every window as soon as it is done.
    progress: called with the number of ids done since the last call.

  Returns:
    `Score`; its digest is over the codes of the scored logits as that of
    `bits.Scorer`, with windows in place of documents.

  Raises:
    ConfigError: see `check`.
  """
  check(window, stride, getattr(run, "context", None))
  rows = []
  for ids in documents:
    whole = np.concatenate([[bos], ids]).astype(np.int32)
    for begin, first, end in spans(len(ids), window, stride):
      rows.append(Row(whole[begin : end + 1], first - begin))
  scorer = Rows(run, params, jit=jit, batch=batch, chunk=min(chunk, window))
  parts = dict(done or {})
  todo = [k for k in range(len(rows)) if k not in parts]
  if progress is not None:
    every = sum(len(ids) for ids in documents)
    progress(every - sum(_targets(rows[k]) for k in todo))
  for index, found in scorer([rows[k] for k in todo], codes=True):
    nats = float(found.nats.astype(np.float64).sum())
    part = bits.Part(nats, len(found.nats), 0, None)
    if found.codes is not None:
      digest = hashlib.sha256(found.codes.astype("<i4").tobytes()).hexdigest()
      part = part._replace(integers=found.codes.size, digest=digest)
    parts[todo[index]] = part
    if keep is not None:
      keep({todo[index]: part})
    if progress is not None:
      progress(part.ids)
  return bits.joined(
    *(parts, len(rows)),
    size=size,
    documents=len(documents),
    words=words,
  )


def _targets(row: Row) -> int:
  return len(row.ids) - 1 - row.first
