"""`jaxnmc place`: does a model fit, and where does it go?"""

import jaxnmc
from jaxnmc.cli import setup
from jaxnmc.cli.output import Output
from jaxnmc.report import backends, placement


def main(args) -> int:
  """Runs the command; a refusal is a `PlacementError`."""
  out = Output(args)
  model = setup.load(args, out)
  plan, qparams = setup.quantized(args, out, model)
  graph = jaxnmc.record(model.fn, plan, qparams)
  data = placement.summary(backends.place_on(graph, args.chips))
  out.people.print(placement.chip_table(data))
  out.people.print(placement.limit_table(data))
  per_layer = data["steps_per_layer"]
  out.line(
    f"{data['steps_per_token']} time steps per token"
    + (f", {max(per_layer)} per layer" if per_layer else "")
    + f"; layers: {data['policy']['layers']}, head: {data['policy']['head']}"
  )
  if data["unknown_limits"]:
    out.line("unknown, not checked: " + ", ".join(data["unknown_limits"]))
  out.result({"model": model.name, **data})
  return 0
