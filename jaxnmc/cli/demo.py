"""`jaxnmc demo`: a story from nothing but integers, on simulated cores."""

import time

import jaxnmc
from jaxnmc.cli import run
from jaxnmc.cli.flags import ZOO_MODEL
from jaxnmc.cli.output import Output
from jaxnmc.report import backends, check, costs


def main(args) -> int:
  """Runs the command; 1 if an integer differs from those of `fixed`."""
  start = time.perf_counter()
  out = Output(args)
  model = jaxnmc.load(ZOO_MODEL)
  prompt = backends.encode_prompt(model, args.prompt)
  pick = run.choose_sampler(args, model)
  backend = backends.prepare(
    model, "loihi", engine=args.engine, chips=args.chips
  )
  placed = backend.placement
  chips = len(placed.chips)
  out.line(
    f"{model.name}: {model.config.num_params:,} parameters, ternary weights,"
    f" plan {backend.plan.name}"
  )
  out.line(
    f"{len(placed.used_cores)} cores on {chips} simulated Loihi 2"
    f" chip{'s' * (chips > 1)}, engine {args.engine}\n"
  )
  data, found = run.story(
    out,
    model,
    backend,
    args.prompt,
    prompt,
    pick,
    args.tokens,
    keep_logits=True,
  )
  equality = check.against_fixed(model, backend, found)
  out.line()
  costs.show(out.people, data)
  out.line(equality.line("loihi"))
  data |= {
    "command": "demo",
    "equal": equality.equal,
    "integers": equality.integers,
    "seconds": time.perf_counter() - start,
  }
  out.result(data)
  return 0 if equality.equal else 1
