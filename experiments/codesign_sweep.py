"""Which constant of the chip bounds a 370M model? A thousand chips in one call.

Claim: at the published constants and full activity, the time of a synaptic
operation bounds 370M on 24 chips in both modes: prefill by all of its time,
generation by two thirds, the barrier between chips by most of the rest and
links between chips by a twentieth. Elasticities of `price` by `jax.grad` agree
with those of sampled variants near the published chip.

  python experiments/codesign_sweep.py
  python experiments/codesign_sweep.py --workdir out --json out/sweep.json

Comes out: for each time constant, by what percent the time of a token grows
with one percent of it (by gradient, and by regression over sampled chips near
the published one and up to 4 times off), how much faster a chip would be
without it, and in how many of the chips far off it is the first; and what sets
the time of each step of a block. The network is built from the sizes of the
model, without weights (`jaxnmc.chip.outline`); every figure is modelled. Exit
status 1 if gradient and samples differ by over 0.02.
"""

import time

import jax
import numpy as np
import script
from absl import flags
from jax import numpy as jnp

from jaxnmc.chip import hardware, outline
from jaxnmc.chip.costs import energy as energies
from jaxnmc.chip.costs.constants import Constants, constants_of, vary
from jaxnmc.chip.costs.pricing import TERMS, price, terms
from jaxnmc.chip.costs.work import work_of
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import place
from jaxnmc.models import matmulfree
from jaxnmc.report import files, plots, tables

_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the plot.")
_VARIANTS = flags.DEFINE_integer(
  "variants", 1024, "Chips near the published one, and as many far off.", 16
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the sampled chips.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Two small blocks, few chips.")

MODES = ("generate", "prefill")
# Time constants, in order of `pricing.TERMS`, and how people write them.
NAMES = ("synop_s", "neuron_s", "host_message_s", "link_message_s")
NAMES += ("mesh_word_s", "barrier_system_s")
NEAR, FAR = 1.02, 4.0  # largest factor of a sampled constant
TOLERANCE = 0.02  # of an elasticity, gradient against samples nearby
_COLOURS = dict(zip(TERMS, plots.COLOURS))


class Sweep:
  """A model on a system, and its price as a function of time constants.

  Args:
    smoke: two small blocks instead of 370M.
    variants: chips near the published one, and as many far off.
    seed: of the chips.

  Attributes:
    placed: the placement.
    base: published constants.
    work: of a prompt and of one token alone, every message sent.
  """

  def __init__(self, smoke: bool, variants: int, seed: int):
    config = matmulfree.PRESETS["370M"]
    sizes = (config.num_layers, config.hidden_size, config.mlp_size)
    sizes = (2, 256, 704) if smoke else sizes
    net = outline.matmulfree(*sizes, config.vocab_size)
    chip = hardware.loihi2(chips=sizes[0])
    self.placed = place.place(net, chip, head="host")
    (self.block,) = set(net.steps_per_layer)
    parts = [outline.traffic(self.placed, p) for p in (range(64), [0])]
    counters = Counters.of(parts, self.placed)
    self.work = work_of(counters, self.placed)
    form = energies.constants("step", self.block)
    self.base = constants_of(chip, form)
    rng = np.random.default_rng(seed)
    draw = lambda most: most ** rng.uniform(-1, 1, (len(NAMES), variants))
    self.near, self.far = draw(NEAR), draw(FAR)
    times = jax.jit(jax.vmap(self._times, in_axes=(0, None)))
    start = time.perf_counter()
    self.log = {
      k: np.log(np.asarray(times(self._vary(factors), self.work)))
      for k, factors in (("near", self.near), ("far", self.far))
    }
    self.seconds = time.perf_counter() - start
    self.price = price(self.base, self.work, np)

  @staticmethod
  def _times(constants: Constants, work) -> jax.Array:
    """Seconds of a token in both modes."""
    prices = price(constants, work)
    return jnp.stack([getattr(prices, f"{mode}_s") for mode in MODES])

  def _vary(self, factors: np.ndarray) -> Constants:
    values = {n: getattr(self.base, n) * f for n, f in zip(NAMES, factors)}
    return vary(self.base, **values)

  def _slopes(self, mode: str, factors: np.ndarray) -> np.ndarray:
    """d log T / d log c by gradient, [constants, chips]."""
    seconds = lambda c: jnp.log(self._times(c, self.work)[MODES.index(mode)])
    many = self._vary(factors)
    slopes = jax.jit(jax.vmap(jax.grad(seconds)))(many)
    each = [getattr(slopes, n) * getattr(many, n) for n in NAMES]
    return np.array(each, np.float64)

  def rows(self, mode: str) -> list[dict]:
    """What each constant does to a token's time, largest first."""
    at = MODES.index(mode)
    seconds = float(getattr(self.price, f"{mode}_s"))
    slope = self._slopes(mode, np.ones((len(NAMES), 1)))[:, 0]
    sampled = {}
    for key, factors in (("near", self.near), ("far", self.far)):
      # Least squares of log T by log factors.
      x = np.log(factors)
      x = np.vstack([x - x.mean(1, keepdims=True), np.ones(x.shape[1])])
      sampled[key] = np.linalg.lstsq(x.T, self.log[key][:, at])[0]
    first = self._slopes(mode, self.far).argmax(0)
    rows = []
    for k, name in enumerate(NAMES):
      without = self.base.replace(**{name: 0.0})
      fast = float(getattr(price(without, self.work, np), f"{mode}_s"))
      rows.append(
        {
          "constant": name,
          "value": float(getattr(self.base, name)),
          "gradient": float(slope[k]),
          "near": float(sampled["near"][k]),
          "far": float(sampled["far"][k]),
          "faster_without": seconds / fast,
          "first_percent": 100 * float((first == k).mean()),
        }
      )
    return sorted(rows, key=lambda r: -r["gradient"])

  def depths(self) -> list[dict]:
    """What sets the time of each step of a token alone."""
    alone = np.flatnonzero(self.work.times[1])[: self.placed.steps_per_token]
    loads = jax.tree.map(lambda x: x[alone], self.work.loads)
    each = terms(self.base, loads, self.work.chips, np)
    kinds: dict[int, set[str]] = {}
    for s in self.placed.network.synapses:
      kinds.setdefault(s.depth, set()).add(s.kind)
    return [
      {
        "step": d,
        "synapses": ", ".join(sorted(kinds.get(d, ()))),
        "set_by": TERMS[int(each[:, d].argmax())],
        "us": 1e6 * float(each[:, d].max()),
        "terms_us": dict(zip(TERMS, (1e6 * each[:, d]).tolist())),
      }
      for d in range(len(alone))
    ]


def show(sweep: Sweep, data: dict) -> None:
  """Prints the tables, in 80 columns."""
  people = tables.console()
  chips = len(sweep.placed.chips)
  people.print(
    f"{data['network']}; {chips} chips; {data['variants']} chips up to"
    f" {NEAR:g} times off the published constants and as many up to {FAR:g}"
    f" times off, in {data['calls']} calls, {sweep.seconds:.1f} s with"
    " compilation.\n",
    markup=False,
  )
  for mode in MODES:
    rows = [
      [
        row["constant"],
        f"{1e9 * row['value']:,.4g}",
        *(f"{row[k]:.3f}" for k in ("gradient", "near", "far")),
        f"{row['faster_without']:.2f}",
        f"{row['first_percent']:.0f}",
      ]
      for row in data[mode]
    ]
    head = ("constant", ">ns", ">gradient", ">near", ">far", ">without")
    rate = 1 / float(getattr(sweep.price, f"{mode}_s"))
    title = f"{mode}: {rate:,.4g} tokens/s; d log T / d log constant"
    people.print(tables.table(title, (*head, ">first %"), rows))
  depths = data["depths"]
  middle = len(depths) // 2 // sweep.block * sweep.block + 1
  rows = [
    [d["step"], d["synapses"], d["set_by"], f"{d['us']:.2f}"]
    + [f"{d['terms_us'][t]:.2f}" for t in TERMS[:-1]]
    for d in depths[middle : middle + sweep.block]
  ]
  head = ("step", "sent by", "set by", ">us", ">walk", ">pass", ">host")
  title = "A block in the middle, one token alone: us of each step"
  people.print(tables.table(title, (*head, ">chip l", ">mesh l"), rows))
  for term, (count, us) in data["set_by"].items():
    people.print(f"{term}: {count} steps, {us / 1e3:.3f} ms", markup=False)


def figure(sweep: Sweep, data: dict):
  """Elasticities of both modes, and what sets the steps of a block."""
  fig, axes = plots.new(3, 12, 3.8)
  for ax, mode in zip(axes, MODES):
    rows = data[mode][::-1]
    at = np.arange(len(rows))
    for k, (key, name) in enumerate(
      (("far", f"samples, up to {FAR:g}x"), ("gradient", "gradient"))
    ):
      values = [row[key] for row in rows]
      colour = plots.COLOURS[k]
      ax.barh(at + 0.4 * k - 0.2, values, 0.38, color=colour, label=name)
    ax.set_yticks(at, [row["constant"] for row in rows])
    ax.set(xlabel="d log T / d log constant", title=mode, xlim=(-0.02, 1.02))
  axes[0].legend(fontsize="small", loc="lower right")
  ax, depths = axes[2], data["depths"]
  middle = len(depths) // 2 // sweep.block * sweep.block + 1
  rows = depths[middle : middle + sweep.block]
  for k, row in enumerate(rows):
    ax.bar(k + 1, row["us"], 0.8, color=_COLOURS[row["set_by"]])
  for term in TERMS:
    if any(row["set_by"] == term for row in rows):
      ax.bar(0, 0, color=_COLOURS[term], label=term)
  ax.legend(fontsize="small", title="set by", title_fontsize="small")
  ax.set(xlabel="step of a block", ylabel="us", title="generate, step by step")
  ax.set_xlim(0.3, len(rows) + 0.7)
  fig.suptitle(f"{data['network']} (modelled)")
  return fig


def main() -> int:
  """Runs the script."""
  smoke = _SMOKE.value
  files.check_writable(_JSON.value)
  if _WORKDIR.value:
    plots.check(_WORKDIR.value)
  variants = min(_VARIANTS.value, 64) if smoke else _VARIANTS.value
  sweep = Sweep(smoke, variants, _SEED.value)
  data = {
    "experiment": "codesign_sweep",
    "label": "modelled",
    "network": "two small blocks" if smoke else "MatMul-free LM of 370M",
    "variants": variants,
    "calls": 2,
    **{mode: sweep.rows(mode) for mode in MODES},
    "depths": sweep.depths(),
  }
  data["set_by"] = {
    term: (len(mine), sum(mine))
    for term in TERMS
    if (mine := [d["us"] for d in data["depths"] if d["set_by"] == term])
  }
  show(sweep, data)
  files.write_json(_JSON.value, data)
  if _WORKDIR.value:
    found = plots.save({"codesign_sweep": figure(sweep, data)}, _WORKDIR.value)
    for path in found:
      print(f"wrote {path}")
  off = max(
    abs(row["gradient"] - row["near"]) for m in MODES for row in data[m]
  )
  good = off <= TOLERANCE
  print(
    f"gradients are within {off:.4f} of the samples nearby"
    f" ({'good' if good else f'over {TOLERANCE:g}'})"
  )
  return 0 if good else 1


if __name__ == "__main__":
  script.start(main)
