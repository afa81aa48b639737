"""`jaxnmc prune`: a transformer without its weakest heads and units."""

import dataclasses
import re

import jaxnmc
from jaxnmc.cli.output import Output
from jaxnmc.compress import heads, masks, parts, shrink, units
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import provenance
from jaxnmc.io import files
from jaxnmc.models import families
from jaxnmc.report import pruning
from jaxnmc.train import export, qat

REPORT = "pruning.json"


def main(args) -> int:
  """Runs the command.

  Raises:
    ConfigError: MODEL is no transformer with dense matrices, nothing to prune,
      flags without effect, or a share that leaves a layer without anything.
    CheckpointError: the folder is taken, or as `jaxnmc.load`.
  """
  out = Output(args)
  mask = _mask(args)
  # The name is taken before the work, and the folder appears when all is done.
  with files.new_folder(args.out) as work:
    model = jaxnmc.load(args.model)
    out.notes(model.notes)
    parts.check(model.config, f"prune {model.name}")
    config, params = model.config, qat.latents(model.params)
    stay = {
      "heads": heads.keep(config, params, args.heads or 0.0),
      "units": units.keep(
        config, params, args.units or 0.0, args.rank or units.RANKS[0]
      ),
    }
    small, made = shrink.shrink(config, params, **stay)
    if mask is not None:
      made = masks.apply(made, masks.n_of_m(made, *mask))
    elif args.sparsity is not None:
      made = masks.apply(made, masks.magnitude(made, args.sparsity))
    pruned = families.model(args.out, small, made, tokenizer=model.tokenizer)
    data = {
      "command": "prune",
      "label": "measured",
      "model": model.name,
      "weights_sha256": provenance.params_sha256(model.params),
      "recipe": {
        name: getattr(args, name)
        for name in ("heads", "units", "rank", "mask", "sparsity")
      },
      "out": args.out,
      "out_weights_sha256": provenance.params_sha256(pruned.params),
      "config": dataclasses.asdict(small),
      "kept": {k: [m.tolist() for m in rows] for k, rows in stay.items()},
      "layers": pruning.layers(config, small, made),
      "total": pruning.totals(config, small, made),
      "versions": provenance.versions(),
    }
    export.save_folder(work, pruned, {"pruned_from": model.name})
    files.write_json(work / REPORT, data)
  pruning.show(out.people, data)
  if model.plan is not None:
    out.notes(["the plan of the model was left out: calibrate the smaller one"])
  out.line(f"{args.out}: report in {REPORT}")
  out.result(data)
  return 0


def _mask(args) -> tuple[int, int] | None:
  """N and M of --mask.

  Raises:
    ConfigError: nothing to prune, a flag without effect, or no N:M.
  """
  asked = (args.heads, args.units, args.mask, args.sparsity)
  if all(value is None for value in asked):
    raise ConfigError(
      "prune: nothing to prune; give --heads, --units, --mask or --sparsity"
    )
  if args.rank is not None and args.units is None:
    raise ConfigError("--rank has no effect without --units; leave it out")
  if args.mask is None:
    return None
  found = re.fullmatch(r"(\d{1,6}):(\d{1,6})", args.mask)
  if found is None:
    raise ConfigError(
      f"--mask: found {args.mask!r}, allowed is N:M, how many of every M"
      " weights stay, as 2:4"
    )
  return int(found[1]), int(found[2])
