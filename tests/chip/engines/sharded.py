"""One run of the stepped machine on a mesh, as a JSON line of hashes.

Run as a program, because the number of CPU devices is set before jax starts:

    python -m tests.chip.sharded MODEL DEVICES [COORDINATOR PROCESSES INDEX]
"""

import hashlib
import json
import sys

import jax
import numpy as np

import jaxnmc as nmc
from tests.chip.mini import mini, recut
from tests.chip.tiny import tiny_model

IDS = np.array([3, 0, 7, 1, 2, 5, 5, 9], np.int32)
INJECT = [0, 1, 2, 6, 20, 21, 70, 71]


def engine(model: str, mesh=None):
  """(stepped engine, qparams) of a model placed on several chips."""
  if model == "mini":
    net = mini(6, 20)
    fn, plan, qparams, graph = net.fn, net.plan, net.qparams, net.graph
  else:
    fn, _, plan, qparams = tiny_model("double", layers=6)
    graph = nmc.record(fn, plan, qparams)
  hardware = nmc.chip.loihi2(chips=8, cores_per_chip=12)
  placed = nmc.place(graph, hardware, head="chip")
  if model == "mini":
    placed = recut(placed, 6)
  make = lambda **more: nmc.loihi(fn, plan, placed, engine="stepped", **more)
  return make(mesh=mesh), qparams


def result(run, qparams) -> dict:
  """Hashes of outputs, state and counters of two calls on one state."""
  out, state, counters = run(qparams, {"ids": IDS}, inject=INJECT)
  more, state, others = run(qparams, {"ids": IDS[:3]}, state)
  merged = counters.merge(others)
  plain = json.loads(merged.to_json())
  digest = lambda tree: hashlib.sha256(
    b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(tree))
  ).hexdigest()
  return {
    "out": digest((out, more)),
    "state": digest(state),
    "counters": hashlib.sha256(json.dumps(plain).encode()).hexdigest(),
    "synops": int(merged.total("synops").sum()),
    "bytes": sorted(run.device_bytes.values()),
  }


def main(model: str, devices: int, *distributed: str) -> None:
  if distributed:
    coordinator, processes, index = distributed
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, int(processes), int(index))
  mesh = jax.make_mesh((devices,), ("chips",))
  assert jax.device_count() == devices
  run, qparams = engine(model, mesh)
  split = {c.axis for c in run.spread.classes}
  found = result(run, qparams) | {"axes": sorted(split)}
  found["processes"] = jax.process_count()
  print(json.dumps(found), flush=True)


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
