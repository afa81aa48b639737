"""A placement as tables and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jaxnmc
from jaxnmc.chip import schedule, systems
from jaxnmc.chip.costs import estimate
from jaxnmc.errors import PlacementError
from jaxnmc.report import tables

_COLUMNS = {
  "chip": "chip",
  "layers": "layers",
  "cores": ">cores",
  "neurons": ">neurons",
  "weights": ">weights",
  "memory_percent": ">memory %",
  "busiest_core": ">busiest",
  "busiest_percent": ">its %",
}
# Rows of chips that a terminal shows; more of them are put together.
MOST_ROWS = 40
_MOST_CHIPS = max(systems.CHIPS.values())


def on_chips(net, chips: int | None = None, **options):
  """A placement on `chips` chips, or on as few as do.

  Args:
    net: a graph or a network.
    chips: how many; None for as few as do.
    **options: of `jaxnmc.place`.

  Raises:
    PlacementError: it does not fit.
  """
  put = lambda n: jaxnmc.place(net, jaxnmc.chip.loihi2(chips=n), **options)
  if chips is not None:
    return put(chips)
  if options.get("objective") == "memory":
    found = put(_MOST_CHIPS)
    return put(max(1, len(found.chips)))
  count, low = 1, 0
  while True:
    try:
      found = put(count)
      break
    except PlacementError:
      if count >= _MOST_CHIPS:
        raise
      low, count = count, min(2 * count, _MOST_CHIPS)
  # The smallest number of chips lies in (low, count].
  while count - low > 1:
    middle = (low + count) // 2
    try:
      found = put(middle)
      count = middle
    except PlacementError:
      low = middle
  return found


def summary(placement) -> dict[str, Any]:
  """What a placement takes, ready for JSON."""
  network = placement.network
  return {
    "system": placement.hardware.name,
    "chips_asked": placement.hardware.chips,
    "chips_used": len(placement.chips),
    "cores_used": len(placement.used_cores),
    "cores": placement.hardware.cores,
    "tiles": len(placement.tiles),
    "populations": len(network.populations),
    "neurons": int(placement.sizes.sum()),
    "weights_stored": int(placement.stored.sum()),
    "memory_bytes": placement.memory_bytes,
    "steps_per_token": network.steps_per_token,
    "steps_per_layer": list(network.steps_per_layer),
    "policy": dict(placement.policy),
    "host": list(placement.host),
    "unknown_limits": list(placement.hardware.unknown),
    "chips": placement.table(),
    "limits": placement.limits(),
    "on_paper": estimate.on_paper(placement),
  }


def chip_ranges(
  rows: Sequence[dict[str, Any]], most: int = MOST_ROWS
) -> list[dict[str, Any]]:
  """Chips put together until there are at most so many rows.

  Neighbours that hold the same amounts first; if that is not enough, equal
  numbers of neighbours.

  Args:
    rows: of `Placement.table`, without the host.
    most: rows.

  Returns:
    Rows with the same keys: `chip` a range, sums of cores, tiles, neurons and
    weights, the mean of the memory, the busiest core of all (as chip:core).
  """
  if len(rows) <= most:
    return list(rows)
  same = ("cores", "tiles", "neurons", "weights", "busiest_weights")
  groups: list[list[dict[str, Any]]] = []
  for row in rows:
    if groups and all(groups[-1][0][k] == row[k] for k in same):
      groups[-1].append(row)
    else:
      groups.append([row])
  if len(groups) > most:
    size = -(-len(rows) // most)
    groups = [list(rows[k : k + size]) for k in range(0, len(rows), size)]
  return [_together(group) for group in groups]


def _together(group: list[dict[str, Any]]) -> dict[str, Any]:
  first, last = group[0], group[-1]
  if first is last:
    return first
  busiest = max(group, key=lambda row: row["busiest_weights"])
  total = lambda name: sum(row[name] for row in group)
  used = [row["memory_percent"] for row in group]
  return {
    **busiest,
    "chip": f"{first['chip']}-{last['chip']}",
    "layers": _layers(row["layers"] for row in group),
    "cores": total("cores"),
    "tiles": total("tiles"),
    "neurons": total("neurons"),
    "weights": total("weights"),
    "memory_percent": None if None in used else sum(used) / len(used),
    "busiest_core": f"{busiest['chip']}:{busiest['busiest_core']}",
  }


def _layers(texts) -> str:
  """Texts such as "0-3, 7, head" as one, in short."""
  low, high = None, None
  names: dict[str, None] = {}
  for part in (p for text in texts for p in text.split(", ") if p):
    first, _, last = part.partition("-")
    if not first.isdigit():
      names[part] = None
      continue
    low = int(first) if low is None else min(low, int(first))
    high = max(high or 0, int(last or first))
  span = [] if low is None else [str(low) if low == high else f"{low}-{high}"]
  return ", ".join([*span, *names])


def chip_table(data: dict[str, Any]):
  """One row per chip or range of chips, and one for the host."""
  chips = [row for row in data["chips"] if row["chip"] != "host"]
  host = [row for row in data["chips"] if row["chip"] == "host"]
  found = chip_ranges(chips)
  folded = len(found) < len(chips)
  rows = [[_short(row[key]) for key in _COLUMNS] for row in [*found, *host]]
  for row in rows:
    row[0] = str(row[0])  # a name: no thousands separator
    row[1] = row[1] if len(row[1]) <= 24 else _layers([row[1]])
  title = (
    f"{data['system']}: {data['cores_used']:,} cores on"
    f" {data['chips_used']:,} of {data['chips_asked']:,} chips"
    + ("; of ranges the sums, the mean memory, the busiest" if folded else "")
  )
  return tables.table(title, list(_COLUMNS.values()), rows)


def paper_table(data: dict[str, Any]):
  """Time and energy of a token at full activity, without a run."""
  rows = [
    (r["figure"], r["value"], r["unit"], r["label"]) for r in data["on_paper"]
  ]
  return tables.table(
    "On paper: every message sent, links and host not timed",
    ("figure", ">value", "unit", "label"),
    rows,
  )


def schedule_rows(net) -> list[dict[str, Any]]:
  """What is sent at which depth, ready for JSON."""
  return [dataclasses.asdict(firing) for firing in schedule.firings(net)]


def schedule_tables(net) -> list[Any]:
  """Who fires at which step: layers that are alike once, then the rest."""
  found = []
  columns = (">step", "population", "sends", ">messages", "to")
  for layers, rows in schedule.blocks(net):
    steps = dict(zip(net.layer_starts, net.steps_per_layer))
    start = net.layer_starts.get(layers[0], 0)
    what = f"layer {layers[0]}"
    if len(layers) > 1:
      what = f"each of {len(layers)} layers"
    found.append(
      tables.table(
        f"{what}: {steps.get(layers[0], '?')} steps; step 0 of layer"
        f" {layers[0]} is step {start} of a token",
        columns,
        [_fires(row, row.step) for row in rows],
      )
    )
  rest = [f for f in schedule.firings(net) if f.layer is None]
  found.append(
    tables.table(
      "outside of the layers, by step of a token",
      columns,
      [_fires(row, row.depth) for row in rest],
    )
  )
  return found


def _fires(row: schedule.Firing, step: int) -> tuple:
  """A row of a schedule: names without what they have in common."""
  cut = lambda name: name.removeprefix("layers.*.")
  own = {".".join(v.rsplit(".", 2)[-2:]) for v in row.values}
  sends = ", ".join(sorted(own)) if len(own) <= 2 else f"{len(own)} values"
  if any(v.rsplit(".", 1)[-1].isdigit() for v in row.values):
    sends = f"{len(row.values)} value{'s' * (len(row.values) > 1)}"
  to = ", ".join(cut(t) for t in row.targets)
  return step, cut(row.role), sends, row.messages, to


def head_table(rows):
  """The head on 1, 2, ... chips (`presets.head_on_chips`)."""
  return tables.table(
    "Chips of the head, each layer on one chip (modelled)",
    (">chips", ">cores", ">busiest weights", ">head us", ">step us", "step"),
    [
      (
        *(r["chips"], r["cores"], r["busiest_weights"]),
        *(r["head_us"], r["step_us"]),
        "unchanged" if r["unchanged"] else "longer",
      )
      for r in rows
    ],
  )


def embedding_table(rows):
  """The embedding on chips (`presets.embedding_on_chips`)."""
  keys = ("bits", "digits", "parts", "cores", "chips", "walked")
  return tables.table(
    "Embedding on chips, by bits of a weight (modelled)",
    (">bits", ">digits", ">parts", ">cores", ">chips", ">walked per token"),
    [[r[k] for k in keys] for r in rows],
  )


def encoding_table(title: str, rows):
  """Cost of a matrix in each encoding (`encoding.options`)."""
  return tables.table(
    title,
    ("weights", "encoding", ">bits", ">stored", ">size", ">x dense"),
    [
      (
        *(r["weights"], r["encoding"], r["bits"], r["entries"]),
        *(tables.size(r["bytes"]), f"{r['ratio']:.2f}"),
      )
      for r in rows
    ],
  )


def system_table(rows):
  """Systems beside what is published about them (`systems.published`)."""
  return tables.table(
    "Published totals of systems, and ours",
    ("system", "what", ">published", ">ours", ">%", "why they differ"),
    [
      (
        *(r["system"], r["what"], _scaled(r["published"], r["published"])),
        *(_scaled(r["ours"], r["published"]), f"{r['percent']:+.1f}", r["why"]),
      )
      for r in rows
    ],
  )


def _scaled(value: float, like: float) -> str:
  """A total, in the unit that fits another one."""
  for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
    if like >= size:
      return f"{value / size:,.4g} {unit}"
  return f"{value:,.0f}"


def _short(value: Any) -> Any:
  if value is None:
    return ""
  return f"{value:.1f}" if isinstance(value, float) else value


def limit_table(data: dict[str, Any]):
  """Each limit of a core, and the most that a core takes of it."""
  rows = []
  for row in data["limits"]:
    allowed, found = row["allowed"], row["found"]
    share = "" if not allowed else f"{100 * found / allowed:.1f}"
    state = "not checked" if allowed is None else allowed
    rows.append((row["limit"], found, state, share))
  return tables.table(
    "Limits of a core", ("limit", ">most used", ">allowed", ">%"), rows
  )
