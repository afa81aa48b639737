"""`jaxnmc bench`: speed against the memory limit of this machine."""

import jaxnmc
from jaxnmc.cli.output import Output
from jaxnmc.cli.parser import ZOO_MODEL
from jaxnmc.report import bench


def main(args) -> int:
  """Runs the command."""
  out = Output(args)
  bench.check_repeats(args.repeats)
  model = jaxnmc.load(ZOO_MODEL)
  found = bench.bench(model, args.repeats, args.quick)
  rows = [
    (
      row["name"],
      f"{1e3 * row['median_s']:.3f}",
      f"{100 * row['share_of_limit']:.0f} %",
      "" if row["tokens_per_s"] is None else f"{row['tokens_per_s']:,.0f}",
      f"{row['first_call_s']:.2f}",
    )
    for row in found["rows"]
    if row["group"] != "circuit"
  ]
  out.table(
    f"{model.name} and kernels, medians of {found['repeats']} (measured)",
    ("case", ">ms", ">of memory limit", ">tokens/s", ">first call s"),
    rows,
  )
  out.table(
    "circuits on one chip, stepped with counters on (measured)",
    ("case", ">active", ">steps/s", ">synops/s", ">stored/s"),
    [
      (
        row["name"],
        f"{100 * row['activity']:.2f} %",
        f"{row['steps_per_s']:,.0f}",
        f"{row['synops_per_s'] / 1e6:,.1f} M",
        f"{row['synops_stored_per_s'] / 1e6:,.1f} M",
      )
      for row in found["rows"]
      if row["group"] == "circuit"
    ],
  )
  load = found["load_average"]
  out.line(
    f"memory is read at {found['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s;"
    f" load average {load['before']:.1f} before, {load['after']:.1f} after, on"
    f" {found['cores']} cores"
  )
  out.result(found)
  return 0
