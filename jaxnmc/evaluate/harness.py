"""Any backend as a model of lm-evaluation-harness (extra `eval`).

    lm = harness.adapter(subject)
    lm_eval.simple_evaluate(model=lm, tasks=[...], task_manager=...)

`subject` is a model under one backend (`jaxnmc.report.backends.subject`).  The
harness keeps tasks, prompts and metrics; the log-likelihoods are those of
`jaxnmc.evaluate.likelihood`.  Text is generated greedily.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc import _extras
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import windows
from jaxnmc.evaluate.likelihood import Pair, encode_pair
from jaxnmc.evaluate.predict import Row
from jaxnmc.evaluate.subject import Subject
from jaxnmc.numerics.fx import codes

# What the harness's own models write at most, where a task does not say.
_TOKENS = 256


def adapter(subject: Subject, *, batch: int = 16, chunk: int = 32) -> Any:
  """A `lm_eval.api.model.LM` over a backend.

  Args:
    subject: a model under one backend.
    batch: rows side by side.
    chunk: positions of a call.

  Returns:
    The object that `lm_eval.simple_evaluate` takes as its model.

  Raises:
    MissingExtra: without the package `lm_eval`.
  """
  api = _extras.need(
    "lm_eval.api.model", "eval", "running lm-evaluation-harness"
  )
  kind = type("Adapter", (_Answers, api.LM), {})
  return kind(subject, batch, chunk)


class _Answers:
  """The three requests of the harness, each a list of objects with `args`."""

  def __init__(self, subject: Subject, batch: int, chunk: int):
    super().__init__()
    self._subject, self._chunk = subject, chunk
    self._likelihood = subject.likelihood(batch, chunk)
    self._rows = self._likelihood.rows
    self._next = _next(subject)

  def loglikelihood(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[tuple[float, bool]]:
    """(ln p of the continuation, whether greedy decoding would write it)."""
    del disable_tqdm
    pairs = [encode_pair(self._subject.tokenizer, *r.args) for r in requests]
    return [(found.log_p, found.greedy) for found in self._likelihood(pairs)]

  def loglikelihood_rolling(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[float]:
    """ln p of a whole text, from the begin token on.

    A model with bounded context takes it by disjoint windows, as the harness's
    own models do but for the last window, which here is no longer than the rest
    of the text.
    """
    del disable_tqdm
    empty = np.zeros(0, np.int32)
    texts = [self._encode(r.args[0]) for r in requests]
    limit = self._subject.context
    if limit is None:
      pairs = [Pair(empty, ids) for ids in texts]
      return [found.log_p for found in self._likelihood(pairs)]
    rows, owner = [], []
    for index, ids in enumerate(texts):
      whole = np.concatenate([[self._subject.bos], ids]).astype(np.int32)
      for begin, done, end in windows.spans(len(ids), limit, limit):
        rows.append(Row(whole[begin : end + 1], done - begin))
        owner.append(index)
    total = [0.0] * len(texts)
    for index, scored in self._rows(rows):
      total[owner[index]] -= float(scored.nats.astype(np.float64).sum())
    return total

  def generate_until(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[str]:
    """Text after a context, up to the first stop text or the end token.

    Raises:
      ConfigError: the task asks for sampling.
    """
    del disable_tqdm
    return [self._write(*r.args) for r in requests]

  def _encode(self, text: str) -> np.ndarray:
    return np.asarray(self._subject.tokenizer.encode(text), np.int32)

  def _write(self, context: str, options: Mapping[str, Any]) -> str:
    if options.get("do_sample") and options.get("temperature", 1.0) != 0:
      raise ConfigError(
        "generate_until: the task asks for sampling (do_sample); allowed is"
        " greedy decoding: set do_sample to false in its generation_kwargs"
      )
    until = options.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    tokens = int(options.get("max_gen_toks", _TOKENS))
    ids = np.concatenate([[self._subject.bos], self._encode(context)])
    if self._subject.context is not None:
      # All that is written has to fit behind what is read.
      room = self._subject.context - tokens
      if room < 1:
        raise ConfigError(
          f"generate_until: max_gen_toks is {tokens}, the model takes"
          f" {self._subject.context} positions; allowed are fewer"
        )
      ids = ids[-room:]
    new: list[int] = []
    text = ""
    for token in self._greedy(ids.astype(np.int32)):
      if token == getattr(self._subject.tokenizer, "eos_id", None):
        break
      new.append(token)
      text = self._subject.tokenizer.decode(new)
      if len(new) == tokens or any(stop in text for stop in stops if stop):
        break
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text

  def _greedy(self, ids: np.ndarray) -> Iterator[int]:
    """The ids that greedy decoding writes, without end."""
    if not self._rows.carries:
      yield from self._greedy_anew(ids)
      return
    # Whole chunks, then one by one: three programs do for any length.
    chunk, state = self._chunk, None
    whole = len(ids) // chunk * chunk
    sizes = [chunk] * (whole // chunk) + [1] * (len(ids) - whole)
    place = token = 0
    for size in sizes:
      piece = ids[place : place + size]
      token, state = self._next(piece, state, size - 1)
      place += size
    while True:
      yield token
      token, state = self._next(np.array([token], np.int32), state, 0)

  def _greedy_anew(self, ids: np.ndarray) -> Iterator[int]:
    """The same for a model without a state: the whole again for each id."""
    while True:
      spare = -len(ids) % self._chunk
      token, _ = self._next(np.pad(ids, (0, spare)), None, len(ids) - 1)
      yield token
      ids = np.append(ids, np.int32(token))


def _next(subject: Subject) -> Callable[..., tuple[int, Any]]:
  """`next(ids [T], state, place) -> (likeliest id after the place, state)`."""

  def best(logits, place):
    return jnp.argmax(jnp.take(codes(logits)[0], place, axis=0))

  best = jax.jit(best)
  run = jax.jit(subject.run) if subject.jit else subject.run

  def call(ids, state, place):
    out, state = run(subject.params, {"ids": jnp.asarray(ids)[None]}, state)[:2]
    return int(best(out.logits, place)), state

  return call
