"""Tables and plots of a run: stages, the article beside us, its claims."""

from typing import Any

from jaxnmc.report import plots, tables

# Section 5.3 and 5.1 of the article; its units.
ARTICLE = {
  "parameters": 7_000_000,
  "int8_mb": 15.0,
  "latency_ms": 8.7,
  "peak_w": 0.18,
  "query_uj": 42.0,
  "perplexity": 22.1,
  "perplexity_before": 21.6,
  "memory_mb": 18.0,
  "tokens_per_s": 115.0,
  "cores": 12,
  "spikes": 2_000_000,
}


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
  """One row per stage with what there is of its figures; None where none is."""
  base, small = found["baseline"], found["prune"]
  made = [
    _row("float", base["score"], base["size"]),
    _row("pruned, as cut", small["cut"], small["size"]),
    _row("pruned, trained", small["score"], small["size"]),
  ]
  for preset in ("W8A16", "W8A8"):
    here = found["quantise"][preset]
    made.append(_row(preset, here["score"], found["quantise"]["size"]))
  size = found["quantise"]["size"]
  spikes = found["spikes"]
  made += [
    _row(
      "spikes, as converted",
      *(spikes["converted"], size, spikes["converted_spikes"]),
    ),
    _row("spikes, trained", spikes["tuned"], size, spikes["spikes"]),
  ]
  tuned, cores = found["thresholds"], found["cores"]
  made.append(_row("thresholds", tuned["score"], size, tuned["spikes"]))
  last = _row("on cores", cores["score"], size, tuned["spikes"])
  made.append(last | {k: cores["cores"][k] for k in ("ms", "uj")})
  made[-1]["chip_mb"] = cores["cores"]["memory_bytes"] / 1e6
  return made


def _row(name: str, score, size, spikes=None) -> dict[str, Any]:
  return {
    "stage": name,
    "accuracy": score["accuracy"],
    "perplexity": score["perplexity"],
    "parameters": size["parameters"],
    "megabytes": size["megabytes"],
    "spikes": None if spikes is None else spikes["mean"],
    "ms": None,
    "uj": None,
    "chip_mb": None,
  }


def tables_of(found: dict[str, Any]) -> None:
  """Prints everything, in 80 columns."""
  people = tables.console()
  head = ("stage", ">intent %", ">perpl.", ">M par.", ">MB", ">spikes")
  body = [
    (
      *(row["stage"], f"{100 * row['accuracy']:.1f}"),
      *(f"{row['perplexity']:.1f}", f"{row['parameters'] / 1e6:.2f}"),
      f"{row['megabytes']:.1f}",
      "" if row["spikes"] is None else f"{row['spikes']:,.0f}",
    )
    for row in rows(found)
  ]
  people.print(
    tables.table("stages (measured; spikes of a command)", head, body)
  )
  people.print(
    tables.table(
      "the article's case study beside ours",
      ("what", ">article", ">ours", "ours is"),
      beside(found),
    )
  )
  people.print(
    tables.table("why it works, measured", ("claim", "found"), reasons(found))
  )


def beside(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
  """Rows (what, article, ours, label)."""
  base, cores = found["baseline"], found["cores"]
  read, laid = cores["cores"], cores["placement"]
  perplexity = cores["score"]["perplexity"]
  before = base["score"]["perplexity"]
  count = found["thresholds"]["spikes"]["mean"]
  size = base["size"]["parameters"]
  cpu = base["cpu"]
  return [
    ("parameters", "7 M", f"{size / 1e6:.2f} M", "counted"),
    ("MB at 8 bits", "15", f"{size / 1e6:.1f}", "counted"),
    (
      "perplexity, before and after",
      *("21.6, 22.1", f"{before:.1f}, {perplexity:.1f}", "measured"),
    ),
    (
      "intents right, %",
      "none",
      f"{100 * base['score']['accuracy']:.1f},"
      f" {100 * cores['score']['accuracy']:.1f}",
      "measured",
    ),
    (
      "ms of a token, of a command",
      "8.7",
      f"{read['ms'] / read['mean_ids']:.2f}, {read['ms']:.2f}",
      "modelled",
    ),
    (
      "uJ of a query, by either fit",
      *("42", f"{read['uj']:,.0f}, {read['other_form_uj']:,.0f}", "modelled"),
    ),
    ("peak power, W", "0.18", f"{read['peak_w']:.2f}", "modelled"),
    (
      "memory, MB",
      "18 with runtime",
      f"{read['memory_bytes'] / 1e6:.1f} on cores",
      "modelled",
    ),
    ("cores, at least", "12", f"{laid['fewest_cores']}", "placed"),
    ("cores, spread out", "", f"{laid['cores']}", "placed"),
    ("spikes of a query", "< 2 M", f"{count:,.0f}", "measured"),
    (
      "this CPU: ms of a query, token",
      "84",
      f"{cpu['query_ms']:.1f}, {cpu['token_ms']:.1f}",
      "measured",
    ),
  ]


def reasons(found: dict[str, Any]) -> list[tuple[str, str]]:
  """Rows (claim of the article, what was found)."""
  said = found["claims"]
  soft, ticks = said["softmax"], said["ticks"]
  line, lengths = said["lengths"], said["lengths"]["rows"]
  made = [
    (
      "softmax is sparse, so few tokens fire",
      f"{100 * soft['near_zero']:.0f} % of the weights are below 1 %, and a"
      f" token attends to {soft['effective']:.1f} others; but spiking attention"
      " has no softmax, and its rate is"
      f" {100 * found['thresholds']['spikes']['rate']:.0f} %",
    ),
    (
      "tokens overlap in time",
      f"{lengths[-1]['ids']} ids take {lengths[-1]['ms']:.2f} ms, one takes"
      f" {lengths[0]['ms']:.2f}: in a pipeline, yes; every token still passes"
      " every step",
    ),
    (
      "energy follows activity and length",
      f"{line['uj_per_id']:,.0f} uJ for each id and {line['fixed_uj']:,.0f} uJ"
      " for a command of none",
    ),
    (
      "pruning gives up to 3 times fewer spikes",
      f"{said['pruning']['times_fewer']:.2f} times fewer",
    ),
    (
      "4 to 6 ticks are a sweet spot",
      "not tried"
      if not ticks
      else "; ".join(
        f"{r['ticks']}: {100 * r['accuracy']:.0f} %, {r['ms']:.2f} ms,"
        f" {r['uj']:,.0f} uJ"
        for r in ticks
      ),
    ),
    ("small changes of thresholds matter", _sensitivity(found["thresholds"])),
    (
      "the most active neuron is the token",
      "; ".join(
        f"{r['ticks']} ticks: {100 * r['tie_rate']:.0f} % tie"
        for r in found["reading"]["activity"]
      )
      + "; by potential"
      f" {100 * found['reading']['potential']['tie_rate']:.1f} %",
    ),
  ]
  if "learning" in found:
    taught = found["learning"]
    made.append(
      (
        "learning on the chip",
        f"{taught['examples']} new commands: {taught['new_points']:+.1f} points"
        f" on new ones, {taught['old_points']:+.1f} on old ones",
      )
    )
  return made


def _sensitivity(found: dict[str, Any]) -> str:
  grid = {row["factor"]: row for row in found["grid"]}
  return "; ".join(
    f"x {f}: {grid[f]['spikes']:,.0f} spikes, KL {grid[f]['kl']:.2f}"
    for f in (0.5, 0.84, 1.0, 1.19, 2.0)
  )


def plot(found: dict[str, Any], folder: str) -> list:
  """Writes one figure of four panels; returns its path."""
  figure, axes = plots.new(2, 10, 7, rows=2)
  grid = found["thresholds"]["grid"]
  axes[0].plot(
    [r["factor"] for r in grid],
    [r["kl"] for r in grid],
    "-o",
    color=plots.COLOURS[0],
  )
  axes[0].set(
    xscale="log", xlabel="all thresholds times", ylabel="KL from float, nats"
  )
  other = axes[0].twinx()
  other.plot(
    [r["factor"] for r in grid],
    [r["spikes"] for r in grid],
    "--s",
    color=plots.COLOURS[1],
  )
  other.set_ylabel("spikes of a command (dashed)")
  ticks = found["claims"]["ticks"]
  axes[1].plot(
    [r["ticks"] for r in ticks],
    [100 * r["accuracy"] for r in ticks],
    "-o",
    color=plots.COLOURS[0],
  )
  axes[1].set(xlabel="ticks", ylabel="intents right, % (trained briefly)")
  other = axes[1].twinx()
  other.plot(
    [r["ticks"] for r in ticks],
    [r["uj"] for r in ticks],
    "--s",
    color=plots.COLOURS[1],
  )
  other.set_ylabel("uJ of a command (dashed, modelled)")
  lengths = found["claims"]["lengths"]["rows"]
  axes[2].plot(
    [r["ids"] for r in lengths],
    [r["uj"] for r in lengths],
    "-o",
    color=plots.COLOURS[2],
  )
  axes[2].set(xlabel="ids of a command", ylabel="uJ (modelled)", ylim=(0, None))
  if "learning" in found:
    curve = found["learning"]["curve"]
    for name, colour in (("new", 1), ("old", 0)):
      axes[3].plot(
        [r["examples"] for r in curve],
        [100 * r[name] for r in curve],
        "-o",
        color=plots.COLOURS[colour],
        label=f"{name} commands",
      )
    axes[3].set(xlabel="examples learned on cores", ylabel="intents right, %")
    axes[3].legend()
  else:
    axes[3].set_axis_off()
  return plots.save({"edge_pipeline": figure}, folder)
