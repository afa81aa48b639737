"""Lava's weight rules: sign modes, and the bits that a synapse keeps.

    M = 1 if both signs occur (mixed), else 0; sgn = -1 if no weight is
    positive (inhibitory), else +1 (excitatory: none is negative)
    W' = clip(sgn W, -256 M, 255);  k = 8 - num_weight_bits + M
    Wq = sgn ((W' >> k) << k)                        (floor shift)

A mixed matrix spends a bit on the sign, so at 8 bits its weights are even.
All of it runs once, on the host.  Source: the rules of lava-nc 0.10.0's
connections, as docs/neurons.md restates them.
"""

import numpy as np

from jaxnmc.errors import ConfigError

LOW, HIGH = -256, 255
# Loihi's registers; "about 6 bits" for the exponent, messages up to 32 bits.
WEIGHT_BITS = (1, 8)
WEIGHT_EXP = (-32, 31)
MESSAGE_BITS = (0, 32)

_RANGE = {"mixed": (LOW, HIGH), "excitatory": (0, HIGH), "inhibitory": (LOW, 0)}


def sign_mode(weights: np.ndarray) -> str:
  """The sign mode that weights have by themselves.

  "excitatory" if none is below 0, else "inhibitory" if none is above, else
  "mixed".

  Args:
    weights: int[...]; entries that are not stored count as zeros.
  """
  if weights.min(initial=0) >= 0:
    return "excitatory"
  return "inhibitory" if weights.max(initial=0) <= 0 else "mixed"


def effective(weights: np.ndarray, num_weight_bits: int, mode: str):
  """Wq of the rule above.

  Args:
    weights: int[...].
    num_weight_bits: 1 to 8.
    mode: "mixed", "excitatory" or "inhibitory".

  Returns:
    int32[...], -256 to 255.
  """
  sign = -1 if mode == "inhibitory" else 1
  mixed = int(mode == "mixed")
  clipped = np.clip(sign * weights.astype(np.int64), LOW * mixed, HIGH)
  k = 8 - num_weight_bits + mixed
  return (sign * ((clipped >> k) << k)).astype(np.int32)


def whole_number(owner: str, field: str, value, limits: tuple[int, int]) -> int:
  """`value` as an int inside `limits`.

  Raises:
    ConfigError: it is none.
  """
  low, high = limits
  if (
    isinstance(value, bool)
    or not isinstance(value, int | np.integer)
    or not low <= value <= high
  ):
    raise ConfigError(
      f"{owner}: {field} is {value!r}; allowed are whole numbers from {low} to"
      f" {high}"
    )
  return int(value)


def whole_array(owner: str, field: str, values, axes: int) -> np.ndarray:
  """`values` as an array of integers with so many axes, none of length 0.

  Raises:
    ConfigError: it is none.
  """
  try:
    array = np.asarray(values)
  except ValueError:
    array = np.asarray(None)
  if (
    array.ndim != axes
    or not array.size
    or not np.issubdtype(array.dtype, np.integer)
  ):
    raise ConfigError(
      f"{owner}: {field} is {array.dtype}{list(array.shape)}; allowed are"
      f" integers with {axes} ax{'e' if axes > 1 else 'i'}s, at least one"
    )
  return array


def in_range(owner: str, field: str, values: np.ndarray, low: int, high: int):
  """Refuses an array with a value outside [low, high], naming the first.

  Raises:
    ConfigError: there is one.
  """
  wrong = np.argwhere((values < low) | (values > high))
  if len(wrong):
    at = tuple(int(i) for i in wrong[0])
    raise ConfigError(
      f"{owner}: {field}{list(at)} is {values[at]}; allowed are {low} to {high}"
      + (f" ({len(wrong)} such values)" if len(wrong) > 1 else "")
    )


def prepare(
  owner: str, weights: np.ndarray, num_weight_bits: int, mode: str | None
) -> np.ndarray:
  """Checks weights and applies the rule.

  Args:
    owner: the synapse, for messages.
    weights: int[...], -256 to 255.
    num_weight_bits: 1 to 8.
    mode: the sign mode; None takes `sign_mode(weights)`.

  Returns:
    int32[...].

  Raises:
    ConfigError: a weight outside its range, or what is not a mode or width.
  """
  bits = whole_number(owner, "num_weight_bits", num_weight_bits, WEIGHT_BITS)
  if mode is None:
    mode = sign_mode(weights)
  if mode not in _RANGE:
    raise ConfigError(
      f"{owner}: sign_mode is {mode!r}; allowed are {', '.join(_RANGE)} and"
      " None"
    )
  in_range(owner, f"{mode} weights", weights, *_RANGE[mode])
  return effective(weights, bits, mode)
