"""The paper's tables and figures for 370M on Loihi 2, ours beside them.

Claim: one chip's prefill step of a 370M block follows from its stored weights,
their balance over 120 cores and the published time of a synaptic operation,
within 5 % of the published step and without any row of the paper. What does not
follow is printed as fitted, as not identified, or with its error.

  python experiments/loihi_tables.py
  python experiments/loihi_tables.py --json tables.json --plot figures

Comes out: Abreu et al. 2025, Tables 2 to 4 and Figures 3 to 6, beside one
block on one chip, 24 blocks on 24 chips and two larger models. The network is
built from the sizes of the model, without weights (`jaxnmc.chip.outline`), and
priced at full activity; `--activity` takes a result of `shape_370m.py` for a
measured one. The exit status is 1 if the prefill step is off by over 5 %.
"""

import script
from absl import flags
from loihi_paper import beyond, rows
from loihi_paper import show as shows

from jaxnmc.report import files
from jaxnmc.report import plots as reports

_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
_PLOT = flags.DEFINE_string("plot", None, "Folder for plots (matplotlib).")
_ACTIVITY = flags.DEFINE_string(
  "activity", None, "JSON of shape_370m.py: its measured activity."
)
_SMOKE = flags.DEFINE_bool(
  "smoke", False, "Table 4 and what belongs to it only."
)

TOLERANCE = 5.0  # percent


def main() -> int:
  """Runs the script."""
  files.check_writable(_JSON.value)
  if _PLOT.value and not _SMOKE.value:
    reports.check(_PLOT.value)
  activity = shows.measured(_ACTIVITY.value) if _ACTIVITY.value else None
  made = rows.Experiment()
  found = made.tables()
  if not _SMOKE.value:
    found += beyond.tables(made, activity)
  shows.show(made.config, found)
  off = shows.prefill_error(found)
  data = {
    "experiment": "loihi_tables",
    "network": "from the sizes of the model, without weights",
    "prefill_step_error_percent": off,
    "tables": rows.plain(found),
  }
  files.write_json(_JSON.value, data)
  if _PLOT.value and not _SMOKE.value:
    from loihi_paper import plots

    net = made.one.placed.network
    for path in plots.save(found, _PLOT.value, net):
      print(f"wrote {path}")
  good = abs(off) <= TOLERANCE
  print(
    f"prefill step of one chip: {off:+.1f} % of the published one"
    f" ({'within' if good else 'not within'} {TOLERANCE:g} %)"
  )
  return 0 if good else 1


if __name__ == "__main__":
  script.start(main)
