"""What Abreu et al. 2025 print, each figure with its place in the paper.

"Neuromorphic Principles for Efficient Large Language Models on Intel Loihi 2".
Figures 4 and 5 are plots, and their values are not in the text: none is here.
"""

import dataclasses

PAPER = "Abreu et al. 2025"
BLOCKS = 24  # A.4.1, and chips of the larger system


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of Table 4.

  Attributes:
    mode: `generate` or `prefill`.
    chips: 24: measured there; 1: the authors' estimate from one chip.
    rate: tokens per second.
    energy: mJ per token.
  """

  mode: str
  chips: int
  rate: float
  energy: float

  @property
  def name(self) -> str:
    """Short name."""
    return f"{self.mode}, {self.chips} chip{'s' * (self.chips > 1)}"


TABLE4 = (
  Row("generate", 24, 41.5, 405.0),
  Row("generate", 1, 71.3, 59.0),
  Row("prefill", 24, 6632.0, 3.7),
  Row("prefill", 1, 13965.0, 2.8),
)

LENGTHS = (500, 1000, 4000, 8000, 16000)
LOIHI = "MMF (370M) Loihi 2"


@dataclasses.dataclass(frozen=True)
class Rival:
  """A row of Tables 2 and 3, at each of `LENGTHS`.

  Attributes:
    mode: `generate` or `prefill`.
    system: model and machine.
    rate: tokens per second.
    energy: mJ per token.
    place: where it is printed.
  """

  mode: str
  system: str
  rate: tuple[float, ...]
  energy: tuple[float, ...]
  place: str = "Table 3"


# "k" is a thousand: these rows are known to two or three digits.
RIVALS = (
  Rival("generate", LOIHI, (41.5,) * 5, (405.0,) * 5, "Tables 2 and 3"),
  Rival(
    *("generate", "MMF (370M) H100", (13.4, 13.3, 13.5, 13.2, 13.5)),
    (10.1e3, 10.1e3, 10.0e3, 9.9e3, 9.8e3),
  ),
  Rival(
    *("generate", "TF++ (370M) H100", (22.4, 22.9, 21.7, 21.3, 20.9)),
    (5.5e3, 5.6e3, 6.2e3, 6.8e3, 8.2e3),
  ),
  Rival(
    *("generate", "Llama (400M) Jetson", (14.3, 14.9, 14.7, 15.2, 12.8)),
    *((723.0, 719.0, 853.0, 812.0, 1.2e3), "Tables 2 and 3"),
  ),
  Rival(
    *("generate", "Qwen2 (500M) Jetson", (13.4, 14.0, 14.1, 15.4, 12.6)),
    *((791.0, 785.0, 912.0, 839.0, 1.2e3), "Tables 2 and 3"),
  ),
  Rival("prefill", LOIHI, (6632.0,) * 5, (3.7,) * 5, "Tables 2 and 3"),
  Rival(
    *("prefill", "MMF (370M) H100", (11.4e3, 13.1e3, 30.6e3, 51.6e3, 84.6e3)),
    (6.1, 5.3, 2.5, 1.4, 0.9),
  ),
  Rival(
    *("prefill", "TF++ (370M) H100", (21.6e3, 32.7e3, 44.3e3, 55.4e3, 60.5e3)),
    (11.3, 7.3, 5.4, 4.3, 3.8),
  ),
  Rival(
    *(
      "prefill",
      "Llama (400M) Jetson",
      (849.0, 1620.0, 3153.0, 2258.0, 1440.0),
    ),
    *((11.7, 7.8, 6.8, 7.6, 11.5), "Tables 2 and 3"),
  ),
  Rival(
    *("prefill", "Qwen2 (500M) Jetson", (627.0, 909.0, 2639.0, 3861.0, 3617.0)),
    *((17.9, 13.9, 6.7, 4.4, 5.3), "Tables 2 and 3"),
  ),
)


@dataclasses.dataclass(frozen=True)
class Claim:
  """A sentence of the paper about its rows.

  Attributes:
    text: what it says.
    place: where.
    factor: the number in it.
    mode: `generate` or `prefill`.
    metric: `rate` or `energy`.
    rivals: part of the name of those it is about.
  """

  text: str
  place: str
  factor: float
  mode: str
  metric: str
  rivals: str


CLAIMS = (
  Claim("at least 2x throughput", "§4", 2, "prefill", "rate", "Jetson"),
  Claim("approximately 2x less energy", "§4", 2, "prefill", "energy", "Jetson"),
  Claim("almost 3x throughput", "§4", 3, "generate", "rate", "Jetson"),
  Claim(
    *("approximately 2x less energy", "§4", 2, "generate", "energy", "Jetson")
  ),
  Claim("3x throughput", "§4", 3, "generate", "rate", "H100"),
  Claim("at least 14x less energy", "§4", 14, "generate", "energy", "H100"),
)

# A.4.1: "Throughput is reduced by ≈ 2.1x for prefill and by ≈ 1.7x for
# generation", from one chip to 24.
SLOWDOWN = {"prefill": 2.1, "generate": 1.7}
# A.4.1 on Fig. 5: "flattens out and becomes constant for ≥ 5 chips".
PLATEAU = 5
# Neuron layers of one block in Figure 7, as counted in loihi2-facts 4.1; the
# paper states no number of steps.
FIGURE7_LAYERS = (14, 16)


def table4(mode: str, chips: int) -> Row:
  """One row of Table 4."""
  (row,) = (r for r in TABLE4 if (r.mode, r.chips) == (mode, chips))
  return row


def rivals(mode: str, name: str = "") -> tuple[Rival, ...]:
  """Rows of Tables 2 and 3 of a mode whose system contains `name`."""
  return tuple(r for r in RIVALS if r.mode == mode and name in r.system)
