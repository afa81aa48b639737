"""`jaxnmc verify`: is this checkpoint the model that was recorded?"""

import jax

from jaxnmc.cli.output import Output


def main(args) -> int:
  """Runs the command; 1 if an array is over its tolerance."""
  out = Output(args)
  # Before any array is made, so that float64 weights stay float64.
  jax.config.update("jax_enable_x64", True)
  from jaxnmc.io.verify import verify

  found = verify(args.model, args.reference)
  out.answer(found, indent=None)
  return 0 if found["ok"] else 1
