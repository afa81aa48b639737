"""What a neuromorphic chip can hold, and what its events take.

Every number carries a source. A `None` is unknown: it is not checked, and the
reports say so. Where public sources disagree, the others are kept beside the
number in use. Another chip is `dataclasses.replace(loihi2(), ...)`: a field
that no longer has its sourced value is reported as given by the caller.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from jaxnmc.errors import ConfigError

__all__ = ["Fact", "Hardware", "LOIHI2_FACTS", "loihi2"]

_ABREU = "Abreu et al. 2025"
_BRIEF = "Intel, Loihi 2 technology brief, 2021"
_LOGS = "published logs of Lava's Loihi 2 compiler"
_PROFILE = "public lava-dl YOLO profiling script of an Intel user"


@dataclasses.dataclass(frozen=True)
class Fact:
  """A number with its origin.

  Attributes:
    value: the number in use, None where nobody has published one.
    unit: its unit.
    source: where it was read, or how it was derived.
    kind: `quoted` (read in a text or in code), `derived` (algebra on quoted
      numbers), `inferred` (fits published logs), `fitted` (adjusted to a
      published table), `assumed` (a choice of ours), `given` (by the caller),
      `unknown`.
    others: pairs (value, source) that public sources say instead.
  """

  value: float | None
  unit: str
  source: str
  kind: str = "quoted"
  others: tuple[tuple[float, str], ...] = ()


def _fact(value, unit, source, kind="quoted", *others) -> Fact:
  return Fact(value, unit, source, kind, others)


LOIHI2_FACTS: Mapping[str, Fact] = types.MappingProxyType(
  {
    "cores_per_chip": _fact(
      120,
      "cores",
      f"{_ABREU}, A.1: usable on N3C1 silicon",
      "quoted",
      (128, f"{_BRIEF}; Timcheck et al. 2026: 8 x 4 routers x 4 cores"),
      (122, "Hala Point, 140,544 cores / 1,152 chips"),
    ),
    "neurons_per_core": _fact(
      8192,
      "neurons",
      f"{_BRIEF}; {_ABREU}, A.1: up to 8,192 stateful neurons",
      "quoted",
      (4096, f"{_LOGS}: 64 neurons print as 1.56 %"),
    ),
    "groups_per_core": _fact(
      8, "tiles", f"{_LOGS}: one neuron group prints as 12.5 %", "inferred"
    ),
    "synapse_units": _fact(
      12000,
      "units",
      f"{_LOGS}: registers[SynMem]=12000 (soft cap)",
      "quoted",
      (16384, "public script: hard size of the memory"),
    ),
    "synapse_unit_bits": _fact(
      64,
      "bit",
      f"{_BRIEF}: 128 KB of synapses is 16,384 units of 64 bits; neuron state"
      " fields of 64 bits in OzU-CAST/LoihiScalingEfficiency",
      "inferred",
      (32, f"{_LOGS}: row sizes of 8-bit dense layers"),
    ),
    "synapse_row_bits": _fact(
      10,
      "bit per in-axon row",
      "block header of the Loihi 1 formula in nengo-loihi; with it the rows"
      " of 8-bit dense layers in the compiler logs come out",
      "inferred",
    ),
    "pool_units": _fact(
      None,
      "units",
      "one pool of synapses, neurons and axons fits the percentages of the"
      " compiler logs, but its size is not published; counted, not checked",
      "unknown",
      (
        15000,
        f"{_LOGS}: printed totals are 0.80 synapse % + 0.20 neuron % + 0.8"
        " axon %, within 1 point on 13 rows",
      ),
      (16384, "public script: hard size of the memory"),
    ),
    "pool_per_neuron": _fact(
      0.73, "units per neuron", "0.20 x 15,000 / 4,096, same logs", "inferred"
    ),
    "pool_per_axon": _fact(
      0.75, "units per in-axon", "0.8 x 15,000 / 16,000, same logs", "inferred"
    ),
    "sparse_index_bits": _fact(
      21,
      "bit per stored entry",
      f"{_ABREU}: sparse costs 7.5 x dense for a 1024 x 1024 ternary matrix"
      " with 35.4 % zeros, that is 23 bits per non-zero of 2 bits",
      "derived",
    ),
    "weight_bits_max": _fact(
      8, "bit", f"{_ABREU}, fn. 4: 8n bits take n parallel synapses"
    ),
    "core_memory_bytes": _fact(
      192 * 1024, "B", f"{_BRIEF}: up to 192 KB, flexibly allocated"
    ),
    "state_bytes_per_neuron": _fact(
      4096, "B", f"{_BRIEF}: 0 to 4,096 bytes of state per neuron (recalled)"
    ),
    "state_word_bits": _fact(
      32, "bit", "one word holds one int32 value of the simulator", "assumed"
    ),
    "axons_in_per_core": _fact(
      16000, "axons", f"{_LOGS}: 784 inputs print as 4.90 %", "inferred"
    ),
    "axons_out_per_core": _fact(
      None,
      "axons",
      "whether a message to many cores takes one entry or one per core is not"
      " public; not checked",
      "unknown",
      (16000, f"{_LOGS}: AxonMap"),
    ),
    "messages_per_neuron": _fact(
      None, "messages per step", "not published", "unknown"
    ),
    "inbox_messages": _fact(
      None,
      "messages per core and step",
      "not published; counted by loihi(..., checked=True) where it is given",
      "unknown",
    ),
    "program_words_per_core": _fact(
      None, "instructions", "not published", "unknown"
    ),
    "message_bits": _fact(32, "bit", f"{_BRIEF}; {_ABREU}, A.1"),
    "accumulator_bits": _fact(
      32,
      "bit",
      "the ternary sums of 2,816 16-bit values need 28 bits and the paper"
      " runs them",
      "assumed",
      (24, "stock neuron models of Lava"),
    ),
    "delay_max": _fact(
      62,
      "steps",
      "lava-dl netx allows 62 of the 63 that Lava's 6 bits hold",
      "quoted",
      (63, "Lava"),
    ),
    "synop_s": _fact(
      0.66e-9,
      "s per stored weight walked",
      f"{_PROFILE} (N3B3 silicon); 107,042 weights per core of a 370M block"
      f" give 70.6 us, {_ABREU} Table 4 has 71.6 us",
      "quoted",
      (0.37e-9, "Hala Point at its peak rate of synaptic operations"),
    ),
    "neuron_s": _fact(4e-9, "s per neuron pass", _PROFILE),
    "barrier_s": _fact(
      1.78e-6,
      "s per step, one chip",
      "OzU-CAST/LoihiScalingEfficiency: floor of small one-chip networks"
      " (read off a plot)",
      "quoted",
      (0.2e-6, f"{_BRIEF}: shortest chip-wide step"),
    ),
    "barrier_system_s": _fact(
      10e-6, "s per step, several chips", f"{_PROFILE}: rule of thumb"
    ),
    "host_messages_per_s": _fact(
      160e6, "messages per s", f"{_ABREU}, A.1, citing Shrestha et al. 2024"
    ),
    "link_messages_per_s": _fact(
      67e6, "graded messages per s and link", f"{_PROFILE}: 3 x 4 B each"
    ),
    "mesh_bytes_per_s": _fact(
      24.9e9,
      "B per s and link between routers of a chip",
      "Hala Point: 3.5 PB/s between cores / 140,544 cores (Intel newsroom);"
      " that a link carries what one core's share is, is assumed",
      "derived",
    ),
    "static_w": _fact(
      None,
      "W per chip",
      f"from `energy.constants`, fitted on {_ABREU} Table 4",
      "fitted",
    ),
    "running_w": _fact(
      None,
      "W per chip in a running system",
      f"from `energy.constants`, fitted on {_ABREU} Table 4",
      "fitted",
    ),
    "ceiling_w": _fact(
      2.26,
      "W per chip",
      "Hala Point: at most 2,600 W for 1,152 chips, hosts included",
      "derived",
    ),
    "chip_step_j": _fact(
      None,
      "J per chip and step",
      f"from `energy.constants`, fitted on {_ABREU} Table 4",
      "fitted",
    ),
    "synop_j": _fact(
      None,
      "J per stored weight walked",
      f"from `energy.constants`, fitted on {_ABREU} Table 4",
      "fitted",
      (6.8e-12, "Hala Point: power ceiling / peak rate"),
    ),
    "crossing_j": _fact(
      None,
      "J per message to another chip",
      f"from `energy.constants`, fitted on {_ABREU} Table 4",
      "fitted",
    ),
    "neuron_j": _fact(
      None,
      "J per neuron pass",
      "not published; Table 4 cannot separate it, so it is inside chip_step_j",
      "unknown",
    ),
    "message_j": _fact(
      None,
      "J per message",
      "not published; Table 4 cannot separate it, so it is inside synop_j",
      "unknown",
    ),
  }
)


@dataclasses.dataclass(frozen=True)
class Hardware:
  """Limits and constants of a system of equal chips; None is unknown.

  Units and sources: `fact(name)`. Attributes are the names of
  `LOIHI2_FACTS`, and

  Attributes:
    name: name of the chip or system.
    chips: chips that may be used.
    facts: name -> `Fact` with the sourced value.

  Raises:
    ConfigError: a value that is not a positive (where it counts, whole) number.
  """

  name: str
  chips: int
  cores_per_chip: int
  neurons_per_core: int | None = None
  groups_per_core: int | None = None
  synapse_units: int | None = None
  synapse_unit_bits: int = 64
  synapse_row_bits: int = 0
  pool_units: int | None = None
  pool_per_neuron: float | None = None
  pool_per_axon: float | None = None
  sparse_index_bits: int | None = None
  weight_bits_max: int = 8
  core_memory_bytes: int | None = None
  state_bytes_per_neuron: int | None = None
  state_word_bits: int = 32
  axons_in_per_core: int | None = None
  axons_out_per_core: int | None = None
  messages_per_neuron: int | None = None
  inbox_messages: int | None = None
  program_words_per_core: int | None = None
  message_bits: int | None = None
  accumulator_bits: int | None = None
  delay_max: int | None = None
  synop_s: float | None = None
  neuron_s: float | None = None
  barrier_s: float | None = None
  barrier_system_s: float | None = None
  host_messages_per_s: float | None = None
  link_messages_per_s: float | None = None
  mesh_bytes_per_s: float | None = None
  static_w: float | None = None
  running_w: float | None = None
  ceiling_w: float | None = None
  chip_step_j: float | None = None
  synop_j: float | None = None
  crossing_j: float | None = None
  neuron_j: float | None = None
  message_j: float | None = None
  facts: Mapping[str, Fact] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if field.name in ("name", "facts"):
        continue
      value = getattr(self, field.name)
      required = field.default is not None
      if value is None and not required:
        continue
      whole = field.name in ("chips", "cores_per_chip") or required
      if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (whole and value != int(value))
        or value < 0
        or (value == 0 and field.name != "synapse_row_bits")
      ):
        raise ConfigError(
          f"{self.name}: {field.name} is {value!r}; it must be a positive"
          f" {'whole ' if whole else ''}number"
          + ("" if required else ", or None for unknown")
        )

  @property
  def cores(self) -> int:
    """Cores of all chips."""
    return self.chips * self.cores_per_chip

  @property
  def synapse_bytes(self) -> int | None:
    """Bytes of synapses that one core holds."""
    if self.synapse_units is None:
      return None
    return self.synapse_units * self.synapse_unit_bits // 8

  @property
  def unknown(self) -> tuple[str, ...]:
    """Fields without a value: neither checked nor counted."""
    names = (f.name for f in dataclasses.fields(self))
    return tuple(n for n in names if getattr(self, n) is None)

  def fact(self, name: str) -> Fact:
    """Value, unit and source of a field as it is now.

    Raises:
      ConfigError: there is no such field.
    """
    if name not in _FIELDS:
      raise ConfigError(f"{self.name} has no field {name!r}; see {_FIELDS}")
    value = getattr(self, name)
    fact = self.facts.get(name, Fact(None, "", "", "given"))
    if fact.value == value and (value is not None or fact.source):
      return fact
    if value is None:
      return Fact(None, fact.unit, "given by the caller", "unknown")
    return Fact(value, fact.unit, "given by the caller", "given")

  def table(self) -> list[dict]:
    """Rows (field, value, unit, kind, source, others) for people."""
    rows = []
    for name in _FIELDS:
      if name not in ("name", "chips"):
        fact = self.fact(name)
        rows.append({"field": name} | dataclasses.asdict(fact))
    return rows


_FIELDS = tuple(
  f.name for f in dataclasses.fields(Hardware) if f.name != "facts"
)


def loihi2(chips: int = 1, **overrides) -> Hardware:
  """A system of Loihi 2 chips.

  Args:
    chips: how many; one Kapoho Point has 8, Hala Point 1,152 (`systems`).
    **overrides: any field of `Hardware`.

  Returns:
    The description.

  Raises:
    ConfigError: an unknown field, or a value that is not a positive number.
  """
  wrong = sorted(set(overrides) - set(_FIELDS))
  if wrong:
    raise ConfigError(
      f"loihi2 has no field {', '.join(wrong)}; it has {', '.join(_FIELDS)}"
    )
  values: dict[str, Any] = {k: fact.value for k, fact in LOIHI2_FACTS.items()}
  values |= {"name": "Loihi 2", "chips": chips, "facts": LOIHI2_FACTS}
  return Hardware(**(values | overrides))
