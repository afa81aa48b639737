"""What a language model accepts as inputs, said before anything runs.

Shapes and types are checked always (they are static), values only where they
are concrete: under `jit` the check adds nothing to the program.
"""

from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from jaxnmc.errors import TokenError

_KEYS = ("ids", "mask")


def token_check(
  vocab_size: int, context: int | None = None
) -> Callable[..., None]:
  """The check of a language model's inputs.

  Args:
    vocab_size: ids run from 0 to vocab_size - 1.
    context: most tokens of a sequence, those that its state has seen
      (`state["position"]`) included; None: any number.

  Returns:
    `check(inputs, state=None)`, which takes `{"ids": int[T] or [B, T], "mask":
    the same shape of 0 and 1, None or absent}` and raises `TokenError` for
    anything else, or for more tokens than the context holds.
  """

  def check(inputs, state=None) -> None:
    if not isinstance(inputs, Mapping) or inputs.get("ids") is None:
      raise TokenError(
        "inputs must be a dict with 'ids' (and 'mask' if there is padding);"
        f" found {_describe(inputs)}"
      )
    unknown = sorted(set(inputs) - set(_KEYS))
    if unknown:
      raise TokenError(
        f"inputs have an unknown entry {unknown[0]!r}; this model reads"
        f" {' and '.join(map(repr, _KEYS))}"
      )
    ids, mask = inputs["ids"], inputs.get("mask")
    _check_shape(ids)
    _check_ids(ids, vocab_size)
    if mask is not None:
      _check_mask(mask, tuple(ids.shape))
    if context is not None:
      _check_room(ids, mask, state, context)

  return check


def check_context(tokens: int, context: int | None, what: str) -> None:
  """Refuses more tokens than a model's context holds.

  Args:
    tokens: of the whole sequence.
    context: `fn.context` of the model; None holds any number.
    what: the sequence, for the message.

  Raises:
    TokenError: it is longer.
  """
  if context is not None and tokens > context:
    raise TokenError(
      f"{what}: {tokens} tokens, but the model holds at most {context} of a"
      " sequence; give fewer tokens, or a model with a larger"
      " max_position_embeddings"
    )


def flat_ids(
  ids: Iterable[int], vocab_size: int, what: str, empty: bool = False
) -> np.ndarray:
  """One sequence of token ids as int32[n].

  Args:
    ids: sequence of integers.
    vocab_size: ids lie in 0 ... vocab_size - 1.
    what: name of the sequence, for the message.
    empty: whether n = 0 is allowed.

  Returns:
    int32[n].

  Raises:
    TokenError: empty, not flat, not integers, or out of range.
  """
  array = np.asarray(ids if hasattr(ids, "shape") else list(ids))
  if array.size == 0:
    if empty:
      return np.zeros((0,), np.int32)
    raise TokenError(
      f"{what}: no token ids; give at least one (a begin-of-text token where"
      " there is no text)"
    )
  if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
    raise TokenError(
      f"{what}: found {array.dtype} of shape {list(array.shape)}; allowed is a"
      " flat sequence of integers"
    )
  low, high = int(array.min()), int(array.max())
  if low < 0 or high >= vocab_size:
    raise TokenError(
      f"{what}: token id {low if low < 0 else high} is out of range; allowed"
      f" are 0 to {vocab_size - 1}; was it encoded with another tokenizer?"
    )
  return array.astype(np.int32)


def _describe(x) -> str:
  if isinstance(x, Mapping):
    return f"a dict with {sorted(map(str, x))}"
  if hasattr(x, "shape") and hasattr(x, "dtype"):
    return f"{x.dtype}{list(x.shape)}"
  return type(x).__name__


def _check_shape(ids) -> None:
  if not hasattr(ids, "dtype") or not hasattr(ids, "shape"):
    raise TokenError(
      "inputs['ids'] must be an integer array [T] or [B, T]; found"
      f" {_describe(ids)}; use jnp.asarray(ids, jnp.int32)"
    )
  if not np.issubdtype(ids.dtype, np.integer):
    raise TokenError(
      f"inputs['ids'] must be integers; found {_describe(ids)}; use"
      " ids.astype(jnp.int32)"
    )
  if len(ids.shape) not in (1, 2):
    raise TokenError(
      f"inputs['ids'] must be [T] or [B, T]; found {_describe(ids)}"
    )
  if 0 in ids.shape:
    raise TokenError(
      f"inputs['ids'] is empty ({_describe(ids)}); a prompt has at least one"
      " token: put the begin-of-text token in front"
    )


def _check_ids(ids, vocab_size: int) -> None:
  values = _concrete(ids)
  if values is None:
    return
  place = _first((values < 0) | (values >= vocab_size))
  if place is not None:
    raise TokenError(
      f"inputs['ids']{list(place)} is {values[place]}, outside of the"
      f" vocabulary of {vocab_size} tokens (0 to {vocab_size - 1}); was the"
      " text encoded with this model's tokenizer?"
    )


def _check_mask(mask, shape: tuple[int, ...]) -> None:
  kinds = (np.integer, np.bool_)
  if not any(np.issubdtype(getattr(mask, "dtype", object), k) for k in kinds):
    raise TokenError(
      "inputs['mask'] must be integers 0 and 1 (or bool); found"
      f" {_describe(mask)}"
    )
  if tuple(mask.shape) != shape:
    raise TokenError(
      f"inputs['mask'] must have the shape of the ids, {list(shape)}; found"
      f" {_describe(mask)}"
    )
  values = _concrete(mask)
  if values is None:
    return
  place = _first((values != 0) & (values != 1))
  if place is not None:
    raise TokenError(
      f"inputs['mask']{list(place)} is {values[place]}; a mask holds 1 for"
      " tokens and 0 for padding"
    )


def _check_room(ids, mask, state, context: int) -> None:
  count: int | np.ndarray = ids.shape[-1]
  values = None if mask is None else _concrete(mask)
  if mask is not None:
    # Padding takes no place; traced, it may all be padding.
    count = 0 if values is None else values.sum(-1)
  before = state.get("position") if isinstance(state, Mapping) else None
  # Anything but a count is refused by who reads it.
  start = _concrete(before) if hasattr(before, "dtype") else None
  most = int(np.max(count if start is None else start + count))
  check_context(most, context, "inputs['ids'] with the state before them")


def _concrete(x) -> np.ndarray | None:
  """The values of an array, or None while it is traced or elsewhere."""
  if isinstance(x, jax.core.Tracer):
    return None
  if not getattr(x, "is_fully_addressable", True):
    return None
  return np.asarray(x)


def _first(wrong: np.ndarray) -> tuple[int, ...] | None:
  """Index of the first true entry, or None."""
  places = np.argwhere(wrong)
  return tuple(int(i) for i in places[0]) if len(places) else None
