"""The tables of loihi_tables: every number a labelled `Figure`.

Labels: `quoted`: printed in the paper, or algebra on printed rows only;
`fitted`: free constants were adjusted to these very rows; `predicted`: from
published constants, or from other rows than the one beside it; `modelled`: a
property of our network or placement, with nothing published beside it.
"""

import dataclasses
import json

from jaxnmc.chip import outline
from jaxnmc.chip.costs.figures import Figure
from jaxnmc.models import matmulfree
from loihi_paper import model, quoted

LABELS = ("quoted", "fitted", "predicted", "modelled")
FREE = "F, d, x fitted on 3 rows of Table 4"
JOULES = "energy form B+L, fitted on Table 4"
BARE = "published constants; links take no time"
LINKED = "published constants; links at published rates"
MODES = ("prefill", "generate")
SHORT = {"prefill": "PF", "generate": "GEN"}
_WALK = "stored weights, balance, published synapse time"


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of figures.

  Attributes:
    name: key in JSON.
    title: for people.
    columns: heads, the first of which is of the rows' names.
    rows: (name, figures in order of the other columns).
    notes: below the table.
  """

  name: str
  title: str
  columns: tuple[str, ...]
  rows: list[tuple[str, list[Figure]]]
  notes: tuple[str, ...] = ()


def paper_figure(value, unit: str, place: str) -> Figure:
  """A figure of the paper, or algebra on its rows."""
  return Figure(value, unit, "quoted", f"{quoted.PAPER}, {place}")


def error(found: Figure, published: Figure) -> Figure:
  """Relative difference in percent, with the label of what was found."""
  value = None
  if found.value is not None:
    value = 100 * (found.value / published.value - 1)
  return Figure(value, "%", found.label, f"{found.source}; to the row's own")


class Experiment:
  """Our systems and fits, and the tables of Table 4."""

  def __init__(self):
    self.config = matmulfree.PRESETS["370M"]
    system = lambda n, norm: model.System(self.config, n, n, norm)
    blocks = quoted.BLOCKS
    self.pairs = {
      norm: (system(1, norm), system(blocks, norm))
      for norm in outline.FORMULATIONS
    }
    self.one, self.many = self.pairs["fused"]
    self.fits = {norm: model.fit(*pair) for norm, pair in self.pairs.items()}
    self.links = self.fits["fused"]
    self.routed = model.fit(self.one, self.many, routed=True)
    self._first = {1: self.one, blocks: self.many}

  def first(self, chips: int) -> model.System:
    """The first blocks alone, one on each of so many chips."""
    if chips not in self._first:
      self._first[chips] = model.System(self.config, chips, chips)
    return self._first[chips]

  def tables(self) -> list[Table]:
    """Tables of our rows beside those of Table 4."""
    return [
      *(self.steps(), self.prefill_step(), self.rates(), self.energies()),
      *(self.left_out_rates(), self.left_out_energies()),
      *(self.estimators(), self.first_token()),
    ]

  def ours(self, row: quoted.Row, fitted: bool) -> tuple[Figure, Figure]:
    """(tokens/s, mJ/token) of a row of Table 4; fitted: with F, d, x."""
    if row.chips == 1:
      links = self.links if fitted else self.one.published
      rate, energy = model.estimated(self.one, row.mode, links)
    else:
      links = self.links if fitted else self.many.published
      rate, energy = model.full(self.many, row.mode, links)
    free = fitted and (row.mode, row.chips) != ("prefill", 1)
    times = FREE if free else BARE
    label = "fitted" if free else "predicted"
    return (
      Figure(rate, "tokens/s", label, times),
      Figure(energy, "mJ", "fitted", f"{JOULES}; times: {times}"),
    )

  def linked(self, row: quoted.Row) -> Figure:
    """Tokens/s of a row of Table 4 with links at published rates."""
    made = model.estimated if row.chips == 1 else model.full
    rate = made(self.one if row.chips == 1 else self.many, row.mode, None)[0]
    return Figure(rate, "tokens/s", "predicted", LINKED)

  def steps(self) -> Table:
    """Steps per block of the formulations, and what Table 4 says of them."""
    text = {
      "double": "double (as trained)",
      "fused": "fused (the paper's)",
      "gate": "gate norm fused, too",
    }
    rows = []
    for norm, (one, _) in self.pairs.items():
      fit, n = self.fits[norm], one.block
      both = [quoted.table4("generate", k).rate for k in (1, quoted.BLOCKS)]
      means = [
        paper_figure(1e6 / rate / quoted.BLOCKS / n, "us", "Table 4, our steps")
        for rate in both
      ]
      free = lambda x, u="us", s=FREE: Figure(1e6 * x, u, "fitted", s)
      rows.append(
        (
          text[norm],
          [
            Figure(n, "steps", "modelled", "depth of the network of a block"),
            *means,
            *(free(fit.floor_s), free(fit.step_s), free(fit.carry_s)),
            free(one.energy.chip_step_j, "uJ", JOULES),
          ],
        )
      )
    fast, slow = quoted.table4("prefill", 1), quoted.table4("generate", 1)
    # A step of generation is no longer than one of the full pipeline.
    least = fast.rate / slow.rate / quoted.BLOCKS
    why = "Table 4, 1 chip: a step alone is no longer than a prefill step"
    for name, value, place in (
      ("published times: more than", least, why),
      ("layers of Fig. 7, from", quoted.FIGURE7_LAYERS[0], "Fig. 7, counted"),
      ("layers of Fig. 7, to", quoted.FIGURE7_LAYERS[1], "Fig. 7, counted"),
    ):
      rows.append((name, [paper_figure(value, "steps", place)]))
    return Table(
      "steps",
      "Time steps per block, and what Table 4 makes of them",
      ("formulation", "steps", "us, 1", "us, 24", "F us", "d us", "x us", "uJ"),
      rows,
      (
        "us, 1 and 24: mean step of generation on so many chips. F: shortest"
        " step; d: more on several chips; x: more where a vector crosses; uJ:"
        " per chip and step. The paper does not state its steps; Table 4 knows"
        " only products with them. The gate norm fused is not among the"
        " library's formulations: counted, not run.",
      ),
    )

  def prefill_step(self) -> Table:
    """The step of one full chip, from weights, balance and synapse time."""
    placed = self.one.placed
    row = quoted.table4("prefill", 1)
    total = int(placed.walk.sum())
    most = int(placed.walk.sum(0).max())
    chip = placed.hardware
    seconds = chip.fact("synop_s")
    ours = lambda v, u, s: Figure(v, u, "modelled", s)
    step = Figure(1e6 * most * seconds.value, "us", "predicted", seconds.source)
    paper = paper_figure(1e6 / row.rate, "us", "1 / row of Table 4")
    even = Figure(
      *(1e6 * total / chip.cores * seconds.value, "us", "predicted"),
      "perfect balance",
    )
    return Table(
      "prefill_step",
      "Prefill step of one block on one chip, predicted",
      ("what", "value", "error %"),
      [
        ("stored weights of a block", [ours(total, "weights", "network")]),
        (
          f"on the busiest of {chip.cores} cores",
          [ours(most, "weights", "placement")],
        ),
        (
          "published ns per synaptic operation",
          [Figure(1e9 * seconds.value, "ns", "quoted", seconds.source)],
        ),
        ("predicted step, us", [step, error(step, paper)]),
        ("the same, perfectly balanced, us", [even, error(even, paper)]),
        ("published step, us", [paper]),
      ],
      ("No row of Table 4 was used. Kept: within 5 % of the published one.",),
    )

  def rates(self) -> Table:
    """Throughput of Table 4."""
    rows = []
    for row in quoted.TABLE4:
      paper = paper_figure(row.rate, "tokens/s", "Table 4")
      bare, free = self.ours(row, False)[0], self.ours(row, True)[0]
      cells = [paper]
      for found in (bare, self.linked(row), free):
        cells += [found, error(found, paper)]
      rows.append((row.name, cells))
    return Table(
      "table4_throughput",
      "Table 4, tokens per second",
      (
        *("370M", "paper", "bare", "error %", "links", "error %"),
        *("with F, d, x", "error %"),
      ),
      rows,
      (
        "bare: published constants only (walk, barrier), so an upper bound."
        " links: links at their published rates, too (jaxnmc.cost)."
        " 1 chip: one block on one chip and the paper's estimators; 24 chips:"
        " all blocks.",
      ),
    )

  def energies(self) -> Table:
    """Energy of Table 4."""
    rows = []
    for row in quoted.TABLE4:
      paper = paper_figure(row.energy, "mJ", "Table 4")
      bare, free = self.ours(row, False)[1], self.ours(row, True)[1]
      cells = [paper, bare, error(bare, paper), free, error(free, paper)]
      rows.append((row.name, cells))
    return Table(
      "table4_energy",
      "Table 4, mJ per token",
      ("370M", "paper", "at bare times", "error %", "at F, d, x", "error %"),
      rows,
      (
        "Four energies were fitted to four rows: agreement at the times with"
        " F, d and x is arithmetic, not evidence.",
      ),
    )

  def left_out_rates(self) -> Table:
    """Throughput of each row of Table 4 from the other three."""
    rows, chip = [], self.many.placed.hardware
    for row in quoted.TABLE4:
      paper = paper_figure(row.rate, "tokens/s", "Table 4")
      cells, star = [paper], ""
      for routed in (False, True):
        pair = (self.one, self.many)
        value, missing = model.left_out_rate(*pair, row, routed)
        star = " (a)" if missing else ""
        why = f"not identified; {missing}" if missing else _WALK
        found = Figure(value, "tokens/s", "predicted", why)
        cells += [found, error(found, paper)]
      rows.append((row.name + star, cells))
    link = 1e6 * model.WIDTH / chip.link_messages_per_s
    return Table(
      "left_out_throughput",
      "Each row of Table 4 from the other three: tokens per second",
      ("left out", "paper", "found", "error %", "found (r)", "error %"),
      rows,
      (
        "(a) F, d and x are not identified by the other three rows. A published"
        " constant stands in: without a row of 24 chips, x of a link"
        f" ({link:.1f} us for 1024 messages); without generation on 1 chip, F"
        " of barrier and neuron passes. (r): see Fig. 5. Prefill on 1 chip"
        " needs no other row.",
        f"(r) fitted on all rows: d {1e6 * self.routed.step_s:.1f} us, x"
        f" {1e6 * self.routed.carry_s:.1f} us per vector and hop.",
      ),
    )

  def left_out_energies(self) -> Table:
    """Energy of each row of Table 4 from the other three."""
    rows = []
    for row in quoted.TABLE4:
      paper = paper_figure(row.energy, "mJ", "Table 4")
      nothing = Figure(
        *(None, "mJ", "predicted"),
        "B+L: four unknowns are not identified by three rows",
      )
      cells, mark = [paper, nothing], ""
      for form, name in (("step", "B"), ("running", "C")):
        mj, exact = model.left_out_energy(self.many.block, row, form)
        why = f"form {name}, fitted on the other three rows"
        if mj is None:
          why = f"form {name}: not identified by the other three rows"
        elif not exact:
          mark = " (b)"
          why += "; best without negative constants"
        found = Figure(mj, "mJ", "predicted", why)
        cells += [found, error(found, paper)]
      rows.append((row.name + mark, cells))
    return Table(
      "left_out_energy",
      "Each row of Table 4 from the other three: mJ per token",
      (
        *("left out", "paper", "form B+L", "form B", "error %"),
        *("form C", "error %"),
      ),
      rows,
      (
        "-: not identified. B+L, which is used here, has four unknowns for"
        " four rows. B is B+L without joules per crossing; C has watts for"
        " joules per step. At the published rates. (b): B's exact solution has"
        " a negative constant; shown is the best without.",
      ),
    )

  def estimators(self) -> Table:
    """The paper's one-chip estimators beside the whole system."""
    rows = []
    for mode in MODES:
      pair = [quoted.table4(mode, n) for n in (1, quoted.BLOCKS)]
      for k, (what, unit) in enumerate((("rate", "/s"), ("energy", "mJ"))):
        paper = [paper_figure(getattr(r, what), unit, "Table 4") for r in pair]
        bare = [self.ours(r, False)[k] for r in pair]
        free = [self.ours(r, True)[k] for r in pair]
        cells = []
        for a, b in (paper, bare, free):
          both = a.value / b.value if not k else b.value / a.value
          label = "fitted" if "fitted" in (a.label, b.label) else a.label
          ratio = Figure(both, "ratio", label, "worse on 24 chips by")
          cells += [a, b, ratio]
        rows.append((f"{SHORT[mode]} {unit}", cells))
    return Table(
      "estimators",
      "The paper's one-chip estimators (A.4.1) beside 24 chips: tokens/s, mJ",
      (
        *("chips", "paper 1", "24", "ratio", "bare 1", "24", "ratio"),
        *("F,d,x 1", "24", "ratio"),
      ),
      rows,
      (
        f"The paper says {quoted.SLOWDOWN['prefill']}x slower (prefill) and"
        f" {quoted.SLOWDOWN['generate']}x (generation). The estimator of"
        " generation's energy lets idle chips draw static power only; they"
        f" step, too: {rows[-1][1][2].value:.1f} times as much on all chips.",
      ),
    )

  def first_token(self) -> Table:
    """Time to first token: one token alone, and after prompts."""
    rows = []
    chips = (1, quoted.BLOCKS)
    cells = []
    for n in chips:
      row = quoted.table4("generate", n)
      cells.append(
        paper_figure(1e3 / row.rate, "ms", "A.4.1: 1 / row of Table 4")
      )
      for fitted in (False, True):
        rate = self.ours(row, fitted)[0]
        cells.append(Figure(1e3 / rate.value, "ms", rate.label, rate.source))
    rows.append(("one token alone", cells))
    for length in quoted.LENGTHS:
      cells = []
      for n in chips:
        row = quoted.table4("prefill", n)
        steps = length - 1 + self.many.steps
        cells.append(
          paper_figure(
            *(1e3 * steps / row.rate, "ms"), "Table 4 at our steps per token"
          )
        )
        for fitted in (False, True):
          rate = self.ours(row, fitted)[0]
          took = 1e3 * steps / rate.value
          cells.append(Figure(took, "ms", rate.label, rate.source))
      rows.append((f"prompt of {length:,}", cells))
    return Table(
      "first_token",
      "Time to first token, ms",
      (
        *("370M", "paper 1", "bare 1", "F,d,x 1"),
        *("paper 24", "bare 24", "F,d,x 24"),
      ),
      rows,
      (
        "A prompt is pipelined: equal steps, one token in each, and"
        f" {self.many.steps} steps until a token is through.",
      ),
    )


def plain(tables: list[Table]) -> dict:
  """Tables as plain data."""
  return {t.name: json.loads(json.dumps(dataclasses.asdict(t))) for t in tables}


def tables_of(data: dict) -> list[Table]:
  """The tables of `plain`'s data."""
  found = []
  for one in data.values():
    rows = [(name, [Figure(**c) for c in cells]) for name, cells in one["rows"]]
    columns, notes = tuple(one["columns"]), tuple(one["notes"])
    found.append(Table(one["name"], one["title"], columns, rows, notes))
  return found
