"""What a run of `spiking` sent: spikes, synaptic operations, energies.

Counts of a call are int32 (exact below 2^31 spikes of one value, which is 10^8
tokens at 16 bits); everything that sums them up is exact integers of the host.
Energies are `modelled` from the counts and the constants of `spike.energy`.
"""

import dataclasses

import jax
import numpy as np
from flax import struct

from jaxnmc.errors import ConfigError
from jaxnmc.spike import energy

__all__ = ["Row", "Sent", "Spikes", "energy_of", "rows_of"]


@struct.dataclass
class Sent:
  """What the input of one matrix product sent; n values.

  Leading axes are batches and the steps of scans that the product is in.

  Attributes:
    spikes: int32[..., n], over all tokens and ticks.
    messages: int32[..., n], tokens in which the value was not 0: the graded
      messages of `fixed`.
    fanout: int32[..., n], weights of each value that are not 0.
    tokens: int32[...], without padding.
    site: whose values they are.
    ticks: of a token.
    bits: of the site's format.
    targets: neurons behind the matrix.
  """

  spikes: jax.Array
  messages: jax.Array
  fanout: jax.Array
  tokens: jax.Array
  site: str = struct.field(pytree_node=False)
  ticks: int = struct.field(pytree_node=False)
  bits: int = struct.field(pytree_node=False)
  targets: int = struct.field(pytree_node=False)


@struct.dataclass
class Spikes:
  """What one call sent.

  Attributes:
    products: path of the matrix -> what its input sent.
    tokens: int32[] or [B], without padding.
    order: the products, first one first (a pytree sorts its keys).
    graded: paths of the messages that are no spikes, in order.
  """

  products: dict[str, Sent]
  tokens: jax.Array
  order: tuple[str, ...] = struct.field(pytree_node=False)
  graded: tuple[str, ...] = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Row:
  """One matrix product, over all calls; Python's integers.

  Attributes:
    product: path of the matrix.
    site: its input.
    bits: of the site's format.
    ticks: of a token.
    values: n, the width of the site.
    targets: neurons behind the matrix.
    tokens: how many.
    spikes: sent.
    messages: graded messages that `fixed` sends instead.
    synops: pairs of a spike and a weight that is not 0.
    stored_synops: pairs of a spike and any weight.
    message_synops: pairs of a graded message and a weight that is not 0.
  """

  product: str
  site: str
  bits: int
  ticks: int
  values: int
  targets: int
  tokens: int
  spikes: int
  messages: int
  synops: int
  stored_synops: int
  message_synops: int

  @property
  def possible(self) -> int:
    """Spikes that there could be: one per value, token and tick."""
    return self.values * self.tokens * self.ticks

  @property
  def rate(self) -> float:
    """Spikes per value and tick, 0 to 1."""
    return self.spikes / self.possible if self.possible else 0.0


_SUMS = (
  *("tokens", "spikes", "messages"),
  *("synops", "stored_synops", "message_synops"),
)


def _row(path: str, sent: Sent) -> Row:
  wide = lambda x: np.asarray(x).astype(np.int64)
  spikes, messages, fanout = map(
    wide, (sent.spikes, sent.messages, sent.fanout)
  )
  total = int(spikes.sum())
  return Row(
    product=path,
    site=sent.site,
    bits=sent.bits,
    ticks=sent.ticks,
    values=spikes.shape[-1],
    targets=sent.targets,
    tokens=int(wide(sent.tokens).sum()),
    spikes=total,
    messages=int(messages.sum()),
    synops=int((spikes * fanout).sum()),
    stored_synops=total * sent.targets,
    message_synops=int((messages * fanout).sum()),
  )


def rows_of(*calls: Spikes) -> list[Row]:
  """Calls of one model summed up, one row per matrix product, in their order.

  Raises:
    ConfigError: no call, or calls of other models, plans or codes.
  """
  if not calls:
    raise ConfigError("rows_of: there is no call; give the spikes of one")
  found: dict[str, Row] = {}
  for call in calls:
    sent = jax.device_get(call.products)
    new = {path: _row(path, sent[path]) for path in call.order}
    for path, row in new.items():
      old = found.setdefault(path, row)
      if old is row:
        continue
      sums = {k: getattr(old, k) + getattr(row, k) for k in _SUMS}
      found[path] = dataclasses.replace(old, **sums)
      if dataclasses.replace(row, **sums) != found[path]:
        raise ConfigError(
          f"rows_of: {path} is another product in another call; sum up calls of"
          " one model, plan and code"
        )
    if set(new) != set(found):
      raise ConfigError(
        "rows_of: the calls have other products; sum up calls of one model"
      )
  return list(found.values())


def energy_of(
  rows: list[Row],
  convention: energy.Convention = energy.FP32,
  memory: energy.Memory = energy.SRAM,
) -> energy.Energies:
  """Energies of the products of `rows_of`, each with its own ticks and rate.

  The matched form has the bits of each site's format, not ceil(log2(T + 1)):
  bits in time carry 2^T levels.

  Raises:
    ConfigError: rows without a token.
  """
  if not rows or not all(row.tokens for row in rows):
    raise ConfigError("energy_of: there is no token; run one at least")
  total: dict[str, float] = {}
  for row in rows:
    size = (row.tokens, row.values, row.targets)
    one = (energy.dense(row.product, *size, row.site),)
    run = (one, row.ticks, {row.site: row.rate})
    parts = {
      "spiking": energy.arithmetic(*run, convention),
      "dense": energy.dense_arithmetic(one, convention),
      "spiking_memory": energy.with_memory(*run, convention, memory),
      "dense_memory": energy.dense_with_memory(one, convention, memory),
      "spiking_int8": energy.arithmetic(*run, energy.INT8),
      "spiking_int8_memory": energy.with_memory(*run, energy.INT8, memory),
      "matched": energy.quantized(one, row.bits),
      "matched_memory": energy.quantized(one, row.bits, memory),
    }
    total = {k: total.get(k, 0.0) + float(v) for k, v in parts.items()}
  names = {"convention": convention.name, "memory": memory.name}
  return energy.Energies(**names, **total)  # type: ignore[arg-type]
