"""`jaxnmc bits`: which site needs its bits; the cheapest plan within a loss."""

import time

import numpy as np

import jaxnmc
from jaxnmc import quantize
from jaxnmc.cli import setup
from jaxnmc.cli.output import Output, bar
from jaxnmc.errors import ConfigError, PlanError
from jaxnmc.evaluate import search
from jaxnmc.evaluate.trials import Trials, effects
from jaxnmc.io import files as whole_files
from jaxnmc.report import backends, files, needed_bits, plots

_MOST_ROWS = 20
_PROMPT = 64  # ids that are run on the cores to price a plan


def main(args) -> int:
  """Runs the command."""
  out = Output(args)
  _check(args)
  model = jaxnmc.load(args.model)
  out.notes(model.notes)
  documents = setup.pieces(args, model)
  stats, notes = backends.measured(model, args.calibrate, histograms=True)
  out.notes(notes)
  preset = getattr(quantize, args.preset)
  if args.calibrate is None:
    preset = preset.replace(margin=backends.SMALL_MARGIN)
  plan = jaxnmc.plan(stats, preset)
  find = _search if args.loss is not None else _sensitivity
  data, figures = find(args, out, model, plan, stats, documents)
  if args.plots is not None:
    for path in plots.save(figures, args.plots):
      out.line(f"wrote {path}")
  out.result(
    {
      "model": model.name,
      "plan": plan.name,
      "plan_sha256": plan.fingerprint,
      "text": args.text,
      "documents": len(documents),
      "ids": sum(map(len, documents)),
      **data,
    }
  )
  return 0


def _check(args) -> None:
  """Refuses flags that do not go together, and files that cannot be written.

  Raises:
    ConfigError, OutputError: which, and what goes.
    MissingExtra: plots without matplotlib.
  """
  if args.loss is None and args.out is not None:
    raise ConfigError("--out goes with --loss only: nothing else makes a plan")
  if args.loss is not None and not 0 <= args.loss <= 100:
    raise ConfigError(f"--loss must lie in 0..100 percent; found {args.loss:g}")
  files.check_writable(args.out)
  if args.plots is not None:
    plots.check(args.plots)


def _trials(model, plan, documents, watch=()) -> Trials:
  bos = backends.begin_id(model)
  return Trials(model.fn, model.params, plan, documents, bos=bos, watch=watch)


def _widths(args, default: tuple[int, ...]) -> list[int]:
  return sorted(set(args.bits or default), reverse=True)


def _sensitivity(args, out, model, plan, stats, documents):
  """One site after the other at fewer bits."""
  widths = _widths(args, (8,))
  sites = needed_bits.sites_of(plan, widths[-1], args.sites)
  trials = _trials(model, plan, documents)
  with bar("sites", len(sites) * len(widths)) as advance:
    found = effects(trials, stats, sites, widths, progress=advance)
  rows = needed_bits.data_of(found)
  out.table(
    f"{model.name}, {plan.name}: what fewer bits at one site cost (measured)",
    ("site", ">bits", "format", ">KL, nats/id", ">perplexity", ">± (95 %)"),
    [
      (
        *(r["site"], r["bits"], r["format"], f"{r['divergence']['value']:.2e}"),
        f"{100 * r['loss']['value']:+.3f} %",
        ""
        if r["loss"]["spread"] is None
        else f"{100 * r['loss']['spread']:.3f}",
      )
      for r in rows[:_MOST_ROWS]
    ],
  )
  if len(rows) > _MOST_ROWS:
    out.line(f"{len(rows) - _MOST_ROWS} more, less harmful, are in --json")
  figures = {}
  if args.plots is not None:
    figures = {
      f"sensitivity_{b}_bits": needed_bits.heatmap(
        rows, b, f"{model.name}: {b} bits at one site of {plan.name}"
      )
      for b in widths
    }
  return {"label": "measured", "effects": rows}, figures


def _search(args, out, model, plan, stats, documents):
  """The cheapest plan within `--loss`."""
  widths, start = _widths(args, (4, 5, 6, 8, 10)), time.perf_counter()
  try:
    placement, _ = needed_bits.place(model, plan)
  except PlanError as error:
    raise PlanError(
      f"--loss looks for the least energy on the chip, which cannot compute"
      f" {model.name}: {error}; leave it out, and each site is measured alone"
    ) from error
  joules, constants = needed_bits.joules(placement, plan)
  named = needed_bits.sites_of(plan, widths[-1], args.sites)
  joules = {site: j for site, j in joules.items() if site in named}
  if not joules:
    raise ConfigError(
      f"--sites {args.sites!r} names no value that crosses a synapse; only"
      " those cost energy"
    )
  trials = _trials(model, plan, documents, tuple(joules))
  _, messages = trials(plan)
  with bar("sites", len(joules) * len(widths)) as advance:
    found = effects(trials, stats, list(joules), widths, progress=advance)
  options = search.options(trials, found, joules, messages)
  best, measured = search.search(
    trials, stats, options, joules, args.loss / 100
  )
  prompt = np.concatenate([[backends.begin_id(model)], documents[0]])
  prompt = prompt[:_PROMPT].astype(np.int32)
  chip = {
    "start": needed_bits.priced(model, plan, prompt),
    "found": needed_bits.priced(model, best.plan, prompt),
  }
  choices = [needed_bits.choice(one) for one in measured]
  _show_search(out, model, plan, best, measured, chip)
  out.line(f"energies: {constants.source}")
  if args.out is not None:
    whole_files.write_bytes(args.out, best.plan.to_json().encode())
    out.line(f"wrote {args.out}")
  figures = {}
  if args.plots is not None:
    title = f"{model.name}: bits of messages, from {plan.name}"
    figures = {
      "frontier": needed_bits.frontier(choices, args.loss / 100, title)
    }
  return {
    "label": "loss measured, energy modelled",
    "energy": constants.source,
    "allowed_loss": args.loss / 100,
    "found": needed_bits.choice(best) | {"plan_sha256": best.plan.fingerprint},
    "measured": choices,
    "effects": needed_bits.data_of(found, joules),
    "chip": chip,
    "prompt_ids": len(prompt),
    "seconds": round(time.perf_counter() - start, 1),
  }, figures


def _show_search(out, model, plan, best, measured, chip) -> None:
  first = measured[0]
  out.table(
    f"{model.name}: choices that were measured, from {plan.name}",
    (">messages, nJ/token", ">of start", ">KL, nats/id", ">perplexity", ">±"),
    [
      (
        f"{1e9 * one.joules:.1f}" + (" *" if one is best else ""),
        f"{100 * one.joules / first.joules:.1f} %",
        f"{one.divergence.value:.2e}",
        f"{100 * one.loss.value:+.2f} %",
        "" if one.loss.spread is None else f"{100 * one.loss.spread:.2f}",
      )
      for one in measured
    ],
  )
  rows: list[tuple[str, ...]] = [
    ("bits", _counts(first.bits), _counts(best.bits))
  ]
  for key, name in (
    ("prefill_mj_per_token", "prompt, mJ/token"),
    ("generate_mj_per_token", "generation, mJ/token"),
    ("synops_per_token", "weights walked per token"),
    ("messages_per_token", "messages per token"),
  ):
    before, after = (chip[k][key] for k in ("start", "found"))
    shown = [_number(x) for x in (before, after)]
    if before and after is not None:
      shown[1] += f" ({100 * (after / before - 1):+.1f} %)"
    rows.append((name, *shown))
  out.table(
    "The choice (*) on the cores (modelled)", ("", ">before", ">after"), rows
  )


def _number(value) -> str:
  if value is None:
    return "unknown"
  return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def _counts(widths) -> str:
  """How many sites have how many bits."""
  values = list(widths.values())
  return ", ".join(f"{values.count(b)} x {b}" for b in sorted(set(values)))
