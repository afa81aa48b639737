"""More of what loihi_tables prints: machines, power, scaling, 1.3B, 2.7B."""

import dataclasses

from jaxnmc.chip import outline
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.costs.figures import Figure
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.errors import PlacementError
from jaxnmc.models import matmulfree
from loihi_paper import model, quoted
from loihi_paper.rows import (
  BARE,
  FREE,
  JOULES,
  LINKED,
  MODES,
  SHORT,
  Experiment,
  Table,
  error,
  paper_figure,
)

BIGGER = ("1.3B", "2.7B")


def tables(
  made: Experiment, activity: tuple[float, str] | None = None
) -> list[Table]:
  """The tables of this module.

  Args:
    made: systems and fits.
    activity: measured part of the messages that is not zero, and its source.
  """
  return [
    block(made),
    *(lengths(made, mode) for mode in MODES),
    *(claims(), power(made), *(scaling(made, mode) for mode in MODES)),
    *(bigger(made), active(made, activity)),
  ]


def lengths(made: Experiment, mode: str) -> Table:
  """Tables 2 and 3 of one mode, with our row."""
  rows = []
  for what, unit in (("rate", "tokens/s"), ("energy", "mJ")):
    k = 0 if what == "rate" else 1
    row = quoted.table4(mode, quoted.BLOCKS)
    for fitted in (False, True):
      found = made.ours(row, fitted)[k]
      name = "ours, F, d, x" if fitted else "ours, bare"
      rows.append((f"{name}, {unit}", [found] * len(quoted.LENGTHS)))
    for rival in quoted.rivals(mode):
      values = getattr(rival, what)
      cells = [paper_figure(v, unit, rival.place) for v in values]
      rows.append((f"{rival.system}, {unit}", cells))
  for rival in quoted.rivals(mode):
    place = f"{rival.place}: tokens/s x mJ"
    watts = [r * e / 1e3 for r, e in zip(rival.rate, rival.energy)]
    cells = [paper_figure(w, "W", place) for w in watts]
    rows.append((f"{rival.system}, W", cells))
  return Table(
    f"lengths_{mode}",
    f"Tables 2 and 3, Fig. 6: {mode}, by sequence length",
    (mode, *(f"{n:,}" for n in quoted.LENGTHS)),
    rows,
    (
      "Starred: best length of a row, found from the values (the paper"
      " underlines it; its text does not say where). Ours: steps, state and"
      " weights do not depend on the length. W: product of the two rows, as"
      " Fig. 6 has its values in a plot only.",
    ),
  )


def block(made: Experiment) -> Table:
  """A block on one chip as a run of its own, not an estimate of 24."""
  placed, steps = made.one.placed, made.one.steps
  prompt, written = quoted.LENGTHS[0], 100
  segments = [
    outline.traffic(placed, range(prompt)),
    outline.traffic(placed, range(0, written * steps, steps)),
  ]
  found = cost(Counters.of(segments, placed), placed, made.one.energy)
  fast, slow = (quoted.table4(mode, 1) for mode in MODES)
  n = quoted.BLOCKS
  # A.4.1: the model's token takes all blocks one after the other, and the
  # pipeline's energy is that of 24 chips.
  printed = {
    "us/step": (1e6 / fast.rate, 1e6 / slow.rate / n / made.one.block),
    "tokens/s": (fast.rate, slow.rate * n),
    "mJ/token": (fast.energy / n, None),
    "W": (fast.rate * fast.energy / 1e3 / n, None),
  }
  names = {
    "us/step": "{}_step_us",
    "tokens/s": "{}_tokens_per_s",
    "mJ/token": "{}_mj_per_token",
    "W": "{}_w",
  }
  time = made.one.generate_s(made.links)
  joules = sum(made.one.parts_j("generate", made.links).values())
  values = (1e6 * time / steps, 1 / time, 1e3 * joules, joules / time)
  why = f"{FREE}; {JOULES}"
  free = {u: Figure(v, u, "fitted", why) for u, v in zip(names, values)}
  rows = []
  for unit, name in names.items():
    cells = []
    for mode, value in zip(MODES, printed[unit]):
      ours = getattr(found, name.format(mode)).value
      label, why = "predicted", LINKED
      if unit in ("mJ/token", "W"):
        label, why = "fitted", f"{JOULES}; times: {LINKED}"
      mine = Figure(ours, unit, label, why)
      place = "Table 4 and A.4.1, our steps per block"
      if value is None:
        place = "not in the text for one block"
      paper = paper_figure(value, unit, place)
      off = paper if value is None else error(mine, paper)
      cells += [paper, mine, dataclasses.replace(off, unit="%")]
    cells.append(free[unit])
    rows.append((unit, cells))
  first = Figure(found.ttft_ms.value, "ms", "predicted", LINKED)
  took = prompt - 1 + steps
  bare = paper_figure(1e3 * took / fast.rate, "ms", "Table 4 at our steps")
  rows.append(("ms to the first token", [bare, first, error(first, bare)]))
  return Table(
    "block",
    "One block on one chip, a run of its own",
    (
      *("per block", "PF paper", "PF", "error %"),
      *("GEN paper", "GEN", "error %", "GEN with F"),
    ),
    rows,
    (
      f"A prompt of {prompt} tokens, pipelined, and {written} tokens one by"
      f" one, {steps} steps each (the last one is the host's); every message"
      " sent; links at published rates. paper: its one-chip estimators taken"
      " back to one block.",
      "W of GEN is outside of what the energies were fitted on: a full system"
      f" draws at most {placed.hardware.ceiling_w:g} W per chip.",
    ),
  )


def claims() -> Table:
  """The paper's claims, recomputed from its rows."""
  rows, notes = [], []
  for claim in quoted.CLAIMS:
    (mine,) = quoted.rivals(claim.mode, quoted.LOIHI)
    least = []
    for rival in quoted.rivals(claim.mode, claim.rivals):
      us, them = (getattr(r, claim.metric) for r in (mine, rival))
      if claim.metric == "rate":
        ratios, best = [a / b for a, b in zip(us, them)], max(us) / max(them)
      else:
        ratios, best = [b / a for a, b in zip(us, them)], min(them) / min(us)
      place = f"{claim.place}: {claim.text}"
      cells = [paper_figure(claim.factor, "times", place)]
      cells += [paper_figure(r, "times", rival.place) for r in (*ratios, best)]
      name = rival.system.replace(" (", " ").replace(")", "")
      what = f"{SHORT[claim.mode]} {claim.metric}"
      rows.append((f"{what}: {name}", cells))
      kept = sum(ratio >= claim.factor for ratio in ratios)
      least.append(
        f"{name} in {kept} of {len(ratios)} lengths (least {min(ratios):.3g})"
      )
    notes.append(f"{what}, said {claim.text}: reached by {', '.join(least)}.")
  (mine,) = quoted.rivals("prefill", quoted.LOIHI)
  (same,) = quoted.rivals("prefill", "MMF (370M) H100")
  less = zip(quoted.LENGTHS, same.energy, mine.energy)
  long = ", ".join(f"{n:,}" for n, gpu, chip in less if gpu < chip)
  notes.append(f"PF, same model: the H100 takes less energy at {long}.")
  return Table(
    "claims",
    "The paper's claims (§4), recomputed from its rows: times better",
    ("Loihi 2 against", "said", *(f"{n:,}" for n in quoted.LENGTHS), "best"),
    rows,
    ("best: each machine at its own best length.", *notes),
  )


def power(made: Experiment) -> Table:
  """Fig. 4: static and dynamic power of one block on one chip."""
  rows = []
  times = {m: made.one.seconds(m, made.links) for m in MODES}
  parts = {m: made.one.parts_j(m, made.links) for m in MODES}
  names = {
    "static": "static",
    "steps": "dynamic: taking part in steps",
    "weights": "dynamic: weights walked",
  }
  fig = lambda v: Figure(v, "W", "fitted", f"{JOULES}; times: {FREE}")
  for key, name in names.items():
    rows.append((name, [fig(parts[m][key] / times[m]) for m in MODES]))
  every = [fig(sum(parts[m].values()) / times[m]) for m in MODES]
  rows.append(("sum", every))
  fast, slow = (quoted.table4(m, 1) for m in MODES)
  both = fast.rate * fast.energy / 1e3 / quoted.BLOCKS
  ceiling = slow.rate * slow.energy / 1e3 / quoted.BLOCKS
  place = "Table 4 and A.4.1"
  unknown = paper_figure(None, "W", "not in the text")
  rows += [
    ("paper: sum", [paper_figure(both, "W", place), unknown]),
    ("paper: static, at most", [paper_figure(ceiling, "W", place)] * 2),
    (
      "paper: dynamic, at least",
      [paper_figure(both - ceiling, "W", place), unknown],
    ),
  ]
  return Table(
    "power",
    "Fig. 4: power of one block on one chip, W",
    ("part", "prefill", "generate"),
    rows,
    ("The values of Fig. 4 are in a plot only; Table 4 bounds them.",),
  )


def scaling(made: Experiment, mode: str) -> Table:
  """Fig. 5: more blocks on more chips."""
  rows = []
  for n in range(1, quoted.BLOCKS + 1):
    route = Figure(model.hops(n)[0], "hops", "modelled", "rows of four chips")
    links = (made.one if n == 1 else made.many).published
    bare = dataclasses.replace(links, step_s=0.0, carry_s=0.0)
    step = model.scaling(made.many, bare, n, mode, False)[0]
    cells = [route, Figure(step, "us", "predicted", BARE)]
    cells.append(Figure(linked_us(made, n, mode), "us", "predicted", LINKED))
    for routed, free in ((False, made.links), (True, made.routed)):
      found = model.scaling(made.many, free, n, mode, routed)
      for value, unit in zip(found, ("us", "W", "mJ")):
        why = f"{FREE}; {JOULES}"
        label = "fitted" if n in (1, quoted.BLOCKS) else "predicted"
        if (n, mode, unit) == (1, "prefill", "us"):
          label, why = "predicted", BARE
        cells.append(Figure(value, unit, label, why))
    rows.append((str(n), cells))
  each = ("us", "W/chip", "mJ")
  link = 1e6 * model.WIDTH / made.many.placed.hardware.link_messages_per_s
  hop = 1e6 * made.routed.carry_s
  return Table(
    f"scaling_{mode}",
    f"Fig. 5: {mode} by number of chips, one block on each",
    (
      "chips",
      "hops",
      "bare us",
      "links us",
      *each,
      *(f"{e} (r)" for e in each),
    ),
    rows,
    (
      "Plateau: blocks and links work at the same time, and each link carries"
      " one vector per token however many chips there are. Bare: that vector"
      f" takes {link:.1f} us at the published rate, less than a prefill step's"
      " walk, so no rise is predicted. Without (r) the whole rise comes with"
      " the second chip (first link, barrier between chips).",
      "(r), an assumption of ours: blocks on rows of four chips, row after row"
      " (not a snake, the order of docs/hardware.md), and a vector is passed on"
      " hop by hop. The fifth chip begins a new row, four hops from the fourth"
      " chip, and no later route is longer: constant from"
      f" {quoted.PLATEAU} chips on, as the paper says. Fitted so, a hop takes"
      f" {hop:.1f} us. The values of Fig. 5 are in a plot only.",
    ),
  )


def linked_us(made: Experiment, chips: int, mode: str) -> float:
  """us per step of the first blocks, links at published rates."""
  system = made.first(chips)
  steps = 1 if mode == "prefill" else system.steps
  return 1e6 * system.seconds(mode, None) / steps


def bigger(made: Experiment) -> Table:
  """1.3B and 2.7B."""
  rows, notes = [], []
  for name in ("370M", *BIGGER):
    config = matmulfree.PRESETS[name]
    system, known = made.many, "fitted"
    if name != "370M":
      # Blocks are alike: three of them are placed and counted.
      known, blocks = "predicted", config.num_layers
      try:
        system = model.System(config, 3, 64, blocks=blocks)
      except PlacementError as error:
        system = model.System(config, 3, 64, blocks=blocks, hard=True)
        units = system.placed.hardware.synapse_units
        said = str(error).split(" (synapse_units")[0]
        notes.append(f"{name}: {said}; placed with the hard size, {units:,}.")
    weights = int(system.placed.walk.sum()) / system.layers / 1e6
    cells = [
      Figure(system.chips, "chips", "modelled", "placement"),
      Figure(weights, "M weights", "modelled", "stored, per block"),
      Figure(system.carried, "vectors", "modelled", "busiest chip, per token"),
    ]
    for mode in MODES:
      rate = 1 / system.seconds(mode, system.published)
      cells.append(Figure(rate, "tokens/s", "predicted", BARE))
    for k, unit in enumerate(("tokens/s", "mJ")):
      for mode in MODES:
        found = model.full(system, mode, made.links)[k]
        why = f"{FREE} of 370M; {JOULES}"
        cells.append(Figure(found, unit, known, why))
    rows.append((name, cells))
  return Table(
    "bigger",
    "Larger models: a block on as few chips as hold it, head on the host",
    (
      *("model", "chips", "M/block", "out", "PF bare", "GEN bare"),
      *("PF F,d,x", "GEN F,d,x", "PF mJ", "GEN mJ"),
    ),
    rows,
    (
      "PF, GEN: prefill and generation, tokens/s. out: vectors of 1024 values"
      " that the busiest chip sends to others per token. F, d and x are those"
      " of 370M, where one vector leaves a chip: with many, x one after the"
      " other is far outside of the fit and a lower bound of the rate.",
      *notes,
    ),
  )


def active(
  made: Experiment, measured: tuple[float, str] | None = None
) -> Table:
  """Full activity beside a measured one."""
  cases = [("every message", 1.0, "assumed: no message is zero")]
  note = "Measured: none given (--activity, JSON of shape_370m.py)."
  if measured is not None:
    cases.append(("measured", *measured))
    note = f"Measured: {measured[1]}."
  rows = []
  for name, part, source in cases:
    blocks, found = quoted.BLOCKS, made.many
    if part != 1:
      found = model.System(made.config, blocks, blocks, share=part)
    cells = [Figure(100 * part, "% sent", "modelled", source)]
    for mode in MODES:
      rate, energy = model.full(found, mode, found.published)
      cells.append(Figure(rate, "tokens/s", "predicted", BARE))
      cells.append(Figure(energy, "mJ", "fitted", JOULES))
    rows.append((name, cells))
  return Table(
    "activity",
    "Share of messages that are not zero, and what it changes (bare)",
    ("messages", "%", "PF tokens/s", "PF mJ", "GEN tokens/s", "GEN mJ"),
    rows,
    (note,),
  )
