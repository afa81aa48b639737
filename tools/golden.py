"""Golden integers: a small model made of integers, and hashes of its outputs.

  python tools/golden.py            compares with tests/golden, exit 1 if other
  python tools/golden.py --write    records anew (say why in the commit)

Weights come from SHAKE-128, not from a random generator whose stream may
change with a version; the plan is stored with the hashes, so that nothing
here depends on the rounding of a float.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from jaxnmc import quantize
from jaxnmc.models import matmulfree
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops import transform

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
BATCH, LENGTH, PADDED = 8, 6, 2
CASES = {
  "double-W8A16": ("double", quantize.W8A16),
  "fused-W8A8": ("fused", quantize.W8A8),
}


@dataclasses.dataclass(frozen=True)
class Case:
  """A model of integers: function, float parameters, inputs [B, T]."""

  config: matmulfree.Config
  fn: Any
  params: Any
  inputs: dict[str, np.ndarray]


def draw(name: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
  """Integers low..high, int64[shape], a function of the name alone."""
  count = int(np.prod(shape))
  raw = hashlib.shake_128(name.encode()).digest(4 * count)
  values = np.frombuffer(raw, "<u4").astype(np.int64) % (high - low + 1)
  return (values + low).reshape(shape)


def _array(name: str, shape: tuple[int, ...], low, high, unit) -> np.ndarray:
  return (draw(name, shape, low, high) / unit).astype(np.float32)


def tiny_params(config: matmulfree.Config, seed: str = "tiny") -> dict:
  """Parameters whose every number is a small integer over a power of two."""

  def fill(path, leaf):
    name = f"{seed}.{jax.tree_util.keystr(path, simple=True, separator='.')}"
    if name.endswith("embed.weight"):
      return _array(name, leaf.shape, -512, 512, 256)
    if name.endswith("lower_bounds"):
      return _array(name, leaf.shape, -16, 16, 16)
    if name.endswith(".weight"):
      scale = _array(name + ".scale", (), 24, 96, 256)
      codes = draw(name, leaf.shape, -1, 1).astype(np.int8)
      return Ternary(codes, np.float32(scale))
    return _array(name, leaf.shape, 40, 104, 64)

  shapes = jax.eval_shape(
    lambda key: matmulfree.init_params(config, key), jax.random.key(0)
  )
  return jax.tree_util.tree_map_with_path(fill, shapes)


def tiny(norm: str = "double", **changes) -> Case:
  """The model of the golden hashes: 24 tokens, 16 wide, two layers."""
  sizes = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_layers": 2,
    "intermediate_size": 24,
    "norm": norm,
  }
  config = matmulfree.Config(**{**sizes, **changes})
  ids = draw("tiny.ids", (BATCH, LENGTH), 0, config.vocab_size - 1)
  mask = np.ones((BATCH, LENGTH), np.int32)
  mask[1, :PADDED] = 0
  inputs = {"ids": ids.astype(np.int32), "mask": mask}
  return Case(config, matmulfree.make(config), tiny_params(config), inputs)


def codes(value) -> np.ndarray:
  """The integers of a fixed-point value."""
  return np.asarray(value.q if isinstance(value, Fx) else value)


def digest(value) -> str:
  """SHA-256 of shape and int32 codes."""
  q = codes(value)
  if q.dtype != np.int32:
    raise TypeError(f"golden outputs are int32; found {q.dtype}")
  sha = hashlib.sha256(str(q.shape).encode())
  sha.update(np.ascontiguousarray(q, "<i4").tobytes())
  return sha.hexdigest()


def outputs(out, state) -> dict[str, str]:
  """Hashes of logits and state."""
  layers = enumerate(state["layers"])
  return {
    "logits": digest(out.logits),
    **{f"state.{i}": digest(h) for i, h in layers},
  }


def measure(name: str, plan: quantize.Plan) -> dict[str, Any]:
  """All hashes of one case under a plan."""
  case = tiny(CASES[name][0])
  qparams = quantize.quantize_params(case.params, plan)
  run = transform.fixed(case.fn, plan, taps=True)
  out, state, taps = run(qparams, case.inputs)
  return {
    "plan": json.loads(plan.to_json()),
    "qparams": qparams.weights,
    "outputs": outputs(out, state),
    "sites": {path: digest(x)[:16] for path, x in sorted(taps.items())},
  }


def new_plan(name: str) -> quantize.Plan:
  """A plan calibrated on the case's own inputs."""
  norm, preset = CASES[name]
  case = tiny(norm)
  stats = quantize.calibrate(case.fn)(case.params, [case.inputs])
  return quantize.plan(stats, preset)


def load(name: str) -> dict[str, Any]:
  """A recorded case."""
  return json.loads((FOLDER / f"{name}.json").read_text())


def stored_plan(recorded: dict[str, Any]) -> quantize.Plan:
  """The plan inside a recorded case."""
  return quantize.Plan.from_json(json.dumps(recorded["plan"]))


def _write(name: str) -> None:
  path = FOLDER / f"{name}.json"
  text = json.dumps(measure(name, new_plan(name)), indent=1, sort_keys=True)
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(text + "\n")
  os.replace(temporary, path)


def _compare(name: str) -> list[str]:
  recorded = load(name)
  now = measure(name, stored_plan(recorded))
  wrong = []
  for part in ("qparams", "outputs", "sites"):
    if now[part] != recorded[part]:
      keys = recorded[part] if isinstance(now[part], dict) else ()
      sites = [k for k in keys if now[part].get(k) != recorded[part][k]]
      wrong.append(f"{name}: {part} differ {sites[:5]}")
  return wrong


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--write", action="store_true", help="record anew")
  write = parser.parse_args().write
  wrong = []
  for name in CASES:
    if write:
      _write(name)
    else:
      wrong += _compare(name)
  print("\n".join(wrong) or f"{'wrote' if write else 'equal'}: {len(CASES)}")
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
