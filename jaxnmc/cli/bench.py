"""`jaxnmc bench`: speed against the memory limit of this machine."""

import sys
import time

import jaxnmc
from jaxnmc.cli.flags import ZOO_MODEL
from jaxnmc.cli.output import Output
from jaxnmc.report import bench

_COLUMNS = (
  "case",
  ">ms",
  ">of limit",
  ">x float",
  ">tokens/s",
  ">first s",
)


def _cells(row) -> tuple[str, ...]:
  """A row of a table, of one copy or token; what it has not stays empty."""
  copies = row.get("copies", 1)
  times, tokens = row["times_float"], row["tokens_per_s"]
  return (
    row["name"],
    f"{1e3 * row['median_s'] / copies:.3f}",
    f"{100 * row['share_of_limit']:.0f} %",
    "" if times is None else f"{times:.2f}",
    "" if tokens is None else f"{tokens:,.1f}",
    f"{row['first_call_s']:.2f}",
  )


def main(args) -> int:
  """Runs the command."""
  out = Output(args)
  bench.check_repeats(args.repeats)
  model = jaxnmc.load(ZOO_MODEL)
  start = time.perf_counter()

  def say(text: str) -> None:
    seconds = time.perf_counter() - start
    print(f"[{seconds:6.1f} s] {text}", file=sys.stderr, flush=True)

  found = bench.bench(model, args.repeats, args.quick, args.shape, say)
  titles = {
    "kernel": "exact products, through copies that fit no cache (measured)",
    "model": f"{model.name} (measured)",
    args.shape: f"{args.shape} shape, random weights (measured)",
  }
  for group, title in titles.items():
    rows = [row for row in found["rows"] if row["group"] == group]
    if rows:
      out.table(title, _COLUMNS, [_cells(row) for row in rows])
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
    f"medians of {found['repeats']}; memory is read at"
    f" {found['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s;"
    f" load average {load['before']:.1f} before, {load['after']:.1f} after, on"
    f" {found['cores']} cores"
  )
  out.result(found)
  return 0
