"""The HTML report of a run."""

from typing import Any

from jaxnmc.report import charts, costs, html, meshmap, spikes, tables


def run_page(data: dict[str, Any]) -> str:
  """The page of `jaxnmc run --report`.

  Args:
    data: result of the command.

  Returns:
    A complete HTML document.
  """
  engine = f", engine {data['engine']}" if data["engine"] else ""
  parts = [
    html.story(data["prompt"], data["text"]),
    html.section(
      "Summary",
      html.cards(_cards(data)),
      f"<p>{html.escape(data['sampling'])}</p>",
    ),
  ]
  if data["cost"] is not None:
    parts += _cost(data)
  if data.get("spikes") is not None:
    parts.append(_spikes(data["spikes"]))
  parts += [
    html.section(
      "This machine",
      html.table(("what", ">value", "label"), costs.host_row(data)),
    ),
    html.section("Configuration", html.pairs(data["config"])),
    html.section(
      "Provenance",
      html.pairs(
        {
          "plan": data["plan"],
          "weights SHA-256": data["weights_sha256"],
          "plan SHA-256": data["plan_sha256"],
          **data["versions"],
        }
      ),
    ),
  ]
  if data["notes"]:
    parts.append(html.section("Notes", html.bullets(data["notes"])))
  title = f"{data['model']}: {data['backend']}{engine}"
  return html.page(title, "written by jaxnmc run", *parts)


def _spikes(data: dict[str, Any]) -> str:
  return html.section(
    f"Spikes into matrix products, code {data['code']}",
    html.table(spikes.COLUMNS, spikes.roles(data)),
    html.table(spikes.ENERGY_COLUMNS, spikes.energies(data)),
    html.bullets(spikes.notes(data)),
  )


def _cards(data: dict[str, Any]) -> list[tuple[str, str, str]]:
  found = [(str(data["tokens"]), "tokens written", data["host"]["label"])]
  if data["cost"] is None:
    rate = data["host"]["tokens_per_s"]
    return [
      *found,
      (tables.number(rate), "tokens/s here", data["host"]["label"]),
    ]
  for name, what in (
    ("generate_mj_per_token", "mJ/token, generation"),
    ("prefill_mj_per_token", "mJ/token, prompt"),
    ("generate_tokens_per_s", "tokens/s, generation"),
    ("mean_w", "W, mean"),
    ("peak_w", "W, peak"),
  ):
    figure = data["cost"][name]
    found.append((tables.number(figure["value"]), what, figure["label"]))
  return found


def _cost(data: dict[str, Any]) -> list[str]:
  cost, place = data["cost"], data["placement"]
  figures = [
    (name, f["value"], f["unit"], f["label"], f["source"])
    for name, f in cost.items()
    if isinstance(f, dict) and "label" in f
  ]
  layers, cores = cost["per_layer"], cost["per_core"]
  done = data["activity"]
  parts = [
    html.section(
      "Cost on the cores",
      html.table(costs.PHASE_COLUMNS, costs.phases(data)),
      html.bullets(cost["notes"]),
    ),
    *_power(done["power"]),
    *_steps(done["steps"]),
  ]
  if layers:
    names = [f"layer {row['layer']}" for row in layers]
    walked = [row["synops_stored_per_token"] for row in layers]
    parts.append(
      html.section(
        "Layers",
        html.bars(names, walked, "weights walked per token"),
        _rows(layers),
      )
    )
  parts += [
    html.section(
      "Cores",
      "<p>Stored weights walked per token, core by core, where the cores lie"
      " on their chips; lines are links between routers, as wide as the words"
      " they carry. Numbers show under the pointer.</p>",
      meshmap.draw(data["mesh"]),
      "<p>The busiest:</p>",
      _rows(cores),
    ),
    *_links(data["mesh"]),
    *_messages(done),
    html.section("Chips", _rows(cost["per_chip"])),
    html.section(
      "Placement", html.pairs(_plain(place)), _rows(place["limits"])
    ),
    html.section("Counters", html.pairs(_plain(data["counters"]))),
    html.section(
      "Every figure",
      html.table(("figure", ">value", "unit", "label", "source"), figures),
    ),
  ]
  return parts


def _power(found: dict[str, Any] | None) -> list[str]:
  if found is None:
    return []
  text = f"<p>{html.escape(found['label'])}: {html.escape(found['source'])}</p>"
  return [html.section("Mean power", charts.power(found), text)]


def _steps(found: dict[str, Any] | None) -> list[str]:
  """Time per step, and what set it."""
  if found is None:
    return []
  text = (
    f"<p>All {found['steps']:,} time steps ({found['label']}), coloured by the"
    " term of the step time that was the longest. Numbers show under the"
    " pointer.</p>"
  )
  parts = (text, charts.steps(found), _rows(found["bounds"]))
  return [html.section("Time per step", *parts)]


def _messages(done: dict[str, Any]) -> list[str]:
  """Messages per core; how large they are and who sends them, if counted."""
  cores, sizes = done["core_messages"], done["messages"]
  parts = []
  if drawn := charts.core_messages(cores):
    parts.append(html.section("Messages of each core", drawn))
  if sizes is None:
    return parts
  head = (
    f"<p>All {sizes['tokens']:,} tokens, every value that is sent, layers (*)"
    " together. The stronger a square, the larger its share of the row.</p>"
  )
  parts.append(
    html.section("How large messages are", head, charts.messages(sizes))
  )
  parts.append(html.section("How often neurons send", charts.rates(sizes)))
  return parts


def _links(mesh: dict[str, Any]) -> list[str]:
  """The busiest links, and what their layout rests on."""
  if not mesh["busiest"]:
    return []
  keys = ("fact", "value", "unit", "kind", "source")
  facts = [
    ["" if row[k] is None else row[k] for k in keys] for row in mesh["facts"]
  ]
  return [
    html.section(
      "Links",
      "<p>The busiest of a mesh, and between chips:</p>",
      _rows(mesh["busiest"]),
      "<p>Where cores and chips lie:</p>",
      html.table(("fact", ">value", "unit", "kind", "source"), facts),
    )
  ]


def _plain(data: dict[str, Any]) -> dict[str, Any]:
  """What fits into one cell."""
  return {
    key.replace("_", " "): ", ".join(map(str, value))
    if isinstance(value, list)
    else value
    for key, value in data.items()
    if not isinstance(value, dict)
    and not (isinstance(value, list) and value and isinstance(value[0], dict))
  }


def _rows(rows) -> str:
  """A table of dicts with equal keys."""
  if not rows:
    return ""
  keys = [k for k in rows[0] if k != "others"]
  numeric = lambda k: isinstance(rows[0][k], int | float)
  head = [(">" if numeric(k) else "") + k.replace("_", " ") for k in keys]
  text = lambda v: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v
  return html.table(head, [[text(row[k]) for k in keys] for row in rows])
