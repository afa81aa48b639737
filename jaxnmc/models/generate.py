"""Text generation over any backend: prefill, then one token at a time.

A backend is what the transforms return: `run(params, inputs, state) -> (out,
state)` or `(out, state, counters)`, with `inputs = {"ids": int32[B, T]}` and a
"mask" where prompts of a batch are padded on the left.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import TokenError
from jaxnmc.models.inputs import check_context, flat_ids
from jaxnmc.models.sampling import Greedy


@dataclasses.dataclass(frozen=True)
class Generated:
  """What was generated.

  Attributes:
    ids: per sequence int32[n], the new tokens; the end token is left out.
    stopped: per sequence, whether the end token ended it.
    steps: tokens computed per sequence, end tokens included.
    state: recurrent state after the last token that was fed in.
    fed: int32[B, T], all ids fed in, padded prompt first.
    mask: int32[B, T], 0 where `fed` is padding.
    counters: what the backend counted, one entry per call (prefill first);
      empty for backends that do not count.
    logits: one entry per call, leaves [B, T of the call, V]; empty unless they
      were asked for.
  """

  ids: list[np.ndarray]
  stopped: list[bool]
  steps: int
  state: Any
  fed: np.ndarray
  mask: np.ndarray
  counters: list[Any]
  logits: list[Any]


def left_pad(
  rows: Sequence[np.ndarray], pad_id: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Sequences padded on the left: (ids int32[B, T], mask int32[B, T]).

  Args:
    rows: one or more of int[n]; T is the longest n.
    pad_id: id of the padding, where the mask is 0.
  """
  length = max(len(row) for row in rows)
  ids = np.full((len(rows), length), pad_id, np.int32)
  mask = np.zeros((len(rows), length), np.int32)
  for k, row in enumerate(rows):
    ids[k, length - len(row) :] = row
    mask[k, length - len(row) :] = 1
  return ids, mask


class Generator:
  """Generates with one backend; keeps the compiled programs.

  The program for a prompt is compiled per prompt shape, the one for a token
  once per batch size.
  """

  def __init__(
    self,
    run: Callable,
    params: Any,
    vocab_size: int,
    sampler: Callable = Greedy(),  # noqa: B008 (frozen)
    *,
    jit: bool = True,
  ):
    """Takes a backend and its parameters.

    Args:
      run: the backend.
      params: float params or qparams, as the backend takes them.
      vocab_size: number of tokens of the model.
      sampler: see `jaxnmc.models.sampling`.
      jit: compile the backend; False for one that compiles itself (`loihi`,
        which counts on the host).
    """
    self.vocab_size = vocab_size
    self.params = params
    # What the transforms say of the model; other callables say nothing.
    self._context = getattr(run, "context", None)
    self._run = jax.jit(run) if jit else run

    def pick(logits, step):
      return sampler(jax.tree.map(_last, logits), step)

    # Apart, so that the backend's program does not depend on the sampler.
    self._pick = jax.jit(pick)

  def __call__(
    self,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    *,
    eos_id: int | None = None,
    pad_id: int | None = None,
    callback: Callable[[np.ndarray, np.ndarray], None] | None = None,
    keep_logits: bool = False,
  ) -> Generated:
    """Generates up to `tokens` tokens for each prompt.

    Args:
      prompts: one or more sequences of token ids; shorter ones are padded on
        the left, which changes none of their integers.
      tokens: most tokens to generate, >= 1.
      eos_id: a sequence ends before this token; None: never.
      pad_id: id to pad with (its value has no effect); 0 if None.
      callback: called with (ids int32[B], alive bool[B]) as soon as a token
        of every sequence is there; `alive` is False from the end token on.
      keep_logits: keep the logits of every position.

    Returns:
      `Generated`.

    Raises:
      TokenError: an empty or impossible prompt, tokens < 1, or more of both
        than the model's context holds.
    """
    if not isinstance(tokens, int) or tokens < 1:
      raise TokenError(
        f"the number of tokens must be a positive integer; found {tokens!r}"
      )
    if len(prompts) == 0:
      raise TokenError("no prompt; give at least one sequence of token ids")
    rows = [
      flat_ids(ids, self.vocab_size, f"prompt {k}")
      for k, ids in enumerate(prompts)
    ]
    for place, row in enumerate(rows):
      # The last token is not fed in.
      most = len(row) + tokens - 1
      what = f"prompt {place} and what follows it"
      check_context(most, self._context, what)
    ids, mask = left_pad(rows, pad_id or 0)
    inputs = {"ids": jnp.asarray(ids)}
    if not mask.all():
      inputs["mask"] = jnp.asarray(mask)

    alive = np.ones(len(rows), bool)
    new: list[list[int]] = [[] for _ in rows]
    fed, counters, logits = [ids], [], []
    state, steps = None, 0
    while True:
      result = self._run(self.params, inputs, state)
      out, state = result[:2]
      token = np.asarray(self._pick(out.logits, np.int32(steps)))
      counters.extend(result[2:])
      if keep_logits:
        logits.append(jax.device_get(out.logits))
      steps += 1
      if eos_id is not None:
        alive &= token != eos_id
      for k in np.flatnonzero(alive):
        new[k].append(int(token[k]))
      if callback is not None:
        callback(token, alive.copy())
      if steps == tokens or not alive.any():
        break
      fed.append(token[:, None])
      inputs = {"ids": jnp.asarray(token[:, None])}
    whole = np.concatenate(fed, axis=1)
    full_mask = np.ones_like(whole)
    full_mask[:, : mask.shape[1]] = mask
    return Generated(
      ids=[np.array(row, np.int32) for row in new],
      stopped=[not a for a in alive],
      steps=steps,
      state=state,
      fed=whole,
      mask=full_mask,
      counters=counters,
      logits=logits,
    )


def _last(x):
  """The last position of logits [B, T, V] (leaves without a batch stay)."""
  return x[:, -1] if x.ndim == 3 else x


def generate(
  run: Callable,
  params: Any,
  prompts: Sequence[Sequence[int]],
  tokens: int,
  *,
  vocab_size: int,
  sampler: Callable = Greedy(),  # noqa: B008 (frozen)
  jit: bool = True,
  **options,
) -> Generated:
  """`Generator(...)(prompts, tokens, ...)` for a single use.

  Arguments and errors as there.
  """
  generator = Generator(run, params, vocab_size, sampler, jit=jit)
  return generator(prompts, tokens, **options)
