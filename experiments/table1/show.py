"""Tables and plot of the study, in 80 columns."""

from typing import Any

from jaxnmc.report import plots, tables
from table1 import quoted

_SHORT = dict(zip(quoted.TASKS, ("ARCc", "ARCe", "HS", "OQA", "PQ", "WG")))


def _percent(figure: dict, digits: int = 2) -> str:
  """A share with its interval, in percent."""
  value = f"{100 * figure['value']:+.{digits}f}"
  if figure["spread"] is None:
    return value
  return f"{value} ± {100 * figure['spread']:.{digits}f}"


def show(data: dict) -> None:
  """Prints what came out."""
  people = tables.console()
  done = [row for row in data["rows"] if "refused" not in row]
  say = lambda line: people.print(line, markup=False, soft_wrap=True)
  for name in done[0]["texts"] if done else ():
    body = []
    for row in done:
      text = row["texts"][name]
      body.append(
        (
          row["row"],
          f"{text['perplexity']:.3f}",
          _percent(text["loss"]),
          f"{100 * text['agreement']['value']:.2f}",
          f"{text['kl']['value']:.2g}",
        )
      )
    one = done[0]["texts"][name]
    title = (
      f"{name}: {one['ids']:,} ids in {one['documents']} documents (measured);"
      " change from the first row, 95 %"
    )
    head = ("row", ">perplexity", ">change %", ">same token %", ">KL nats")
    people.print(tables.table(title, head, body))
  if done and done[0]["tasks"]:
    _tasks(people, done)
  for row in data["rows"]:
    if "refused" in row:
      say(f"* {row['row']}: {row['refused']}")
  say("What fixed says to the paper's rows:")
  for name, why in data["refusals"].items():
    say(f"* {name}: {why}")
  say(f"eps 1e-6 with 12 fraction bits: {data['underflow']}")
  for row in done:
    for name, text in row["texts"].items():
      if "float32" in text:
        close = text["float32"]
        say(
          f"{row['row']}, {name}: fake_quant in float32 finds the same token at"
          f" {100 * close['agreement']['value']:.3f} % of ids, perplexity"
          f" {_percent(close['loss'], 4)} %"
        )
  made = data["census"]
  if "refused" in made:
    say(f"No census of operations: {made['refused']}")
    return
  say(
    f"Per token {made['additions']:,} additions and"
    f" {made['product_multiplications']:,} multiplications in products,"
    f" {made['neuron_multiplications']:,} multiplications in neurons;"
    f" {100 * made['zeros']:.1f} ± {100 * made['zeros_spread']:.1f} % of the"
    f" weights of {made['matrices']} matrices are zero (mean and standard"
    " deviation over matrices; the paper: 35.4 ± 2.5 %)."
  )


def _order(row: dict) -> list[str]:
  """Tasks, those of the paper first and in its order."""
  known = [name for name in quoted.TASKS if name in row["tasks"]]
  return known + [name for name in row["tasks"] if name not in known]


def _tasks(people, done: list[dict]) -> None:
  names = _order(done[0])
  average = lambda row: sum(row["tasks"][n]["acc"] for n in names) / len(names)
  first = average(done[0])
  body = []
  for row in done:
    mean = average(row)
    body.append(
      (
        row["row"],
        *(f"{100 * row['tasks'][n]['acc']:.1f}" for n in names),
        f"{100 * mean:.1f}",
        f"{100 * (mean / first - 1):+.1f}" if first else "",
      )
    )
  one = done[0]["tasks"]
  widest = max(
    (t["acc_interval"][1] - t["acc_interval"][0]) / 2 for t in one.values()
  )
  chance = [f"{100 * one[n]['chance']:.0f}" for n in names]
  body.append(("chance", *chance, "", ""))
  head = ("row", *(f">{_SHORT.get(n, n)}" for n in names), ">Avg", ">Diff %")
  title = (
    f"Accuracy, % ({sum(t['items'] for t in one.values()):,} items; each"
    f" ± up to {100 * widest:.0f}, 95 %; measured)"
  )
  people.print(tables.table(title, head, body))
  body = [
    (name, *(f"{x:.1f}" for x in values[:-1]), f"{values[-1]:+.1f}")
    for name, values in quoted.TABLE1.items()
  ]
  head = ("row", *(f">{n}" for n in _SHORT.values()), ">Avg", ">Diff %")
  people.print(tables.table("The paper's 370M (quoted)", head, body))


def plot(data: dict) -> Any:
  """Change of perplexity and agreement by row."""
  done = [row for row in data["rows"] if "refused" not in row]
  figure, axes = plots.new(2, 9.0, 4.2)
  places = list(range(len(done)))[::-1]
  kinds = (
    ("loss", 0.0, "change of perplexity, %"),
    ("agreement", 1.0, "other likeliest token, %"),
  )
  for axis, (key, best, label) in zip(axes, kinds):
    for k, name in enumerate(done[0]["texts"]):
      shown = [row["texts"][name][key] for row in done]
      sign = 1 if key == "loss" else -1
      axis.errorbar(
        [100 * sign * (one["value"] - best) for one in shown],
        [y + 0.12 * k for y in places],
        xerr=[100 * (one["spread"] or 0.0) for one in shown],
        fmt="o",
        color=plots.COLOURS[k % len(plots.COLOURS)],
        label=name,
      )
    axis.axvline(0, color=plots.GREY, linewidth=1, zorder=0)
    axis.set_xlabel(f"{label} (measured)")
    axis.set_yticks(places, [row["row"] for row in done])
    axis.grid(alpha=0.3)
  axes[1].set_yticklabels([])
  axes[0].legend(fontsize=8)
  figure.suptitle(f"{data['model']}: number formats, from {done[0]['row']}")
  return figure
