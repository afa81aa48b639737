"""Time and energy of 24 blocks, with links that were fitted, for loihi_tables.

A time step takes

    one chip:       max(walk, F)
    several chips:  max(walk, F) + d + x * vectors that cross / 1024 values

`walk` is what the library models: stored weights walked by the busiest core,
times the published seconds per synaptic operation. `jaxnmc.cost` has published
floors in place of F, and links at their published rates as further terms of the
maximum; here F, d and x are free, and three rows of Table 4 fix them. The
fourth, prefill on one chip, is bound by the walk alone and needs none of them.
Energy: `jaxnmc.chip.costs.energy`.
"""

import dataclasses
import functools
import itertools

import numpy as np

from jaxnmc.chip import hardware, outline
from jaxnmc.chip.costs import energy as energies
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import place
from jaxnmc.models import matmulfree
from loihi_paper import quoted

WIDTH = matmulfree.PRESETS["370M"].hidden_size


@dataclasses.dataclass(frozen=True)
class Links:
  """Free constants of the time of a step.

  Attributes:
    floor_s: F, shortest step.
    step_s: d, added to every step of several chips.
    carry_s: x, added where a vector of 1024 values crosses.
  """

  floor_s: float
  step_s: float = 0.0
  carry_s: float = 0.0


class System:
  """Blocks on chips of their own, embedding and head on the host.

  Args:
    config: sizes of the model.
    layers: blocks.
    chips: chips that may be used.
    norm: formulation, of `outline.FORMULATIONS`.
    share: part of the messages that is not zero.
    blocks: of the whole model, if `layers` are only some of its equal blocks
      (three or more: with neighbours on both sides).
    hard: take the hard size of the synapse memory, not the compiler's cap.

  Attributes:
    placed: the placement of `layers` blocks.
    counters: of them; one token alone.
    block: steps per block.
    steps: steps until a token has left the whole model.
    chips: chips of the whole model.
  """

  def __init__(
    self,
    config: matmulfree.Config,
    layers: int,
    chips: int,
    norm: str = "fused",
    share: float = 1.0,
    blocks: int | None = None,
    hard: bool = False,
  ):
    net = outline.matmulfree(
      *(layers, config.hidden_size, config.mlp_size, config.vocab_size),
      norm=norm,
    )
    chip = hardware.loihi2(chips=chips)
    if hard:
      ((units, _),) = chip.fact("synapse_units").others
      chip = dataclasses.replace(chip, synapse_units=int(units))
    self.placed = place.place(net, chip, head="host")
    self.layers, self.blocks = layers, blocks or layers
    (self.block,) = set(net.steps_per_layer)
    more = self.blocks - layers
    latency = self.placed.steps_per_token
    self.steps = latency + more * self.block
    self.chips = len(self.placed.chips) * self.blocks // layers
    segment = outline.traffic(self.placed, [0], share=share)
    self.counters = Counters.of([segment], self.placed)
    self.share = share
    (falling,) = self.counters.stretches
    vectors = np.array(falling.steps_of["crossings"][:latency]) / WIDTH
    # The chips of one block send at the same time.
    self.vectors = self._whole(vectors / (len(self.placed.chips) / layers))

  def _whole(self, values: np.ndarray) -> np.ndarray:
    """Values by depth, [steps of the placed blocks], to those of all blocks."""
    middle = values[1 + self.block : 1 + 2 * self.block]
    more = [middle] * (self.blocks - self.layers)
    at = 1 + 2 * self.block
    return np.concatenate([values[:at], *more, values[at:]])

  @functools.cached_property
  def report(self):
    """`jaxnmc.cost`: constants from published sources, links included."""
    return cost(self.counters, self.placed, self.energy)

  @functools.cached_property
  def energy(self) -> Energy:
    """Fitted form B+L at the steps of this network."""
    return energies.constants("step", self.block)

  @functools.cached_property
  def published(self) -> Links:
    """The published floor; links take no time."""
    chip = self.placed.hardware
    cores = self.placed.sum_by(self.placed.tile_core, self.placed.passes)
    barrier = chip.barrier_system_s if self.chips > 1 else chip.barrier_s
    return Links(max(barrier, int(cores.max()) * chip.neuron_s))

  @functools.cached_property
  def chip_walk_s(self) -> np.ndarray:
    """Longest walk of each chip in a full pipeline, float[chips]."""
    chip = self.placed.hardware
    cores = np.zeros(chip.cores)
    cores[self.placed.used_cores] = self.placed.walk.sum(0)
    by_chip = cores.reshape(chip.chips, -1)[list(self.placed.chips)]
    return self.share * by_chip.max(1) * chip.synop_s

  @functools.cached_property
  def depth_s(self) -> np.ndarray:
    """Longest walk, or the host's messages, at each depth: float[steps]."""
    chip = self.placed.hardware
    walk = self.share * self.placed.walk.max(1) * chip.synop_s
    host = self.counters.stretches[0].steps_of["host_messages"][: len(walk)]
    return self._whole(np.maximum(walk, host / chip.host_messages_per_s))

  @property
  def carried(self) -> float:
    """Vectors that the busiest chip sends per token."""
    by_chip = self.counters.by("chip", "crossings", self.placed)
    return float(by_chip.max()) / self.counters.tokens / WIDTH

  def prefill_s(self, links: Links) -> float:
    """Seconds of a step of the full pipeline."""
    bare = max(float(self.chip_walk_s.max()), links.floor_s)
    if self.chips == 1:
      return bare
    return bare + links.step_s + links.carry_s * self.carried

  def generate_s(self, links: Links) -> float:
    """Seconds of one token alone."""
    bare = float(np.maximum(self.depth_s, links.floor_s).sum())
    if self.chips == 1:
      return bare
    carried = float(self.vectors.sum())
    return bare + self.steps * links.step_s + carried * links.carry_s

  def seconds(self, mode: str, links: Links | None) -> float:
    """Seconds per token of a mode; None: links at published rates (`cost`)."""
    if links is None:
      if self.layers != self.blocks:
        raise ValueError("cost knows the placed blocks only")
      return 1 / getattr(self.report, f"{mode}_tokens_per_s").value
    return (self.prefill_s if mode == "prefill" else self.generate_s)(links)

  def parts_j(self, mode: str, links: Links | None) -> dict[str, float]:
    """Joules per token: `static`, `steps`, `weights`, `crossings`."""
    time, e = self.seconds(mode, links), self.energy
    steps = 1 if mode == "prefill" else self.steps
    tokens = self.counters.tokens * self.layers / self.blocks
    each = lambda name: float(self.counters.total(name).sum()) / tokens
    return {
      "static": self.chips * e.static_w * time,
      "steps": self.chips * e.chip_step_j * steps,
      "weights": e.synop_j * each("synops_stored"),
      "crossings": e.crossing_j * each("crossings"),
    }


def estimated(
  one: System, mode: str, links: Links | None
) -> tuple[float, float]:
  """The paper's own estimators (A.4.1) of 24 blocks from one chip.

  Returns:
    (tokens per second, mJ per token).
  """
  blocks, parts = quoted.BLOCKS, one.parts_j(mode, links)
  time = one.seconds(mode, links)
  static = parts["static"] / time
  dynamic = sum(parts.values()) / time - static
  if mode == "prefill":  # P = 24 (D + S), E = P T
    return 1 / time, 1e3 * blocks * (dynamic + static) * time
  # T_ttft = N_blocks N_steps T_TPS, P = D + 24 S
  total = blocks * one.block * time / one.steps
  return 1 / total, 1e3 * (dynamic + blocks * static) * total


def full(many: System, mode: str, links: Links | None) -> tuple[float, float]:
  """(tokens per second, mJ per token) of all chips."""
  time = many.seconds(mode, links)
  return 1 / time, 1e3 * sum(many.parts_j(mode, links).values())


def floor_of(one: System, rate: float) -> float:
  """F at which the paper's estimator of one chip gives this rate."""
  goal = 1 / rate
  low, high = 0.0, goal
  for _ in range(80):
    middle = (low + high) / 2
    if 1 / estimated(one, "generate", Links(middle))[0] < goal:
      low = middle
    else:
      high = middle
  return (low + high) / 2


def hops(chips: int, per_row: int = 4) -> tuple[int, int]:
  """Hops of vectors from each chip to the next: (longest, sum).

  Chips in rows: one hop to the neighbour, but from the end of a row it is back
  to its start and one on. Rows of four are an assumption.
  """
  each = [per_row if k % per_row == 0 else 1 for k in range(1, chips)]
  return max(each, default=0), sum(each)


def crossed(chips: int, routed: bool) -> tuple[int, int]:
  """Vectors to be waited for in (a step of the full pipeline, one token).

  Links work at the same time, so in a pipeline one vector is waited for; a
  token alone waits for all of its own. Routed: a vector counts at every hop.
  """
  return hops(chips) if routed else (min(1, chips - 1), chips - 1)


def _more_s(one: System, many: System, mode: str) -> float:
  """What 24 chips took per token beyond walk and F, by Table 4."""
  floor = Links(floor_of(one, quoted.table4("generate", 1).rate))
  rate = quoted.table4(mode, quoted.BLOCKS).rate
  return 1 / rate - many.seconds(mode, floor)


def fit(one: System, many: System, routed: bool = False) -> Links:
  """F, d and x from generation on one chip and both rows of 24 chips.

  Args:
    one: a block on one chip.
    many: all blocks, one per chip.
    routed: x is per hop.
  """
  more = [_more_s(one, many, m) for m in ("prefill", "generate")]
  fast, slow = crossed(quoted.BLOCKS, routed)
  rows = [[1, fast], [many.steps, slow]]
  step, carry = np.linalg.solve(rows, more).tolist()
  return Links(floor_of(one, quoted.table4("generate", 1).rate), step, carry)


def left_out_rate(one: System, many: System, row: quoted.Row, routed: bool):
  """Tokens/s of a row of Table 4 without it.

  Args:
    one: a block on one chip.
    many: all blocks, one per chip.
    row: the one left out.
    routed: x is per hop.

  Returns:
    (tokens per second, what stands in for the missing equation; empty where
    none is missing).
  """
  if row.chips == 1:
    value = estimated(one, row.mode, one.published)[0]
    missing = "F: published barrier and neuron passes"
    return value, "" if row.mode == "prefill" else missing
  floor = floor_of(one, quoted.table4("generate", 1).rate)
  carry = WIDTH / many.placed.hardware.link_messages_per_s
  both = dict(zip(("prefill", "generate"), crossed(quoted.BLOCKS, routed)))
  steps = {"prefill": 1, "generate": many.steps}
  other = "generate" if row.mode == "prefill" else "prefill"
  step = _more_s(one, many, other) - both[other] * carry
  step /= steps[other]
  took = many.seconds(row.mode, Links(floor))
  took += steps[row.mode] * step + both[row.mode] * carry
  return 1 / took, "x: published rate of a link between chips"


def _nonnegative(rows, watts) -> tuple[np.ndarray, bool]:
  """Constants >= 0 with the least relative error, and whether exact."""
  rows = np.array(rows) / np.array(watts)[:, None]
  best, least = np.zeros(rows.shape[1]), np.inf
  for mask in itertools.product((False, True), repeat=rows.shape[1]):
    found = np.zeros(rows.shape[1])
    found[list(mask)] = np.linalg.lstsq(rows[:, mask], np.ones(len(rows)))[0]
    error = float(np.abs(rows @ found - 1).max())
    if (found >= 0).all() and error < least:
      best, least = found, error
  return best, least < 1e-9


def left_out_energy(block: int, row: quoted.Row, form: str):
  """mJ per token of a row of Table 4 from the other three rows.

  Args:
    block: steps per block.
    row: the one left out; its published rate is used, its energy is not.
    form: `step` (static W, J per chip and step, J per token: B) or `running`
      (static W, running W, J per token: C). Three unknowns, three rows.

  Returns:
    (mJ per token or None where the three rows do not fix it, whether the three
    rows come out with no negative constant).
  """

  def equation(r: quoted.Row):
    chips = quoted.BLOCKS
    # The authors' one-chip generation lets a single chip step at a time.
    active = 1 if (r.mode, r.chips) == ("generate", 1) else chips
    steps = r.rate * (chips * block if r.mode == "generate" else 1)
    return [chips, active * (steps if form == "step" else 1), r.rate]

  rest = [r for r in quoted.TABLE4 if r != row]
  watts = [r.rate * r.energy / 1e3 for r in rest]
  rows = [equation(r) for r in rest]
  if np.linalg.matrix_rank(np.array(rows) / np.array(watts)[:, None]) < 3:
    return None, False
  found, exact = _nonnegative(rows, watts)
  return 1e3 * float(np.dot(equation(row), found)) / row.rate, exact


def scaling(many: System, links: Links, chips: int, mode: str, routed: bool):
  """Time, power and energy of the first `chips` blocks.

  Args:
    many: all blocks, one per chip.
    links: free constants.
    chips: how many.
    mode: `prefill` or `generate`.
    routed: x is per hop.

  Returns:
    (us per step, W per chip, mJ per token).
  """
  fast, slow = crossed(chips, routed)
  extra = links.step_s if chips > 1 else 0.0
  if mode == "prefill":
    steps, walk = 1, float(many.chip_walk_s[:chips].max())
    time = max(walk, links.floor_s) + extra + fast * links.carry_s
  else:
    steps = 1 + chips * many.block
    depths = np.concatenate([many.depth_s[: steps - 1], many.depth_s[-1:]])
    walks = np.maximum(depths, links.floor_s)
    time = float(walks.sum()) + steps * extra + slow * links.carry_s
  e, tokens = many.energy, many.counters.tokens
  walked = many.counters.by("chip", "synops_stored", many.placed)[:chips].sum()
  values = (chips - 1) * WIDTH * many.share
  joules = e.joules(chips, time, steps, (walked / tokens, values, 0, 0))
  return 1e6 * time / steps, joules / time / chips, 1e3 * joules
