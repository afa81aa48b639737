"""The spiking model as integers: the same spikes in every interpreter."""

import time
from typing import Any

import jax
import numpy as np

import jaxnmc as nmc
from jaxnmc.models import gpt
from jaxnmc.numerics.fx import codes
from jaxnmc.report.placement import on_chips


def same_spikes(
  config: gpt.Config, params: Any, calibration: np.ndarray, ids: np.ndarray
) -> dict[str, Any]:
  """Runs one text by `fixed`, `spiking` and both engines of `loihi`.

  Args:
    config: of a spiking model.
    params: its float parameters.
    calibration: int[B, T], text that formats are chosen on.
    ids: int[T], the text; the stepped engine reads its first two ids.

  Returns:
    How many integers were equal, where the network lies, and what it costs.
  """
  fn, ids = gpt.make(config), np.asarray(ids, np.int32)
  stats = nmc.calibrate(fn)(params, [{"ids": np.asarray(calibration)}])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
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
  for engine, size in (("functional", len(ids)), ("stepped", 2)):
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
