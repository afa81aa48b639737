"""The first time steps of a run as a Chrome trace (JSON).

`ui.perfetto.dev` and `chrome://tracing` open it. A process is a chip, a thread
a core; a bar is the walk of a core in a time step, as long as its stored
weights take, or the messages of one of the busiest links, as long as they take
at the link's rate (as long as the step, where that is unknown). Times are those
of `chip.costs.pricing`.

    {"traceEvents": [
       {"ph": "M", "name": "process_name" | "thread_name" | .., "pid", "tid",
        "args": {"name": ..}},
       {"ph": "X", "name", "cat", "pid", "tid", "ts", "dur", "args"}, ...],
     "displayTimeUnit": "ns", "otherData": {..}}       ts and dur in us
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxnmc.chip.costs import pricing
from jaxnmc.chip.costs.constants import constants_of
from jaxnmc.chip.costs.timing import Forms
from jaxnmc.chip.counting import folding
from jaxnmc.chip.counting.folding import Segment
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.links import LinkLoads, link_loads
from jaxnmc.errors import ConfigError, UserError

__all__ = ["MAX_EVENTS", "STEPS", "Recorder", "trace"]

STEPS = 256  # time steps that are traced
MAX_EVENTS = 100_000  # bars; about 20 MB, which the viewers still take
_LINKS = 8  # busiest links with a thread of their own
_LINK_TID = 1000  # their threads come after those of the cores
_COUNTS = {
  "synops_stored": "weights",
  "synops": "not zero",
  "messages_in": "messages in",
  "messages_out": "messages out",
}


def _head(segment: Segment, steps: int) -> Segment:
  """The tokens that enter in the first steps and the next one, copied."""
  tokens = int(np.searchsorted(segment.inject, steps)) + 1
  fields = ("out", "inc", "synops", "stored")
  counts = (
    dataclasses.replace(
      c, **{name: getattr(c, name)[:tokens].copy() for name in fields}
    )
    for c in segment.counts
  )
  return Segment(np.array(segment.inject[:tokens]), tuple(counts))


class Recorder:
  """Keeps what the first time steps of a run counted, token by token.

  Set as `watch` of an engine of `loihi`, it is called with every segment.

  Args:
    placement: what is run.
    steps: time steps to keep.

  Attributes:
    segments: what was kept, in order of time.
  """

  def __init__(self, placement: Placement, steps: int = STEPS):
    self.placement, self.steps = placement, steps
    self.segments: list[Segment] = []
    self._left = steps

  def __call__(self, segment: Segment) -> None:
    """Takes the next segment of the run."""
    if self._left > 0:
      self.segments.append(_head(segment, self._left))
      length = int(segment.inject[-1]) + self.placement.steps_per_token
      self._left -= length

  def trace(self) -> dict[str, Any]:
    """The trace of what was kept, as `trace`."""
    return trace(self.segments, self.placement, self.steps)


def trace(
  segments: Iterable[Segment], placement: Placement, steps: int = STEPS
) -> dict[str, Any]:
  """Events of the first time steps.

  Args:
    segments: what an engine counted, in order of time.
    placement: the placement that was run.
    steps: time steps to trace; fewer if they have over `MAX_EVENTS` bars.

  Returns:
    Chrome trace, ready for JSON.

  Raises:
    ConfigError: fewer than one step.
    UserError: the chip's time per synaptic operation is unknown, or cores
      that have no place on the mesh (`chip.routing.links`).
  """
  if steps < 1:
    raise ConfigError(f"a trace needs at least one time step, not {steps}")
  if placement.hardware.synop_s is None:
    raise UserError(
      f"{placement.hardware.name}: synop_s is unknown, so a trace has no times;"
      " give it to the hardware"
    )
  maker, left = _Maker(placement), steps
  for segment in segments:
    if left <= 0 or not len(segment.inject) or maker.full:
      break
    left -= maker.add(_head(segment, left), left)
  return maker.finish(steps)


class _Maker:
  """Turns segments into events."""

  def __init__(self, placement: Placement):
    self.placement = placement
    self.forms = Forms(placement, np.zeros(1), 0.0)
    self.constants = constants_of(placement.hardware)
    self.walk_us = 1e6 * float(placement.hardware.synop_s or 0.0)
    self.cores = placement.used_cores
    self.names = _core_names(placement)
    self.events: list[dict[str, Any]] = []
    self.links: list[tuple[int, float, float, LinkLoads]] = []
    self.now = 0.0  # us
    self.step = 0
    self.full = False

  def add(self, segment: Segment, most: int) -> int:
    """Adds a segment's first steps; how many."""
    placement = self.placement
    steps = int(segment.inject[-1]) + placement.steps_per_token
    steps = min(steps, most)
    rows = {}
    for name in _COUNTS:
      values = folding.series(segment, placement, name)[:steps]
      rows[name] = placement.sum_by(placement.tile_core, values)[:, self.cores]
    folded = folding.fold(segment, placement)
    host = folded.steps_of["host_messages"][:steps]
    stored = rows["synops_stored"]
    work, chips = self.forms.of(folded), len(placement.chips)
    terms = pricing.terms(self.constants, work, chips, np)[:, :steps]
    seconds = terms.max(axis=0)
    bounds = [pricing.TERMS[k] for k in terms.argmax(axis=0)]
    for k in range(steps):
      busy = np.flatnonzero(stored[k])
      if len(self.events) + len(busy) + 1 > MAX_EVENTS:
        self.full = True
        return k
      length = 1e6 * float(seconds[k])
      self._step(k, length, bounds[k], rows, busy, int(host[k]))
      loads = link_loads(segment, placement, (k, k + 1))
      start = self.now
      self.now += 1e6 * float(seconds[k])
      self.links.append((self.step, start, self.now - start, loads))
      self.step += 1
    return steps

  def _step(self, k: int, length: float, by: str, rows, busy, host) -> None:
    stored = rows["synops_stored"][k]
    args = {"step": self.step, "set by": by, "weights": int(stored.sum())}
    args |= {"cores that walk": len(busy), "host messages": host}
    self._bar(f"step {self.step}", "step", 0, 0, self.now, length, args)
    per = self.placement.hardware.cores_per_chip
    for column in busy.tolist():
      chip, core = divmod(int(self.cores[column]), per)
      args = {text: int(rows[n][k, column]) for n, text in _COUNTS.items()}
      self._bar(
        *(self.names[column], "walk", chip + 1, core + 1, self.now),
        float(stored[column]) * self.walk_us,
        {"step": self.step} | args,
      )

  def _bar(self, name, cat, pid, tid, start, length, args) -> None:
    where = {"pid": pid, "tid": tid}
    # Viewers nest bars, so rounding must not make neighbours overlap.
    ts = round(start, 4)
    when = {"ts": ts, "dur": max(0.0, round(start + length, 4) - ts)}
    when["dur"] = round(when["dur"], 4)
    head = {"ph": "X", "name": name, "cat": cat}
    self.events.append(head | where | when | {"args": args})

  def finish(self, asked: int) -> dict[str, Any]:
    """Adds links and names of tracks."""
    top = self._link_bars()
    per = self.placement.hardware.cores_per_chip
    tracks = [_named("process_name", 0, 0, "time steps")]
    tracks.append(_named("thread_name", 0, 0, "steps"))
    chips = {int(c) // per for c in self.cores} | {r["chip"] for *_, r in top}
    for chip in sorted(chips):
      tracks.append(_named("process_name", chip + 1, 0, f"chip {chip}"))
      tracks.append(_order("process_sort_index", chip + 1, 0))
    for core in self.cores.tolist():
      chip, at = divmod(core, per)
      tracks.append(_named("thread_name", chip + 1, at + 1, f"core {at}"))
      tracks.append(_order("thread_sort_index", chip + 1, at + 1))
    for k, name, row in top:
      pid, tid = row["chip"] + 1, _LINK_TID + k
      tracks.append(_named("thread_name", pid, tid, name))
      tracks.append(_order("thread_sort_index", pid, tid))
    other = {
      "written by": "jaxnmc",
      "label": "modelled",
      "steps": self.step,
      "steps asked for": asked,
      "cut at": f"{MAX_EVENTS} bars" if self.full else "",
      "times": self.placement.hardware.fact("synop_s").source,
      "links": "busiest ones; queues and the way of a message are not timed",
    }
    return {
      "traceEvents": [*tracks, *self.events],
      "displayTimeUnit": "ns",
      "otherData": other,
    }

  def _link_bars(self) -> list[tuple[int, str, dict]]:
    """Bars of the busiest links: (rank, name, row) of each."""
    if not self.links:
      return []
    loads = [entry[3] for entry in self.links]
    names = loads[0].messages
    total = {k: np.sum([m.messages[k] for m in loads], axis=0) for k in names}
    whole = dataclasses.replace(loads[0], messages=total)
    ranked = [r for r in whole.ranking(_LINKS) if r["words"]]
    result = []
    for k, row in enumerate(ranked):
      name = link_name(row, whole.mesh.columns)
      result.append((k, name, row))
      for step, start, length, one in self.links:
        words = int(one.words[row["kind"]].reshape(-1)[row["index"]])
        if words:
          both = one.messages[row["kind"]].reshape(2, -1)[:, row["index"]]
          count = int(both.sum())
          args = {"step": step, "messages": count, "words": words}
          took = self._link_us(row["kind"], count, words)
          self._bar(
            *(f"{count} messages", "link", row["chip"] + 1, _LINK_TID + k),
            *(start, length if took is None else took, args),
          )
    return result

  def _link_us(self, kind: str, messages: int, words: int) -> float | None:
    """Time of a link's messages, us; None where its rate is unknown."""
    if kind == "chip":
      took = messages * self.constants.link_message_s
    else:
      took = words * self.constants.mesh_word_s
    return 1e6 * took or None


def link_name(row: dict, columns: int) -> str:
  """A link of `LinkLoads.ranking` for people, without its chip."""
  if row["kind"] == "chip":
    return f"link {row['direction']} to another chip"
  y, x = divmod(row["at"], columns)
  return f"link {row['direction']} of router {x},{y}"


def _core_names(placement: Placement) -> list[str]:
  """Populations of each core in use, shortened."""
  names: dict[int, list[str]] = {}
  for core, tile in zip(placement.tile_core.tolist(), placement.tiles):
    mine = names.setdefault(core, [])
    if tile.population not in mine:
      mine.append(tile.population)
  result = []
  for core in placement.used_cores.tolist():
    mine = names[core]
    more = f" +{len(mine) - 1}" if len(mine) > 1 else ""
    result.append(mine[0] + more)
  return result


def _named(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
  where = {"pid": pid, "tid": tid}
  return {"ph": "M", "name": kind} | where | {"args": {"name": name}}


def _order(kind: str, pid: int, tid: int) -> dict[str, Any]:
  index = tid if kind.startswith("thread") else pid
  where = {"pid": pid, "tid": tid}
  return {"ph": "M", "name": kind} | where | {"args": {"sort_index": index}}
