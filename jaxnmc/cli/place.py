"""`jaxnmc place`: does a model fit, and where does it go?"""

import jaxnmc
from jaxnmc.chip import outline, presets, systems
from jaxnmc.chip.network import Network
from jaxnmc.chip.placement import encoding
from jaxnmc.cli import setup
from jaxnmc.cli.output import Output
from jaxnmc.errors import ConfigError
from jaxnmc.ops.graph import Graph
from jaxnmc.report import chips as other
from jaxnmc.report import files, placement, populations, schedule_plot


def main(args) -> int:
  """Runs the command; a refusal is a `PlacementError`."""
  out = Output(args)
  files.check_writable(args.plot)
  if args.systems:
    rows = systems.published()
    out.people.print(placement.system_table(rows))
    out.result({"systems": rows})
    return 0
  name, placed = _place(args, out)
  data = placement.summary(placed)
  out.people.print(placement.chip_table(data))
  out.people.print(placement.limit_table(data))
  out.people.print(placement.paper_table(data))
  per_layer, policy = data["steps_per_layer"], data["policy"]
  out.line(
    f"{data['steps_per_token']:,} time steps per token"
    + (f", {max(per_layer)} per layer" if per_layer else "")
    + f"; layers: {policy['layers']}, head: {policy['head']}, objective:"
    f" {policy['objective']}"
  )
  if data["unknown_limits"]:
    out.line("unknown, not checked: " + ", ".join(data["unknown_limits"]))
  if args.preset and args.model is None:
    data |= _beside(out, args.preset)
  if args.compare:
    rows = other.compare(placed)
    other.show(out.people, rows)
    data["compare"] = rows
  if args.populations:
    rows = populations.population_rows(placed)
    out.people.print(populations.population_table(rows))
    data["by_population"] = rows
  if args.schedule:
    for table in placement.schedule_tables(placed.network):
      out.people.print(table)
    data["schedule"] = placement.schedule_rows(placed.network)
  if args.plot:
    schedule_plot.save(placed.network, args.plot)
    out.line(f"wrote {args.plot}")
  out.result({"model": name, **data})
  return 0


def _place(args, out: Output):
  """(name, placement) of a model, of sizes alone, or of a preset.

  Raises:
    ConfigError: nothing to place, or flags that exclude each other.
    PlacementError: it does not fit.
  """
  if args.shape is not None and (args.model or args.preset):
    raise ConfigError("--shape takes no MODEL and no --preset; leave one out")
  if args.model is None and args.shape is None and args.preset is None:
    raise ConfigError(
      "nothing to place: name a MODEL, or give --shape LAYERS,D,I,VOCAB or"
      " --preset NAME"
    )
  net: Graph | Network | None = None
  name = args.model
  if args.model is not None:
    model = setup.load(args, out)
    plan, qparams = setup.quantized(args, out, model)
    net, name = jaxnmc.record(model.fn, plan, qparams), model.name
  elif args.shape is not None:
    layers, d, i, vocab = args.shape
    net = outline.matmulfree(layers, d, i, vocab, norm=args.norm)
    name = "MatMul-free, {} layers, {} wide, GLU {}, {} tokens".format(
      *args.shape
    )
  options = {
    "head": args.head,
    "objective": args.objective,
    "layer_chips": args.layer_chips,
    "head_chips": args.head_chips,
  }
  if args.cores is not None:
    return name, _on_cores(args, net)
  if args.preset is None:
    return name, placement.on_chips(net, args.chips, **options)
  for flag, value in options.items():
    if value not in (None, "auto", "time"):
      raise ConfigError(
        f"--{flag} {value} is what --preset {args.preset} fixes; leave one out"
      )
  chips = None if args.chips is None else jaxnmc.chip.loihi2(chips=args.chips)
  return name or args.preset, presets.preset(args.preset, net, chips)


def _on_cores(args, net):
  """As few cores as do, if these are not more than --cores.

  Raises:
    ConfigError: flags that exclude it.
    PlacementError: more cores are needed.
  """
  for flag in ("chips", "preset", "layer_chips", "head_chips"):
    if getattr(args, flag) is not None:
      raise ConfigError(
        f"--cores and --{flag} exclude each other; leave one of them out"
      )
  return other.on_cores(net, args.cores, head=args.head)


def _beside(out: Output, name: str) -> dict:
  """What the paper left open: encodings, embedding on chips, smaller heads."""
  found = presets.PRESETS[name]
  chip = jaxnmc.chip.loihi2()
  stored = encoding.options(found.d, found.d, encoding.PAPER_ZEROS, chip)
  zeros = f"{100 * encoding.PAPER_ZEROS:.1f} % zeros"
  out.people.print(
    placement.encoding_table(f"A matrix {found.d} x {found.d}, {zeros}", stored)
  )
  table = presets.embedding_on_chips(found.vocab, found.d, chip)
  out.people.print(placement.embedding_table(table))
  heads = presets.head_on_chips(found.network, chip)
  out.people.print(placement.head_table(heads))
  seconds = presets.logits_seconds(found.network, chip)
  if seconds is not None:
    out.line(
      f"all {found.vocab:,} logits of a token take {1e6 * seconds:.0f} us to"
      f" the host ({chip.host_messages_per_s:,.0f} messages/s): the step is"
      " unchanged only if most tokens of a prompt do not send theirs"
    )
  return {"encodings": stored, "embedding": table, "heads": heads}
