"""Parameters and inputs of stock neurons, checked where they come in."""

import operator
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import ConfigError


class Limit(NamedTuple):
  """Range of a whole parameter.

  Attributes:
    low: smallest value.
    high: largest value.
    why: where the range comes from.
    each: one value per neuron is allowed, too.
  """

  low: int
  high: int
  why: str
  each: bool = False


def name_of(neuron) -> str:
  """The neuron's class (or the function it was made of), for messages."""
  return getattr(neuron, "name", type(neuron).__name__)


def whole(owner: str, field: str, value, limit: Limit) -> int:
  """`value` as an int inside its limit.

  Raises:
    ConfigError: it is none.
  """
  try:
    found = operator.index(value)
  except TypeError:
    found = None
  if (
    found is None
    or isinstance(value, bool | np.bool_)
    or not limit.low <= found <= limit.high
  ):
    raise ConfigError(
      f"{owner}: {field} is {value!r}; allowed are whole numbers from"
      f" {limit.low} to {limit.high} ({limit.why})"
    )
  return found


def _shape(value) -> tuple[int, ...] | None:
  """Shape of a number, sequence or array; None if it has none."""
  try:
    return np.shape(value)
  except ValueError:
    return None


def settle(neuron, **limits: Limit) -> None:
  """Checks fields of a frozen dataclass and makes them Python integers.

  Sequences and arrays become tuples, so that a neuron can be hashed and be a
  static argument.

  Args:
    neuron: the dataclass, in its `__post_init__`.
    **limits: field -> its range.

  Raises:
    ConfigError: a value that is not whole or outside its range; a sequence
      where there is one value for all neurons, or one that is not flat.
  """
  owner = name_of(neuron)
  for field, limit in limits.items():
    value = getattr(neuron, field)
    shape = _shape(value)
    if shape == ():
      settled: int | tuple[int, ...] = whole(owner, field, value, limit)
    elif limit.each and shape is not None and len(shape) == 1 and shape[0]:
      settled = tuple(
        whole(owner, f"{field}[{i}]", v, limit) for i, v in enumerate(value)
      )
    else:
      found = "uneven" if shape is None else list(shape)
      raise ConfigError(
        f"{owner}: the shape of {field} is {found}; allowed is one whole"
        f" number{' or a list [n] of one per neuron' if limit.each else ''}"
      )
    object.__setattr__(neuron, field, settled)


def flag(neuron, *fields: str) -> None:
  """Checks that fields are True or False.

  Raises:
    ConfigError: one is something else.
  """
  for field in fields:
    value = getattr(neuron, field)
    if not isinstance(value, bool | np.bool_):
      raise ConfigError(
        f"{name_of(neuron)}: {field} is {value!r}; allowed are True and False"
      )
    object.__setattr__(neuron, field, bool(value))


def width(neuron, n: int, *fields: str) -> int:
  """The number of neurons, checked; lists of `fields` must have as many.

  Returns:
    `n`.

  Raises:
    ConfigError: `n` is not a positive whole number, or a list has another
      length.
  """
  owner = name_of(neuron)
  n = whole(owner, "n", n, Limit(1, 2**31 - 1, "at least one neuron"))
  for field in fields:
    value = getattr(neuron, field)
    if isinstance(value, tuple) and len(value) != n:
      raise ConfigError(
        f"{owner}: {field} has {len(value)} values, the population {n}"
        " neurons; give one value, or one per neuron"
      )
  return n


def ports(neuron, inputs, like: jax.Array | None = None) -> list[jax.Array]:
  """The inputs of a step, one array per port of `neuron.ports`.

  Args:
    neuron: the neuron.
    inputs: tuple of int32[n], one per port.
    like: an array of the state, int32[n]; None if there is no state.

  Returns:
    The arrays.

  Raises:
    ConfigError: another number of ports, another dtype or shape.
  """
  owner, names = name_of(neuron), neuron.ports
  if not isinstance(inputs, tuple | list) or len(inputs) != len(names):
    found = (
      f"{len(inputs)} of them"
      if isinstance(inputs, tuple | list)
      else type(inputs).__name__
    )
    raise ConfigError(
      f"{owner}: inputs is a tuple of one int32[n] per port"
      f" ({', '.join(names)}); found {found}"
    )
  shape = _shape(inputs[0]) if like is None else like.shape
  wanted = "int32[n]" if not shape else f"int32{list(shape)}"
  for port, x in zip(names, inputs):
    # Before it becomes a jax array, where 64 bits would be cut to 32 silently.
    dtype = getattr(x, "dtype", type(x).__name__)
    if dtype != np.int32 or x.shape != shape or not shape:
      raise ConfigError(
        f"{owner}: port {port} got {dtype}{list(_shape(x) or ())}; allowed is"
        f" {wanted}"
      )
  return [jnp.asarray(x) for x in inputs]
