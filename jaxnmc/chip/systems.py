"""The Loihi 2 systems that exist, by name."""

import types
from collections.abc import Mapping

from jaxnmc.chip.hardware import Hardware, loihi2
from jaxnmc.errors import ConfigError

__all__ = ["CHIPS", "system"]

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
