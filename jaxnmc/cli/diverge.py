"""`jaxnmc diverge`: the first site at which two interpreters differ."""

import numpy as np

from jaxnmc.cli import setup
from jaxnmc.cli.output import Output
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import text
from jaxnmc.report import backends, diverge

_MOST_ROWS = 12


def main(args) -> int:
  """Runs the command; 1 if a site differs.

  Raises:
    ConfigError: an interpreter is compared with itself.
  """
  out = Output(args)
  ours, theirs = args.between
  if ours == theirs and not args.float64:
    raise ConfigError(
      f"--between {ours} {theirs}: name two interpreters that differ"
    )
  model = setup.load(args, out)
  plan, qparams = setup.quantized(args, out, model)
  documents = None if args.text is None else text.read_documents([args.text])
  batch = backends.calibration_batches(model, documents)[0]
  there = batch.get("mask", np.ones_like(batch["ids"])) != 0
  ids = batch["ids"][there][: args.tokens]
  run = lambda name: diverge.values(
    model.fn, name, model.params, ids, plan, qparams, args.float64
  )
  mine, other = run(ours), run(theirs)
  sites = diverge.compare(mine, other, args.codes)
  apart = [site for site in sites if site.differ]
  rows = [
    (
      site.path,
      f"{site.differ:,}/{site.values:,}",
      f"{site.largest:.3g}",
      "" if site.code is None else f"{site.largest / site.code:,.3g}",
      site.token,
      site.feature,
    )
    for site in apart[:_MOST_ROWS]
  ]
  if rows:
    out.table(
      f"{model.name}: {ours} and {theirs}, first sites that differ",
      ("site", ">differ", ">most", ">in codes", ">token", ">feature"),
      rows,
    )
    first = apart[0]
    assert first.found is not None
    out.line(
      f"first: {first.path}, token {first.token}, feature {first.feature}:"
      f" {first.found[0]:.9g} in {ours}, {first.found[1]:.9g} in {theirs}"
    )
  only = [set(mine) - set(other), set(other) - set(mine)]
  out.line(
    f"{len(sites)} sites on {len(ids)} ids, {sum(s.values for s in sites):,}"
    f" values: {len(apart)} sites differ by more than {args.codes:g} codes"
    + "".join(
      f"; {len(more)} sites are only in {name}"
      for more, name in zip(only, (ours, theirs))
      if more
    )
  )
  out.result(
    {
      "model": model.name,
      "between": [ours, theirs],
      "ids": len(ids),
      "codes": args.codes,
      "float64": args.float64,
      "sites": [site.plain() for site in sites],
      "first": apart[0].plain() if apart else None,
      "only": [sorted(more) for more in only],
    }
  )
  return 1 if apart else 0
