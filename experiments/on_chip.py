"""A spiking model on cores: the same spikes in every interpreter."""

import time
from typing import Any

import jax
import numpy as np
from integers import Integers

import jaxnmc as nmc
from jaxnmc.numerics.fx import codes
from jaxnmc.report.placement import on_chips

_STEPPED = 2  # ids that the slower engine reads


def same_spikes(made: Integers, ids: np.ndarray) -> dict[str, Any]:
  """Runs one text by `fixed`, `spiking` and both engines of `loihi`.

  Args:
    made: a spiking model in integers.
    ids: int[T], the text; the stepped engine reads its first two ids.

  Returns:
    How many integers were equal, where the network lies, and what it costs.
  """
  fn, plan, qparams = made.fn, made.plan, made.qparams
  ids = np.asarray(ids, np.int32)
  fixed = jax.jit(nmc.fixed(fn, plan, taps=True))
  want, _, sites = fixed(qparams, {"ids": ids})
  spikes = {k: codes(v) for k, v in sites.items() if "_spikes." in k}
  spiking = jax.jit(nmc.spiking(fn, plan))
  graph = nmc.record(fn, plan, qparams)
  placement = on_chips(graph)
  found: dict[str, Any] = {
    "ids": len(ids),
    "spikes": int(sum(np.abs(x).sum() for x in spikes.values())),
    "chips": placement.hardware.chips,
    "cores": len(placement.used_cores),
    "plan_sha256": plan.fingerprint,
    "equal": {"spiking": _equal(spiking(qparams, {"ids": ids})[0], want)},
  }
  for engine, size in (("functional", len(ids)), ("stepped", _STEPPED)):
    start = time.monotonic()
    run = nmc.loihi(fn, plan, placement, engine=engine)
    out, _, counters = run(qparams, {"ids": ids[:size]})
    found["equal"][engine] = _equal(out, want, size)
    found[f"{engine} seconds"] = round(time.monotonic() - start, 1)
    if engine == "functional":
      found["cost"] = nmc.cost(counters, placement).to_dict()
  return found


def _equal(out, want, size: int | None = None) -> list[int]:
  """[logits that are equal, logits]."""
  one, two = codes(out.logits), codes(want.logits)[:size]
  return [int(np.sum(one == two)), int(np.size(two))]


def show(found: dict[str, Any]) -> None:
  """Prints what ran on cores."""
  print(
    f"on {found['cores']:,} cores of {found['chips']} chips:"
    f" {found['ids']} ids, {found['spikes']:,} spikes of q, k and v (measured)"
  )
  for name, (equal, all_of_them) in found["equal"].items():
    print(f"{name}: {equal:,} of {all_of_them:,} logits are those of fixed")
  cost = found["cost"]
  print(
    f"a prompt of {found['ids']} ids: {cost['ttft_ms']['value']:.3f} ms,"
    f" {1e3 * cost['run_mj']['value']:,.0f} uJ (modelled)"
  )
