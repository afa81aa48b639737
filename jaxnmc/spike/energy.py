"""Energy of spiking and dense layers, by counting operations.

Papers on spiking networks multiply counted additions by the energy of one and
compare with multiply-accumulates (`arithmetic`).  That leaves out what costs
most on digital hardware, moving data (`with_memory`), and compares with floats
instead of integers of as many levels as there are ticks (`quantized`).
`compare` gives all three side by side.

All energies are in picojoule, of a whole sequence.  Constants are `quoted`
(each names its source); what is computed from them is `modelled`; nothing here
is measured.  Functions take numbers or NumPy arrays of rates and ticks and
broadcast, so that a curve is one call.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from jaxnmc.errors import ConfigError
from jaxnmc.spike.energy_constants import (
  CONVENTIONS,
  FP32,
  INT8,
  LOIHI1,
  MEMORIES,
  PAPER_SAVINGS,
  SRAM,
  Convention,
  Events,
  Memory,
)
from jaxnmc.spike.energy_counts import (
  Attention,
  Product,
  dense,
  positive,
  synops,
)

__all__ = [
  "CONVENTIONS",
  "FP32",
  "INT8",
  "LOIHI1",
  "MEMORIES",
  "PAIRS",
  "PAPER_SAVINGS",
  "SRAM",
  "Attention",
  "Comparison",
  "Convention",
  "Energies",
  "Events",
  "Memory",
  "Product",
  "activation_bits",
  "arithmetic",
  "break_even_rate",
  "compare",
  "crossover",
  "dense",
  "dense_arithmetic",
  "dense_with_memory",
  "events",
  "invert",
  "quantized",
  "synops",
  "with_memory",
]


def _ticks(ticks: Any) -> np.ndarray:
  found = np.asarray(ticks)
  if found.dtype.kind not in "iu" or (found < 1).any():
    raise ConfigError(f"ticks must be positive integers; found {ticks!r}")
  return found


def _rates(rates: Any, products: Iterable[Product]) -> dict[str, Any]:
  """Rate of each driver; None for one whose values are no spikes."""
  drivers = sorted({p.driver for p in products})
  if not isinstance(rates, Mapping):
    rates = dict.fromkeys(drivers, rates)
  lost = [name for name in drivers if name not in rates]
  if lost:
    raise ConfigError(
      f"rates: found none for {', '.join(lost)}; give the spikes per value and"
      f" tick of {', '.join(drivers)}, or None for values that are no spikes"
    )
  for name in drivers:
    rate = rates[name]
    if rate is None:
      continue
    value = np.asarray(rate, np.float64)
    if not ((value >= 0) & (value <= 1)).all():  # also refuses NaN
      raise ConfigError(
        f"rates[{name!r}]: found {rate!r}, allowed is 0 to 1 spikes per value"
        " and tick"
      )
  return {name: rates[name] for name in drivers}


def dense_arithmetic(products: Iterable[Product], convention: Convention):
  """E_MAC times all multiply-accumulates, pJ."""
  return convention.mac * sum(p.macs for p in products)


def arithmetic(
  products: Iterable[Product], ticks: Any, rates: Any, convention: Convention
):
  """E_AC s T per dense multiply-accumulate whose input is spikes, pJ.

  One whose input is no spikes (rate None) costs E_MAC, once: it is the same at
  every tick.

  Args:
    products: of a layer.
    ticks: T.
    rates: s, spikes per value and tick: one for all, or by driver.
    convention: of the arithmetic.

  Raises:
    ConfigError: ticks below 1, a rate outside of 0 ... 1 or missing.
  """
  products = tuple(products)
  found, ticks, total = _rates(rates, products), _ticks(ticks), 0.0
  for p in products:
    rate = found[p.driver]
    if rate is None:
      total = total + convention.mac * p.macs
    else:
      total = total + convention.add * ticks * np.asarray(rate) * p.macs
  return total


def dense_with_memory(
  products: Iterable[Product], convention: Convention, memory: Memory
):
  """Arithmetic, and memory: an operand per MAC, inputs and outputs once, pJ.

  No operand is kept for another token, here as in `with_memory`.
  """
  products = tuple(products)
  moved = sum(p.macs + p.inputs + p.outputs for p in products)
  bits = convention.bits * moved
  return dense_arithmetic(products, convention) + memory.bit * bits


def with_memory(
  products: Iterable[Product],
  ticks: Any,
  rates: Any,
  convention: Convention,
  memory: Memory,
):
  """`arithmetic`, and memory, pJ.

  Per addition the operand, per output and tick (or, in place, per addition) a
  read and a write of it, per spike an address packet.

  Raises:
    ConfigError: as `arithmetic`.
  """
  products = tuple(products)
  found, steps = _rates(rates, products), _ticks(ticks)
  total = arithmetic(products, ticks, rates, convention)
  fetched = {"weight": convention.bits, "spike": 1, "sum": memory.sum_bits}
  stored = {"potential": memory.state_bits, "sum": memory.sum_bits}
  for p in products:
    rate = found[p.driver]
    if rate is None:
      bits: Any = convention.bits * (p.macs + p.inputs + p.outputs)
    else:
      sent = steps * np.asarray(rate)
      updates = sent * p.macs if p.in_place else steps * p.outputs
      bits = sent * p.macs * fetched[p.operand]
      bits = bits + 2 * stored[p.stores] * updates
      bits = bits + 2 * memory.address_bits * sent * p.inputs
    total = total + memory.bit * bits
  return total


def activation_bits(ticks: int) -> int:
  """Bits that tell as many levels apart as there are spike counts, T + 1."""
  return math.ceil(math.log2(int(_ticks(ticks)) + 1))


def quantized(
  products: Iterable[Product], bits: int, memory: Memory | None = None
):
  """A dense form with 8-bit weights and activations of `bits` bits, pJ.

  A multiply-accumulate costs bits / 8 of that of 8 bits (a bit at a time).

  Args:
    products: of a layer.
    bits: of activations; `activation_bits(T)` matches T ticks.
    memory: count moves, too: 8 bits per MAC, `bits` per input and output.

  Raises:
    ConfigError: no positive number of bits.
  """
  positive("bits", bits)
  products = tuple(products)
  total = dense_arithmetic(products, INT8) * bits / INT8.bits
  if memory is not None:
    moved = sum(p.macs * INT8.bits for p in products)
    moved += sum((p.inputs + p.outputs) * bits for p in products)
    total += memory.bit * moved
  return total


def events(
  synops: float, neuron_steps: float, spikes: float, hops: float, chip: Events
) -> tuple[float, float]:
  """Energy of counted events, (least, most) pJ.

  The least takes dense synapses and the cheapest hop.
  """
  fixed = neuron_steps * chip.neuron + spikes * chip.spike
  least = synops * chip.synapse + hops * chip.hop[0]
  most = synops * chip.sparse_synapse + hops * chip.hop[1]
  return fixed + least, fixed + most


# --- what a ratio says


def crossover(convention: Convention) -> float:
  """T s below which additions cost less than multiply-accumulates."""
  return convention.mac / convention.add


def invert(ratio: Any, convention: Convention):
  """T s at which arithmetic alone leaves this share of the energy.

  Both forms have the same counts and only the operation differs, so
  ratio = (E_AC / E_MAC) T s.

  Args:
    ratio: remaining energy, above 0: 1 - saving.
    convention: of the arithmetic.

  Raises:
    ConfigError: a ratio that is not positive and finite.
  """
  found = np.asarray(ratio, np.float64)
  if not ((found > 0) & np.isfinite(found)).all():
    raise ConfigError(f"ratio must be positive and finite; found {ratio!r}")
  return ratio * crossover(convention)


def break_even_rate(ticks: int) -> float:
  """Rate above which a bit-matched quantised form costs less: b / (8 T).

  Yan et al. 2024 (arXiv 2409.08290) find 5.7 to 6.4 % for T of 5 to 10; b is
  `activation_bits(T)`.  Quoted rule; `compare` has the rate of this model.
  """
  return activation_bits(ticks) / (8 * int(_ticks(ticks)))


# --- side by side


# What is compared -> the two fields of `Energies`.
PAIRS = {
  "arithmetic": ("spiking", "dense"),
  "with memory": ("spiking_memory", "dense_memory"),
  "bit-matched arithmetic": ("spiking_int8", "matched"),
  "bit-matched with memory": ("spiking_int8_memory", "matched_memory"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Energies:
  """Products as spikes and as dense forms: energies in pJ, all `modelled`.

  Weights count as stored, zeros, too, and as values of the convention: none of
  the forms is paid less for being ternary.

  Attributes:
    convention: of the arithmetic of `spiking` and `dense`.
    memory: where data lies.
    spiking, dense: arithmetic alone.
    spiking_memory, dense_memory: with memory.
    spiking_int8, spiking_int8_memory: additions and weights of 8 bits.
    matched, matched_memory: dense form of 8-bit weights whose activations have
      as many bits as the spikes tell.
    label: of every figure.
  """

  convention: str
  memory: str
  spiking: float
  dense: float
  spiking_memory: float
  dense_memory: float
  spiking_int8: float
  spiking_int8_memory: float
  matched: float
  matched_memory: float
  label: str = "modelled"

  pairs: ClassVar[Mapping[str, tuple[str, str]]] = PAIRS

  def savings(self) -> dict[str, float]:
    """1 - spiking / dense, by what is compared; negative where it is more."""
    return {
      name: 1 - getattr(self, spiking) / getattr(self, plain)
      for name, (spiking, plain) in self.pairs.items()
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Energies):
  """A spiking form beside dense ones, at one rate for each driver.

  Attributes:
    ticks: T.
    drive: T s over all additions, by which `invert` judges; None where no
      input is spikes.
    int8, int8_memory: dense form of 8 bits.
    matched_bits: activation bits for T + 1 levels, those of `matched`.
    break_even: rate by the published rule, b / (8 T) (quoted).
    break_even_modelled: one rate for all spikes at which `matched_memory`
      and `spiking_int8_memory` are equal; None where there is none.
  """

  ticks: int
  drive: float | None
  int8: float
  int8_memory: float
  matched_bits: int
  break_even: float
  break_even_modelled: float | None

  pairs: ClassVar[Mapping[str, tuple[str, str]]] = PAIRS | {
    "int8 arithmetic": ("spiking_int8", "int8"),
    "int8 with memory": ("spiking_int8_memory", "int8_memory"),
  }


def compare(
  spiking: Iterable[Product],
  ticks: int,
  rates: Any,
  convention: Convention = FP32,
  memory: Memory = SRAM,
  dense_form: Iterable[Product] | None = None,
) -> Comparison:
  """Arithmetic only, memory-inclusive, and against quantised dense forms.

  Args:
    spiking: products of the spiking form.
    ticks: T.
    rates: spikes per value and tick, one number or by driver (None: no
      spikes).
    convention: of the arithmetic that papers use.
    memory: where data lies.
    dense_form: products of the dense form, if it is another (softmax
      attention is quadratic where the spiking one may be linear).

  Raises:
    ConfigError: as `arithmetic`.
  """
  positive("ticks", ticks)
  spiking = tuple(spiking)
  plain = spiking if dense_form is None else tuple(dense_form)
  found = _rates(rates, spiking)
  driven = [p for p in spiking if found[p.driver] is not None]
  macs = sum(p.macs for p in driven)
  bits = activation_bits(ticks)
  matched = quantized(plain, bits, memory)

  def at(rate: float) -> float:
    """Energy with this rate for all spikes; it is linear in the rate."""
    same = {n: None if r is None else rate for n, r in found.items()}
    return with_memory(spiking, ticks, same, INT8, memory)

  drive = even = None
  if macs:
    spikes = sum(p.macs * found[p.driver] for p in driven)
    drive = ticks * spikes / macs
    even = float((matched - at(0.0)) / (at(1.0) - at(0.0)))
    even = even if 0 < even <= 1 else None
  return Comparison(
    convention=convention.name,
    memory=memory.name,
    ticks=ticks,
    drive=drive,
    spiking=arithmetic(spiking, ticks, rates, convention),
    dense=dense_arithmetic(plain, convention),
    spiking_memory=with_memory(spiking, ticks, rates, convention, memory),
    dense_memory=dense_with_memory(plain, convention, memory),
    spiking_int8=arithmetic(spiking, ticks, rates, INT8),
    spiking_int8_memory=with_memory(spiking, ticks, rates, INT8, memory),
    int8=dense_arithmetic(plain, INT8),
    int8_memory=dense_with_memory(plain, INT8, memory),
    matched_bits=bits,
    matched=quantized(plain, bits),
    matched_memory=matched,
    break_even=break_even_rate(ticks),
    break_even_modelled=even,
  )
