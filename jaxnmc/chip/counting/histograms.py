"""How large messages are, and how often each neuron sends one.

Counted on request, for every value that is sent (the named source of a synapse
with an end on the chips), from the values themselves: a message's size is the
number of bits of its magnitude, 0 is not sent.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import UserError

__all__ = ["BINS", "Histogram", "by_role", "from_plain", "measure", "merge"]

BINS = 33  # 0 (not sent) and 1 to 32 bits

_LAYER = re.compile(r"(^|\.)layers\.\d+(?=\.|$)")


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
  """What one value sent.

  Attributes:
    bits: int64[33], how many values had a magnitude of so many bits; entry 0
      was not sent.
    sent: int64[width], messages of each neuron.
    tokens: tokens that were counted.
  """

  bits: np.ndarray
  sent: np.ndarray
  tokens: int

  def __add__(self, other: "Histogram") -> "Histogram":
    return Histogram(
      self.bits + other.bits,
      self.sent + other.sent,
      self.tokens + other.tokens,
    )

  def plain(self) -> dict[str, Any]:
    """As lists, ready for JSON."""
    return {
      "bits": self.bits.tolist(),
      "sent": self.sent.tolist(),
      "tokens": self.tokens,
    }


def from_plain(data: Mapping[str, Any], field: str) -> Histogram:
  """What `Histogram.plain` wrote.

  Raises:
    UserError: not such lists of counts; the message names the field.
  """
  good = isinstance(data, dict) and set(data) == {"bits", "sent", "tokens"}
  if good:
    rows = [data["bits"], data["sent"], [data["tokens"]]]
    good = all(isinstance(r, list) for r in rows) and len(rows[0]) == BINS
    good = good and all(type(n) is int and n >= 0 for n in sum(rows, []))
  if not good:
    raise UserError(
      f"{field} must have {BINS} counts 'bits', a count of each neuron 'sent'"
      " and a number of 'tokens'"
    )
  bits, sent = (np.array(data[k], np.int64) for k in ("bits", "sent"))
  return Histogram(bits, sent, data["tokens"])


def measure(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Counts of one value.

  Args:
    x: int32[..., width], what is sent; fewer than 2^31 numbers.

  Returns:
    (int32[33] bits, int32[width] sent), over all but the last axis.
  """
  size = jnp.abs(x).astype(jnp.uint32)  # -2^31 stays 2^31
  length = 32 - lax.clz(size).astype(jnp.int32)
  # One reduction for all bins: 33 of them take minutes to compile.
  table = length.reshape(-1, 1) == jnp.arange(BINS)
  axes = tuple(range(x.ndim - 1))
  sent = jnp.sum(x != 0, axis=axes, dtype=jnp.int32)
  return jnp.sum(table, axis=0, dtype=jnp.int32), sent


def counted(raw, tokens: int) -> Histogram:
  """A host's histogram of what `measure` gave, summed over leading axes."""
  bits, sent = (np.asarray(a, np.int64) for a in raw)
  flat = lambda a: a.reshape(-1, a.shape[-1]).sum(0)
  return Histogram(flat(bits), flat(sent), tokens)


def merge(
  one: Mapping[str, Histogram] | None, two: Mapping[str, Histogram] | None
) -> dict[str, Histogram] | None:
  """Histograms of two runs together; None where one was not counted."""
  if one is None or two is None:
    return None
  found = dict(one)
  for name, more in two.items():
    found[name] = found[name] + more if name in found else more
  return found


def role(name: str) -> str:
  """The name of a value without the number of its layer."""
  return _LAYER.sub(r"\1layers.*", name)


def by_role(found: Mapping[str, Histogram]) -> dict[str, Histogram]:
  """Values of the same role in all layers together, in order of the layers.

  Returns:
    Role -> bits summed, neurons of all layers one after the other.
  """
  groups: dict[str, list[Histogram]] = {}
  for name, one in found.items():
    groups.setdefault(role(name), []).append(one)
  return {
    name: Histogram(
      np.sum([h.bits for h in rows], axis=0),
      np.concatenate([h.sent for h in rows]),
      rows[0].tokens,
    )
    for name, rows in groups.items()
  }


class Watch:
  """Which values the functional engine measures, and where it finds them.

  Args:
    names: node -> name of every value that is sent, in order.
    inside: of each run of layers: local index -> its node in every layer, None
      where that layer does not send it.
    outside: nodes of no layer.
  """

  def __init__(
    self,
    names: Mapping[int, str],
    inside: Sequence[Mapping[int, tuple[int | None, ...]]],
    outside: Sequence[int],
  ) -> None:
    self._order = {path: k for k, path in enumerate(names.values())}
    self._inner = [
      {
        local: tuple(None if n is None else names[n] for n in nodes)
        for local, nodes in run.items()
      }
      for run in inside
    ]
    self._outer = {node: names[node] for node in outside}

  def inside(self, run: int, values) -> tuple:
    """Measures what one layer of a run sends."""
    return tuple(measure(values[local]) for local in self._inner[run])

  def outside(self, values) -> tuple:
    """Measures what no layer sends."""
    return tuple(measure(values[node]) for node in self._outer)

  def collect(self, inside, outside, tokens: int) -> dict[str, Histogram]:
    """Names what `inside` (stacked over layers) and `outside` gave."""
    found = {}
    for table, rows in zip(self._inner, inside, strict=True):
      for paths, (bits, sent) in zip(table.values(), rows, strict=True):
        for layer, path in enumerate(paths):
          if path is not None:
            pick = lambda a, at=layer: np.asarray(a)[..., at, :]
            found[path] = counted((pick(bits), pick(sent)), tokens)
    for path, raw in zip(self._outer.values(), outside, strict=True):
      found[path] = counted(raw, tokens)
    return {
      path: found[path] for path in sorted(found, key=lambda p: self._order[p])
    }
