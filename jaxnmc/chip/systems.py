"""The Loihi 2 systems that exist, by name, and their published totals."""

import types
from collections.abc import Mapping
from typing import Any

from jaxnmc.chip.hardware import Fact, Hardware, loihi2
from jaxnmc.errors import ConfigError

__all__ = ["CHIPS", "PUBLISHED", "published", "system"]

# Chips per system: Abreu et al. 2025 (Fig. 2 and Table 4) and public lava-dl
# profiling scripts. Kapoho Point boards stack; the paper's Alia Point ran 32
# of its 128 chips.
CHIPS: Mapping[str, int] = types.MappingProxyType(
  {
    "Oheo Gulch": 1,
    "Kapoho Point": 8,
    "VPX": 16,
    "Alia Point": 128,
    "Hala Point": 1152,
  }
)

_NEWSROOM = "Intel newsroom, Hala Point, 2024"
_ABREU = "Abreu et al. 2025, A.1"
_BRIEF = "Intel, Loihi 2 technology brief, 2021"
_ONE_BIT = "0.9 M per core fit 128 KB at one bit; ours have 2 bits"
_MORE_CORES = "122 cores per chip; the paper could use 120"

# What is printed about a system; of "a chip" where it is about each chip.
PUBLISHED: Mapping[tuple[str, str], Fact] = types.MappingProxyType(
  {
    ("Oheo Gulch", "chips"): Fact(1, "", f"{_ABREU}.1: single-chip system"),
    ("Oheo Gulch", "cores"): Fact(128, "", _BRIEF, "quoted", ((120, _ABREU),)),
    ("Oheo Gulch", "neurons"): Fact(1e6, "", f"{_BRIEF}: up to 1 M"),
    ("Oheo Gulch", "synapses"): Fact(120e6, "", f"{_BRIEF}: up to 120 M"),
    ("Kapoho Point", "chips"): Fact(8, "", "public lava-dl profiling script"),
    ("VPX", "chips"): Fact(16, "", "public lava-dl profiling script"),
    ("Alia Point", "chips"): Fact(128, "", f"{_ABREU}.4.1"),
    ("Hala Point", "chips"): Fact(1152, "", _NEWSROOM),
    ("Hala Point", "cores"): Fact(140544, "", _NEWSROOM),
    ("Hala Point", "neurons"): Fact(1.15e9, "", _NEWSROOM),
    ("Hala Point", "synapses"): Fact(128e9, "", f"{_NEWSROOM}; {_ABREU}"),
    ("Hala Point", "watts"): Fact(2600, "W", f"{_NEWSROOM}: at most"),
    ("Hala Point", "synops"): Fact(
      380e12, "synops/s", f"{_NEWSROOM}: 8-bit, peak"
    ),
  }
)
# Why ours is another number; (system, what) or what.
_WHY: Mapping[Any, str] = types.MappingProxyType(
  {
    ("Oheo Gulch", "cores"): "the paper could use 120",
    ("Oheo Gulch", "neurons"): "8,192 on each of 120 cores, not 128",
    ("Hala Point", "cores"): _MORE_CORES,
    ("Hala Point", "neurons"): _MORE_CORES,
    "synapses": _ONE_BIT,
    "watts": "per chip it is where our `ceiling_w` comes from",
    "synops": "peak of 0.37 ns; ours is 0.66 ns, as published for a YOLO",
  }
)


def system(name: str, chips: int | None = None, **overrides) -> Hardware:
  """A named system.

  Args:
    name: one of `CHIPS`; case, spaces and hyphens do not matter.
    chips: how many of its chips to use; all of them when not given.
    **overrides: any field of `Hardware`.

  Returns:
    The description.

  Raises:
    ConfigError: no such system, or it has fewer chips.
  """
  plain = lambda text: "".join(c for c in text.lower() if c.isalnum())
  found = [known for known in CHIPS if plain(known) == plain(name)]
  if not found:
    raise ConfigError(f"no system {name!r}; known are {', '.join(CHIPS)}")
  full = CHIPS[found[0]]
  if chips is not None and chips > full:
    raise ConfigError(
      f"{found[0]} has {full} chips, not {chips}; ask for fewer, or use"
      f" loihi2(chips={chips})"
    )
  values = {"name": found[0]} | overrides
  return loihi2(full if chips is None else chips, **values)


def _ours(hardware: Hardware, what: str) -> float | None:
  """A total of a system, from the limits of a core."""
  neurons, memory = hardware.neurons_per_core, hardware.synapse_bytes
  if what in ("chips", "cores"):
    return getattr(hardware, what)
  if what == "neurons":
    return None if neurons is None else hardware.cores * neurons
  if what == "synapses":
    return None if memory is None else hardware.cores * memory * 8 // 2
  if what == "watts":
    watts = hardware.ceiling_w
    return None if watts is None else hardware.chips * watts
  seconds = hardware.synop_s
  return None if seconds is None else hardware.cores / seconds


def published(name: str | None = None) -> list[dict[str, Any]]:
  """Totals of the systems: what is published, ours, and why they differ.

  Args:
    name: one of `CHIPS`; all when not given.

  Returns:
    Rows (system, what, published, ours, percent: difference of ours, unit,
    source, why); `why` is empty where the two agree to half a percent.

  Raises:
    ConfigError: no such system.
  """
  only = None if name is None else system(name).name
  rows = []
  for (owner, what), fact in PUBLISHED.items():
    if only in (None, owner) and fact.value:
      ours = _ours(system(owner), what)
      percent = None if ours is None else 100 * (ours / fact.value - 1)
      apart = percent is not None and abs(percent) > 0.5
      rows.append(
        {
          "system": owner,
          "what": what,
          "published": fact.value,
          "ours": ours,
          "percent": percent,
          "unit": fact.unit,
          "source": fact.source,
          "why": _WHY.get((owner, what), _WHY.get(what, "")) if apart else "",
        }
      )
  return rows
