"""`jaxnmc info`: what a model is made of."""

from jaxnmc.cli import setup
from jaxnmc.cli.output import Output
from jaxnmc.io.info import info
from jaxnmc.report import tables

_MEMORY = {
  "float32": "all parameters as float32",
  "packed_16bit": "ternary codes at 2 bits, the rest at 16",
  "packed_8bit": "ternary codes at 2 bits, the rest at 8",
}


def main(args) -> int:
  """Runs the command."""
  out = Output(args)
  model = setup.load(args, out)
  found = info(model)
  zero = found["zero_fraction"]
  rows = [(k.replace("_", " "), v) for k, v in found["parameters"].items()]
  out.table(model.name, ("parameters", ">number"), rows)
  rows = [
    (tables.size(found["memory_bytes"][k]), text) for k, text in _MEMORY.items()
  ]
  rows.append(
    (tables.size(found["state_bytes"]), "state of one sequence (32 bits each)")
  )
  out.table("Memory", (">size", "format"), rows)
  rows = [
    (k.replace("_", " "), v) for k, v in found["operations_per_token"].items()
  ]
  out.table("Operations per token", ("kind", ">number"), rows)
  if zero is not None:
    rows = [("all", f"{100 * zero['all']:.1f} %")]
    rows += [(k, f"{100 * v:.1f} %") for k, v in zero["by_role"].items()]
    out.table("Zero weights of ternary matrices", ("role", ">share"), rows)
  rows = [*found["config"].items()]
  tokenizer = found["tokenizer"] or {"kind": "none"}
  rows.append(("tokenizer", ", ".join(str(v) for v in tokenizer.values())))
  rows.append(("plan", found["plan"] or "none"))
  out.table("Configuration", ("field", "value"), rows)
  out.result(found)
  return 0
