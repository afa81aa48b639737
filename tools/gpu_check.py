"""Are the integers the same on this device, and how fast is it?

  python tools/gpu_check.py                  on a GPU: all of it, minutes
  python tools/gpu_check.py --small          seconds to a minute, on any device
  python tools/gpu_check.py --write          on a CPU: records the hashes anew

Needs this repository, jax and the packages that `import jaxnmc` needs; no
network. First it compares: hashes of logits and state of whole models by
`fixed` and by `loihi` with tools/gpu_golden.json, recorded on a CPU, and every
kernel with NumPy integers. Then it measures kernels and the 370M shape. One
wrong integer makes the exit status 1. What does not start within --seconds is
left out and named. --json FILE keeps everything.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax import numpy as jnp  # noqa: E402

import jaxnmc as nmc  # noqa: E402
from jaxnmc.evaluate import provenance  # noqa: E402
from jaxnmc.kernels import (  # noqa: E402
  packed,
  pallas_launch,
  pallas_product,
)
from jaxnmc.models import matmulfree  # noqa: E402
from jaxnmc.models.random_params import random_params  # noqa: E402
from jaxnmc.report import files, tables  # noqa: E402
from tools import golden, gpu_speed  # noqa: E402

RECORD = ROOT / "tools" / "gpu_golden.json"
BATCH, PROMPT, DECODE = 2, 24, 3
# Small models first; `wide` has the widths of the 370M model, and fewer layers.
CASES = ("tiny", "fused", "stories", "wide")
SMALL = ("tiny",)
MOST = 32639


def _model(name: str, plan):
  """(fn, plan, qparams, vocabulary) of a case; plan None: calibrate one."""
  if name == "stories":
    model = nmc.load("stories-mmf")
    return model.fn, model.plan, model.qparams, model.config.vocab_size
  if name == "wide":
    config = matmulfree.Config(
      vocab_size=32000, hidden_size=1024, num_layers=2, intermediate_size=2816
    )
    params = random_params(config, 0)
  else:
    config = golden.tiny("fused" if name == "fused" else "double").config
    params = golden.tiny_params(config)
  fn = matmulfree.make(config)
  if plan is None:
    ids = golden.draw(f"{name}.range", (64,), 0, config.vocab_size - 1)
    stats = nmc.calibrate(fn)(params, [ids.astype(np.int32)])
    plan = nmc.plan(stats, nmc.quantize.W8A16)
  return fn, plan, nmc.quantize_params(params, plan), config.vocab_size


def _hashes(run, qparams, ids) -> dict:
  """Hashes of a prompt and of greedy tokens after it."""
  out, state = run(qparams, {"ids": ids}, None)[:2]
  found = {"prefill": golden.outputs(out, state), "ids": []}
  for _ in range(DECODE):
    token = np.argmax(np.asarray(out.logits.q)[:, -1:], axis=-1)
    found["ids"].append(token[:, 0].tolist())
    inputs = {"ids": token.astype(np.int32)}
    out, state = run(qparams, inputs, state)[:2]
  found["decode"] = golden.outputs(out, state)
  return found


def _run_case(name: str, recorded: dict | None, engines: bool = True):
  """(plan, fingerprint of the weights, hashes of each engine)."""
  plan = None
  if recorded and recorded["plan"]:
    plan = nmc.quantize.Plan.from_json(json.dumps(recorded["plan"]))
  fn, plan, qparams, vocabulary = _model(name, plan)
  ids = golden.draw(f"{name}.ids", (BATCH, PROMPT), 0, vocabulary - 1)
  ids = ids.astype(np.int32)
  fixed = jax.jit(nmc.fixed(fn, plan))
  found = {"fixed": _hashes(fixed, qparams, ids)}
  if engines:
    graph = nmc.record(fn, plan, qparams)
    chips = nmc.chip.loihi2(chips=4)
    placement = nmc.place(graph, chips, head="host")
    engine = nmc.loihi(fn, plan, placement)
    found["loihi"] = _hashes(engine, qparams, ids)
  return plan, qparams.weights, found


def write() -> None:
  """Records the hashes of `fixed`, on a CPU."""
  record = {}
  for name in CASES:
    plan, weights, found = _run_case(name, None, engines=False)
    stored = None if name == "stories" else json.loads(plan.to_json())
    record[name] = {"plan": stored, "weights": weights, **found["fixed"]}
    print(f"{name}: recorded", flush=True)
  text = json.dumps(record, indent=1, sort_keys=True)
  temporary = RECORD.with_name(RECORD.name + ".tmp")
  temporary.write_text(text + "\n")
  os.replace(temporary, RECORD)


def check_model(name: str) -> list[tuple[str, bool, str]]:
  """(what, equal, where it differs) of one model."""
  recorded = json.loads(RECORD.read_text())[name]
  _, weights, found = _run_case(name, recorded)
  rows = [(f"{name}: weights", weights == recorded["weights"], "fingerprint")]
  for engine, hashes in found.items():
    wrong = [
      f"{part}.{key}"
      for part in ("prefill", "decode")
      for key, value in hashes[part].items()
      if value != recorded[part][key]
    ]
    if hashes["ids"] != recorded["ids"]:
      wrong.insert(0, "tokens")
    rows.append((f"{name}: {engine}", not wrong, ", ".join(wrong[:4])))
  return rows


def _patterns(rows: int, k: int) -> np.ndarray:
  """Rows of all max, all min, alternating, zero and random, int32[rows, k]."""
  sign = 1 - 2 * (np.arange(k) % 2)
  random = golden.draw(f"x{rows}.{k}", (rows, k), -MOST, MOST)
  kinds = np.stack([np.full(k, MOST), np.full(k, -MOST), MOST * sign, 0 * sign])
  fixed = [kinds[i % 5] if i % 5 < 4 else random[i] for i in range(rows)]
  return np.array(fixed, np.int32)


def _matrices(n: int, k: int) -> np.ndarray:
  """All 1, all -1, alternating, and random with a zero row: int8[4, n, k]."""
  sign = np.broadcast_to(1 - 2 * (np.arange(k) % 2), (n, k))
  random = golden.draw(f"w{n}.{k}", (n, k), -1, 1)
  random[n // 2] = 0
  ones = np.ones((n, k), int)
  return np.stack([ones, -ones, sign, random]).astype(np.int8)


def _rule(codes, bits, x, i):
  return pallas_product.product(codes, bits, i, x, MOST)


def check_products(small: bool):
  """Every form of the product against NumPy's integers."""
  sizes = [(70, 10), (256, 16)] if small else [*gpu_speed.SHAPES, (999, 77)]
  rows = (1, 2, 17) if small else (1, 2, 7, 8, 15, 16, 17, 64)
  kernels = pallas_launch.wanted()
  for k, n in sizes:
    codes = _matrices(n, k)
    stack, bits = jnp.asarray(codes), jnp.asarray(packed.pack(codes))
    wrong: dict[str, int] = {}
    for m in rows:
      x = _patterns(m, k)
      # Sums stay below 2^53, so that float64 has every integer.
      right = [x.astype(np.float64) @ w.T.astype(np.float64) for w in codes]
      forms = gpu_speed.forms(m, kernels)
      if kernels:
        forms["rule"] = _rule
      for form, call in forms.items():
        run = jax.jit(call)
        for layer, expected in enumerate(right):
          got = np.asarray(run(stack, bits, x, np.int32(layer)))
          differ = int(np.count_nonzero(got != expected))
          wrong[form] = wrong.get(form, 0) + differ
    for form, count in wrong.items():
      yield f"product {k} x {n}, {form}", count == 0, f"{count} integers"


def check_recurrence(small: bool):
  """h <- round(f h / 2^15) + u, clipped, against NumPy's integers."""
  widths = (1, 45) if small else (1, 45, 1024, 1000)
  for n in widths:
    wrong = 0
    for length in (0, 1, 2, 19) if small else (0, 1, 2, 17, 512):
      f = golden.draw(f"f{length}.{n}", (length, n), 0, 1 << 15)
      u = golden.draw(f"u{length}.{n}", (length, n), -MOST, MOST)
      h = golden.draw(f"h{n}", (n,), -MOST, MOST)
      args = [x.astype(np.int32) for x in (h, f, u)]
      last, all_h = jax.jit(gpu_speed.recurrence)(*args)
      for t in range(length):
        h = np.clip(((f[t] * h + (1 << 14)) >> 15) + u[t], -MOST, MOST)
        wrong += int(np.count_nonzero(np.asarray(all_h[t]) != h))
      wrong += int(np.count_nonzero(np.asarray(last) != h))
    yield f"recurrence of {n}", wrong == 0, f"{wrong} integers"


@contextlib.contextmanager
def _kernels(small: bool):
  """Where there is no GPU, small checks interpret the kernels."""
  before = os.environ.get(pallas_launch.VARIABLE)
  if small and jax.default_backend() != "gpu":
    os.environ[pallas_launch.VARIABLE] = "interpret"
  try:
    yield
  finally:
    if before is None:
      os.environ.pop(pallas_launch.VARIABLE, None)
    else:
      os.environ[pallas_launch.VARIABLE] = before


def check(small: bool, late) -> list[tuple[str, bool, str]]:
  """All comparisons; `late()` says that no other may start."""
  rows: list[tuple[str, bool, str]] = []
  with _kernels(small):
    for part in (check_recurrence, check_products):
      rows += part(small)
      _say(rows)
  for name in SMALL if small else CASES:
    if late():
      break
    rows += check_model(name)
    _say(rows)
  return rows


def _say(rows) -> None:
  what, equal, where = rows[-1]
  print(f"{len(rows)} compared, last {what}: {equal}", file=sys.stderr)
  sys.stderr.flush()


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--write", action="store_true", help="record anew")
  parser.add_argument("--small", action="store_true", help="small sizes")
  parser.add_argument("--json", help="also write everything here")
  parser.add_argument(
    "--seconds", type=float, default=480, help="nothing starts after that"
  )
  args = parser.parse_args()
  device = jax.devices()[0]
  on_gpu = jax.default_backend() == "gpu"
  if args.write:
    if jax.default_backend() != "cpu":
      print("error: hashes are recorded on a CPU", file=sys.stderr)
      return 2
    write()
    return 0
  start = time.perf_counter()
  late = lambda: time.perf_counter() - start > args.seconds
  where = device.device_kind if on_gpu else f"{device.device_kind}, no GPU"
  print(f"running on {jax.default_backend()} ({where})")
  if not on_gpu:
    how = "interpreted" if args.small else "not run: XLA's forms are"
    print(f"this is no GPU: its kernels are {how}, speeds are the CPU's")
  rows = check(args.small, late)
  speeds, left_out = gpu_speed.measure(args.small, late)
  wanted = SMALL if args.small else CASES
  names = {what.split(":")[0] for what, _, _ in rows}
  left_out = [n for n in wanted if n not in names] + left_out
  people = tables.console()
  columns = ("what", "equal", "what differs")
  shown = [(w, "yes" if e else "NO", "" if e else d) for w, e, d in rows]
  people.print(tables.table("Integers", columns, shown))
  columns = ("what", ">value", "unit", "label")
  people.print(tables.table(f"Speed on {where}", columns, speeds))
  for name in left_out:
    print(f"left out, no time: {name}")
  wrong = [what for what, equal, _ in rows if not equal]
  verdict = f"{len(wrong)} of {len(rows)} comparisons differ: {wrong[:4]}"
  if not wrong:
    verdict = f"every integer equal ({len(rows)} comparisons)"
  print(verdict)
  files.write_json(
    args.json,
    {
      "device": device.device_kind,
      "backend": jax.default_backend(),
      "equal": not wrong,
      "compared": [dict(zip(("what", "equal", "where"), r)) for r in rows],
      "speed": [
        dict(zip(("what", "value", "unit", "label"), r)) for r in speeds
      ],
      "left_out": left_out,
      "seconds": time.perf_counter() - start,
      "versions": provenance.versions(),
    },
  )
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
