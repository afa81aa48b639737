"""Models of a thousand chips, placed on paper.

Claim: a model that needs over 1,000 Loihi 2 chips is placed, with its report,
in under a minute; what does not fit is refused with the limit and the number.

  python experiments/place_large.py
  python experiments/place_large.py --json large.json --workdir out

The networks come from sizes alone (`jaxnmc.chip.outline`): blocks as wide as
those of the 1.3B model, so many of them that there are 13 to 41 billion
weights. Nothing is stepped; times are modelled at full activity without links,
but for the seconds of placing, which are measured here. "At least" are the
chips that no packing can do without. `--workdir` takes the placement tables as
JSON. The exit status is 1 if a case takes over a minute, or if what should be
refused is not.
"""

import dataclasses
import os
import time

import script
from absl import flags

from jaxnmc.chip import hardware, outline, systems
from jaxnmc.chip.costs import estimate
from jaxnmc.chip.placement import fewest, place, tiles
from jaxnmc.errors import PlacementError
from jaxnmc.report import files
from jaxnmc.report import placement as report
from jaxnmc.report import tables as shown_as

_JSON = flags.DEFINE_string("json", None, "Also write all rows here.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for placement tables.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Tiny models on a small system.")

SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Case:
  """A model and how it is placed.

  Attributes:
    name: for the table.
    sizes: layers, width, GLU width, tokens.
    options: of `place`.
    chip: fields of the hardware that differ.
    refused: a word of the refusal that is expected, or None.
    chips: of a system that nobody has built; None is Hala Point.
  """

  name: str
  sizes: tuple[int, int, int, int]
  options: dict
  chip: dict = dataclasses.field(default_factory=dict)
  refused: str | None = None
  chips: int | None = None


_13B = (252, 2048, 5632, 32000)
_41B = (800, 2048, 5632, 32000)
_LLAMA = (40, 5120, 13824, 32000)
_MEMORY = {"objective": "memory"}
CASES = (
  Case("13B, step of 370M", _13B, {"layer_chips": 4, "head_chips": 7}),
  Case("13B, chips per layer", _13B, {}),
  Case("13B, fewest cores", _13B, _MEMORY),
  Case("37B, fewest cores", (720, 2048, 5632, 32000), _MEMORY),
  Case("41B, fewest cores", _41B, _MEMORY, chips=1300),
  Case(
    *("41B on Hala Point", _41B, _MEMORY | {"head": "chip"}),
    refused="Use at least",
  ),
  Case("13B, 5,120 wide", _LLAMA, {}, refused="synapse_units"),
  Case(
    *("13B, more memory", _LLAMA, {}, {"synapse_units": 2**15}),
    refused="axons_in_per_core",
  ),
)
_TINY = {"cores_per_chip": 8, "synapse_units": 400}
SMOKE = (
  Case("tiny", (3, 16, 24, 32), {"layer_chips": 2, "head_chips": 1}, _TINY),
  Case("tiny, fewest cores", (30, 16, 24, 32), _MEMORY, _TINY),
  Case("tiny, wide", (2, 300, 500, 32), {}, _TINY, refused="synapse_units"),
)


def weights_of(net) -> int:
  """Weights of the matrices."""
  return sum(s.weights.size for s in net.synapses if s.weights is not None)


def least(placed) -> int:
  """Cores that no packing of these populations can do without."""
  net, used = placed.network, set(placed.tile_population.tolist())
  items = tiles.packing_items(net, placed.encodings)
  mine = [item for k, item in enumerate(items) if k in used]
  return fewest.least(mine, placed.hardware)


def run(case: Case) -> tuple[dict, dict | None]:
  """(row of the table, summary of the placement or None if refused)."""
  start = time.perf_counter()
  net = outline.matmulfree(*case.sizes)
  chip = systems.system("Hala Point", **case.chip)
  if case.chips is not None:
    chip = hardware.loihi2(case.chips, **case.chip)
  row = {"case": case.name, "weights": weights_of(net), "refusal": None}
  try:
    placed = place.place(net, chip, **case.options)
  except PlacementError as error:
    row["seconds"] = time.perf_counter() - start
    return row | {"refusal": str(error)}, None
  data = report.summary(placed)
  report.chip_table(data)
  row["seconds"] = time.perf_counter() - start
  step = estimate.pipelined_step(placed)
  row |= {
    "chips": data["chips_used"],
    "cores": data["cores_used"],
    "chips_least": -(-least(placed) // chip.cores_per_chip),
    "steps": placed.steps_per_token,
    "prefill_step_us": None if step is None else 1e6 * step,
  }
  return row, data


def good(case: Case, row: dict) -> bool:
  """Whether it came out as claimed."""
  if case.refused is not None:
    return case.refused in (row["refusal"] or "")
  return row["refusal"] is None and row["seconds"] < SECONDS


def show(cases, rows, shown) -> None:
  """Prints the placement of one case, and a table of all."""
  people = shown_as.console()
  if shown is not None:
    people.print(report.chip_table(shown))
    people.print(report.paper_table(shown))
  people.print(
    shown_as.table(
      "Placed on paper; seconds are measured, the rest is modelled",
      ("case", ">weights", ">chips", ">at least", ">cores", ">step us", ">s"),
      [
        (
          *(r["case"], f"{r['weights'] / 1e9:.2f} G"),
          *(r.get("chips", "refused"), r.get("chips_least", "")),
          r.get("cores", ""),
          *(r.get("prefill_step_us", ""), f"{r['seconds']:.1f}"),
        )
        for r in rows
      ],
    )
  )
  for row in rows:
    if row["refusal"]:
      people.print(f"{row['case']}: {row['refusal']}", markup=False)


def main() -> int:
  """Runs the script."""
  cases = SMOKE if _SMOKE.value else CASES
  files.check_writable(_JSON.value)
  if _WORKDIR.value:
    files.check_folder(_WORKDIR.value)
    files.make_folder(_WORKDIR.value)
  rows, shown, held = [], None, []
  for k, case in enumerate(cases):
    row, data = run(case)
    rows.append(row)
    held.append(good(case, row))
    shown = data if shown is None else shown
    if data is not None and _WORKDIR.value:
      path = os.path.join(_WORKDIR.value, f"placement-{k}.json")
      files.write_json(path, data)
  show(cases, rows, shown)
  data = {"experiment": "place_large", "rows": rows, "held": held}
  files.write_json(_JSON.value, data)
  most = max(row["seconds"] for row in rows)
  print(
    f"{sum(held)} of {len(held)} cases as claimed; the longest took"
    f" {most:.1f} s"
  )
  return 0 if all(held) else 1


if __name__ == "__main__":
  script.start(main)
