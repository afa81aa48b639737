"""`jaxnmc run`: generate text with any backend and say what it cost."""

import dataclasses
import functools
import time
from typing import Any

import numpy as np

from jaxnmc.cli import setup
from jaxnmc.cli.output import Output
from jaxnmc.errors import ConfigError, TokenError
from jaxnmc.evaluate import provenance
from jaxnmc.io.tokenizer import stream_decoder
from jaxnmc.models.generate import Generated, Generator
from jaxnmc.models.inputs import check_context
from jaxnmc.models.sampling import sampler
from jaxnmc.report import (
  backends,
  costs,
  files,
  pages,
  plots,
  spikes,
  stats,
  trace,
)

# Backends whose logits are integers.
EXACT = ("fixed", "spiking", "loihi")


def main(args) -> int:
  """Runs the command."""
  out = Output(args)
  setup.check_flags(args)
  _check_stats(args)
  files.check_writable(args.report)
  files.check_writable(args.trace)
  if args.plots is not None:
    plots.check(args.plots)
  model = setup.load(args, out)
  prompt = backends.encode_prompt(model, args.prompt)
  pick = choose_sampler(args, model)
  backend = setup.prepare(args, out, model)
  recorder = None
  if args.trace is not None:
    recorder = trace.Recorder(backend.placement, args.trace_steps)
    engine: Any = backend.run
    engine.watch = recorder
  data, found = story(
    *(out, model, backend, args.prompt, prompt, pick, args.tokens)
  )
  data["command"] = "run"
  costs.show(out.people, data)
  if data["spikes"] is not None:
    spikes.show(out.people, data["spikes"])
  if args.report is not None:
    files.write_text(args.report, pages.run_page(data))
    out.line(f"report: {args.report}")
  if args.plots is not None:
    for path in plots.save(plots.of_run(data), args.plots):
      out.line(f"plot: {path}")
  if recorder is not None:
    files.write_json(args.trace, recorder.trace(), indent=None)
    out.line(f"trace: {args.trace}")
  good = True
  if args.stats:
    data["stats"], good = _stats(args, out, backend, found)
  out.result(data)
  return 0 if good else 1


def _check_stats(args) -> None:
  """Refuses limits without `--stats`, that without cores, and two of a kind.

  Raises:
    ConfigError: one of these.
  """
  if args.stats and args.backend != "loihi":
    raise ConfigError(
      f"--stats needs --backend loihi; found {args.backend}, which counts no"
      " events on cores"
    )
  for name in ("tick_hz", "limit"):
    if getattr(args, name) is not None and not args.stats:
      raise ConfigError(f"--{name} has no effect without --stats; give both")
  names = [name for name, _ in args.limit or ()]
  for name in names:
    if names.count(name) > 1:
      raise ConfigError(
        f"--limit: found {name} {names.count(name)} times; allowed is one limit"
        " for each figure"
      )


def _stats(args, out: Output, backend, found) -> tuple[dict[str, Any], bool]:
  """(figures and gates, whether all gates are passed)."""
  counters = functools.reduce(lambda a, b: a.merge(b), found.counters)
  ran = counters, backend.placement
  figures = stats.profile(*ran, tick_hz=args.tick_hz)
  rows = stats.check_budgets(figures, dict(args.limit or ()))
  stats.show(out.people, figures, rows)
  plain = {k: dataclasses.asdict(v) for k, v in figures["figures"].items()}
  return {
    **stats.stats(*ran, tick_hz=args.tick_hz),
    "profile": figures | {"figures": plain},
    "limits": rows,
  }, stats.passed(rows)


def choose_sampler(args, model):
  """The sampler that the flags ask for; refuses impossible ones at once.

  Raises:
    TokenError: an impossible parameter.
  """
  if args.top_k > model.config.vocab_size:
    raise TokenError(
      f"--top_k {args.top_k} is more than the {model.config.vocab_size} tokens"
      f" of {model.name}"
    )
  if not args.temperature >= 0:
    raise TokenError(f"--temperature must be >= 0; found {args.temperature}")
  integer = getattr(args, "backend", "loihi") in EXACT
  return sampler(
    args.temperature,
    args.top_k,
    args.top_p,
    args.seed,
    integer=integer and not args.float_sampler,
  )


def story(
  out: Output,
  model,
  backend,
  text: str,
  prompt,
  pick,
  tokens: int,
  keep_logits: bool = False,
) -> tuple[dict[str, Any], Generated]:
  """Generates, streams the text, and collects everything worth reporting.

  Args:
    out: where the text goes.
    model: the model.
    backend: how it runs.
    text: the prompt as text.
    prompt: its ids, begin token included, int32[n].
    pick: sampler.
    tokens: most tokens to generate.
    keep_logits: keep the logits of every position.

  Returns:
    (JSON-ready result, what was generated).
  """
  push = stream_decoder(model.tokenizer)
  times: list[float] = []

  def on_token(ids: np.ndarray, alive: np.ndarray) -> None:
    times.append(time.perf_counter())
    if alive[0]:
      out.raw(push(int(ids[0])))

  generator = Generator(
    backend.run,
    backend.params,
    model.config.vocab_size,
    pick,
    jit=backend.jit,
  )
  eos = getattr(model.tokenizer, "eos_id", None)
  # Before the prompt is shown; the last token is not fed in.
  context = getattr(model.fn, "context", None)
  check_context(len(prompt) + tokens - 1, context, "prompt and --tokens")
  out.raw(text)
  start = time.perf_counter()
  found = generator(
    [prompt], tokens, eos_id=eos, callback=on_token, keep_logits=keep_logits
  )
  out.raw(push() + "\n")
  if found.stopped[0]:
    out.line(f"[end of text after {len(found.ids[0])} tokens]")
  seconds = times[-1] - start
  # The first decode step compiles; the rest is what a token takes.
  decode = np.diff(times[1:])
  data = {
    "model": model.name,
    "config": vars(model.config),
    "backend": backend.name,
    "engine": backend.engine,
    "prompt": text,
    "text": model.tokenizer.decode(found.ids[0]),
    "prompt_tokens": len(prompt),
    "tokens": len(found.ids[0]),
    "steps": found.steps,
    "ids": found.ids[0].tolist(),
    "ended": found.stopped[0],
    "sampling": pick.label,
    "host": {
      "label": "measured",
      "seconds": seconds,
      "first_token_s": times[0] - start,
      "tokens_per_s": 1 / float(np.median(decode)) if len(decode) else None,
    },
    "cost": None,
    "placement": None,
    "spikes": None,
    **backends.fingerprints(model, backend),
    "plan": backend.plan.name if backend.plan else None,
    "notes": [*model.notes, *backend.notes],
    "versions": provenance.versions(),
  }
  if backend.placement is not None:
    data |= costs.collect(found, backend)
  if backend.code is not None:
    data["spikes"] = spikes.collect(found.counters, backend.code)
  return data, found
