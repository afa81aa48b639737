"""`jaxnmc doctor`: what is wrong with this installation, or with a model."""

import numpy as np

from jaxnmc.cli import setup
from jaxnmc.cli.output import Output
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import text
from jaxnmc.models import spike_counts
from jaxnmc.report import backends, firing, health

_MOST_IDS = 512
_MOST_ROWS = 20


def main(args) -> int:
  """Runs the command; 1 if a kernel is not exact on this device.

  Raises:
    ConfigError: texts for a model, but no model.
  """
  out = Output(args)
  if args.model is None and (args.text or args.calibrate or args.plan):
    raise ConfigError(
      "--text, --calibrate and --plan are for a MODEL, and none was named; put"
      " it after 'doctor'"
    )
  found = health.installation()
  rows: list[tuple] = [(k, v or "absent") for k, v in found["versions"].items()]
  out.table("Versions", ("package", "version"), rows)
  rows = [(d["id"], d["platform"], d["kind"]) for d in found["devices"]]
  out.table("Devices", (">id", "platform", "kind"), rows)
  rows = [(k, "exact" if v else "WRONG") for k, v in found["kernels"].items()]
  out.table("Integer kernels", ("kernel", "on this device"), rows)
  rows = []
  for extra, modules in found["extras"].items():
    missing = [name for name, there in modules.items() if not there]
    state = f"absent: {', '.join(missing)}" if missing else "present"
    rows.append((f"jaxnmc[{extra}]", state))
  out.table("Extras", ("extra", "state"), rows)
  if args.model is not None:
    found["model"] = _model(args, out)
  out.result(found)
  return 0 if all(found["kernels"].values()) else 1


def _model(args, out: Output) -> dict:
  model = setup.load(args, out)
  spiking = None
  if spike_counts.spiking_parts(model.config):
    spiking = _spiking(args, out, model)
    if model.plan is None and args.plan is None and args.calibrate is None:
      out.line("formats: none yet; --calibrate FILE or --plan FILE checks them")
      return {"model": model.name, "spiking": spiking}
  plan, qparams = setup.quantized(args, out, model)
  documents = None if args.text is None else text.read_documents([args.text])
  batches = backends.calibration_batches(model, documents)
  ids = np.concatenate(
    [b["ids"][b.get("mask", np.ones_like(b["ids"])) != 0] for b in batches]
  )[: min(_MOST_IDS, getattr(model.fn, "context", None) or _MOST_IDS)]
  rows = health.sites(model.fn, plan, qparams, ids)
  bad = [r for r in rows if r["dead"] or r["saturated"]]
  bad.sort(key=lambda r: (-r["saturated"] / r["values"], -r["dead"]))
  shown = [
    (
      r["site"],
      r["format"],
      f"{r['dead']:,}/{r['features']:,}",
      f"{100 * r['saturated'] / r['values']:.3f} %",
      r["used_bits"],
    )
    for r in bad[:_MOST_ROWS]
  ]
  if shown:
    out.table(
      f"{model.name}: sites with dead features or saturated values",
      ("site", "format", ">dead", ">saturated", ">bits used"),
      shown,
    )
  out.line(
    f"{len(rows)} sites on {len(ids)} ids: {sum(bool(r['dead']) for r in rows)}"
    f" with dead features, {sum(bool(r['saturated']) for r in rows)} with"
    " saturated values"
    + (f"; {_MOST_ROWS} of {len(bad)} shown" if len(bad) > _MOST_ROWS else "")
  )
  found = {"model": model.name, "ids": len(ids), "sites": rows}
  return found | ({} if spiking is None else {"spiking": spiking})


def _spiking(args, out: Output, model) -> dict:
  """Neurons of a spiking transformer, in float: `report.firing`."""
  documents = None if args.text is None else text.read_documents([args.text])
  (batch, *_) = backends.calibration_batches(model, documents)
  found = firing.examine(
    model.config, model.params, batch["ids"], batch.get("mask")
  )
  firing.show(out.people, found["neurons"], found["ties"])
  return found
