"""`jaxnmc build-kernels`: compiles the native kernels ahead of their use."""

from jaxnmc.cli.output import Output
from jaxnmc.kernels import native


def main(args) -> int:
  """Runs the command.

  Raises:
    UserError: there is no compiler, or it failed.
  """
  out = Output(args)
  library = native.build()
  found = {"library": str(library), "instructions": native.path()}
  out.line(f"{library} (ternary products: {found['instructions']})")
  out.result(found)
  return 0
