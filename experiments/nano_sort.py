"""A transformer that sorts, converted to spikes.

Claim: minGPT's `gpt-nano`, trained to sort six symbols (GPT-2 blocks with
LayerNorm, tanh-GELU, learned positions; 3 layers, 48 wide), still sorts at
least 195 of 200 random inputs after its feed-forward blocks gave way to counts
of spikes over 16 ticks, without training; attention stays as it is.  Beside it:
2, 4 and 8 ticks, and attention as spikes too, which no conversion makes an
equal of softmax: as converted, and after some steps on attention alone.

  python experiments/nano_sort.py --checkpoint gpt-nano-sort-model.json
  python experiments/nano_sort.py --checkpoint gpt-nano-sort-model.json \
    --ticks 2,4,8,16,32 --mlp_top maximum
  python experiments/nano_sort.py --smoke

The checkpoint is `gpt-nano-sort-model.json`, minGPT's tensors as JSON.  Inputs
are those of the model's own test; calibration draws others, but there are only
729 inputs, so most of the 200 are in both.  Training leaves them out.
The exit status is 1 if the claim does not hold.  `--smoke` takes a tiny model
with random weights, which sorts nothing, and claims nothing.
"""

import pathlib
import sys
import time
from typing import Any

import integers
import jax
import kept
import numpy as np
import on_chip
import optax
import script
from absl import flags

import jaxnmc as nmc
from jaxnmc.errors import CheckpointError, UserError
from jaxnmc.evaluate import provenance
from jaxnmc.models import gpt
from jaxnmc.models.generate import generate
from jaxnmc.models.to_spikes import Recipe, convert
from jaxnmc.ops.transform import reference
from jaxnmc.report import files, tables
from jaxnmc.train import schedules
from jaxnmc.train.step import adamw

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# The reader of the checkpoint is no part of the package.
sys.path.append(str(_ROOT))

from tools import mingpt  # noqa: E402

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "JSON of minGPT's tensors."
)
_TICKS = flags.DEFINE_list("ticks", ["2", "4", "8", "16"], "Ticks to try.")
_TOP = flags.DEFINE_string(
  "mlp_top", "p99.9", "What the largest count stands for: `to_spikes.Recipe`."
)
_SHARE = flags.DEFINE_float(
  "share", 90.0, "Percentile of a drive that is two thresholds of attention."
)
_TUNE = flags.DEFINE_integer(
  "tune", 1500, "Steps of training on spiking attention; 0: none.", 0
)
_LR = flags.DEFINE_float("lr", 5e-3, "Peak learning rate of these.")
_CHIP_TICKS = flags.DEFINE_integer(
  "chip_ticks",
  0,
  "Tuned model that sorts in integers and on cores; 0: none.",
  0,
)
_NEURON = flags.DEFINE_enum("neuron", "lif", ["lif", "if"], "Of attention.")
_SIGNED = flags.DEFINE_bool("signed", True, "Spikes of attention: also -1.")
_INPUTS = flags.DEFINE_integer("inputs", 200, "Inputs sorted.", lower_bound=1)
_CALIBRATION = flags.DEFINE_integer(
  "calibration", 512, "Inputs that thresholds are chosen on.", lower_bound=1
)
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny random model.")
_JSON = flags.DEFINE_string("json", None, "Also write the result here.")

_SMOKE_SIZES = {"ticks": ["2"], "inputs": 8, "calibration": 128, "tune": 2}
_SMOKE_SIZES |= {"chip_ticks": 2}
_BATCH = 128
_RANGES = 64  # inputs that formats are chosen on
SYMBOLS, LENGTH = 3, 6
# Of the claim: ticks, and inputs of 200.
AT, LEAST = 16, 195
# What becomes of it: kept; spikes, as converted; spikes, with some training.
ATTENTION = ("softmax", "converted", "tuned")


def _model() -> tuple[gpt.Config, Any]:
  """The checkpoint, or with `--smoke` random weights.

  Raises:
    CheckpointError: no such file.
  """
  if not _SMOKE.value:
    path = pathlib.Path(_CHECKPOINT.value or "--checkpoint")
    if not path.is_file():
      raise CheckpointError(
        f"{path}: no such file; give the checkpoint by --checkpoint, or take"
        " --smoke, which needs none"
      )
    return mingpt.read(path)
  config = gpt.Config(
    vocab_size=SYMBOLS,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    max_position_embeddings=2 * LENGTH - 1,
    norm="layer",
    mlp="gelu_tanh",
    positions="learned",
    bias=True,
    tie_word_embeddings=False,
    initializer_range=0.5,
  )
  return config, gpt.init_params(config, jax.random.key(0))


def calibration(number: int) -> np.ndarray:
  """What the model reads while it sorts, but the last symbol: int[n, 11]."""
  drawn = draw(1, number)
  return np.concatenate([drawn, np.sort(drawn, axis=1)], axis=1)[:, :-1]


def draw(seed: int, number: int) -> np.ndarray:
  """Random inputs, int[n, 6]."""
  return np.random.default_rng(seed).integers(0, SYMBOLS, (number, LENGTH))


def answers(
  config: gpt.Config, params, inputs: np.ndarray, run=None
) -> np.ndarray:
  """Six greedy symbols behind each input, int[n, 6].

  Args:
    config: of the model.
    params: what `run` takes.
    inputs: int[n, 6].
    run: an interpreter of the model; None: `reference`.
  """
  run = reference(gpt.make(config)) if run is None else run
  found = generate(run, params, list(inputs), LENGTH, vocab_size=SYMBOLS)
  return np.stack(found.ids)


def others(inputs: np.ndarray) -> np.ndarray:
  """All inputs there are but these: int[n, 6]."""
  every = np.indices((SYMBOLS,) * LENGTH).reshape(LENGTH, -1).T
  given = set(map(tuple, inputs.tolist()))
  return np.stack([row for row in every if tuple(row.tolist()) not in given])


def tune(config: gpt.Config, params, pool: np.ndarray, steps: int):
  """Parameters after steps on attention alone, towards sorted symbols.

  Args:
    config: of a model whose attention spikes.
    params: its float parameters.
    pool: int[n, 6], inputs to learn.
    steps: of the optimiser, each of 128 of them.
  """
  run = reference(gpt.make(config))
  schedule = schedules.cosine(_LR.value, steps, max(1, steps // 20))
  optimiser = adamw(schedule, weight_decay=0.0, only=r"\.attn\.")

  def loss(params, ids, wanted):
    logits = run(params, {"ids": ids})[0].logits[:, LENGTH - 1 :]
    found = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
    return found.mean()

  @jax.jit
  def step(params, state, ids, wanted):
    slope = jax.grad(loss)(params, ids, wanted)
    change, state = optimiser.update(slope, state, params)
    return optax.apply_updates(params, change), state

  state = optimiser.init(params)
  order = np.random.default_rng(2)
  for _ in range(steps):
    drawn = pool[order.integers(0, len(pool), _BATCH)]
    wanted = np.sort(drawn, axis=1)
    ids = np.concatenate([drawn, wanted], axis=1)[:, :-1]
    params, state = step(params, state, ids, wanted)
  return params


def _score(answers, inputs, dense) -> dict[str, float]:
  right = answers == np.sort(inputs, axis=1)
  return {
    "sorted": int(right.all(1).sum()),
    "symbols_right": float(right.mean()),
    "same_as_dense": int((answers == dense).all(1).sum()),
  }


def spiking(
  config: gpt.Config, params, ids, pool, ticks: int, attention: str
) -> tuple[gpt.Config, Any]:
  """The model with spiking blocks, and attention as `ATTENTION` says.

  Args:
    config: of the dense model.
    params: its parameters.
    ids: int[n, 11], calibration text.
    pool: int[n, 6], inputs to learn.
    ticks: of all neurons.
    attention: one of `ATTENTION`.
  """
  how = Recipe(
    ticks=None if attention == "softmax" else ticks,
    neuron=_NEURON.value,
    signed=_SIGNED.value,
    share=_SHARE.value,
    mlp_ticks=None if attention == "tuned" else ticks,
    mlp_top=_TOP.value,
  )
  config, params = convert(config, params, ids, how)
  if attention != "tuned":
    return config, params
  # Blocks come last: their thresholds are those of what attention gives then.
  params = tune(config, params, pool, _TUNE.value)
  blocks = Recipe(ticks=None, mlp_ticks=ticks, mlp_top=_TOP.value)
  return convert(config, params, ids, blocks)


def on_cores(config, params, ids, inputs, dense) -> dict[str, Any]:
  """Sorts by integers; one input by both engines: are they the same ones?"""
  try:
    made = integers.of(config, params, ids[:_RANGES])
    same = on_chip.same_spikes(made, ids[0])
  except UserError as error:
    return {"ticks": config.ticks, "refused": str(error)}
  found = answers(config, made.qparams, inputs, nmc.fixed(made.fn, made.plan))
  return {"ticks": config.ticks} | _score(found, inputs, dense) | same


def run() -> dict[str, Any]:
  """Converts and sorts; returns what came out, ready for JSON.

  Raises:
    UserError: no tuned model of the ticks asked for the cores.
  """
  chip_ticks = _CHIP_TICKS.value
  tuned = _TICKS.value if _TUNE.value else []
  if chip_ticks and str(chip_ticks) not in tuned:
    raise UserError(
      f"--chip_ticks: found {chip_ticks}; allowed are the ticks of tuned models"
      f" ({', '.join(tuned) or 'none, as --tune is 0'})"
    )
  start = time.perf_counter()
  config, params = _model()
  inputs = draw(0, _INPUTS.value)
  dense = answers(config, params, inputs)
  ids = calibration(_CALIBRATION.value)
  pool = others(inputs)
  rows, chip = [], None
  for ticks in map(int, _TICKS.value):
    for attention in ATTENTION[: 3 if _TUNE.value else 2]:
      kept.say(f"{ticks} ticks, attention: {attention}")
      made = spiking(config, params, ids, pool, ticks, attention)
      score = _score(answers(*made, inputs), inputs, dense)
      rows.append({"ticks": ticks, "attention": attention} | score)
      if ticks == chip_ticks and attention == ATTENTION[-1]:
        kept.say("in integers, and on cores")
        chip = on_cores(*made, ids, inputs, dense)
  enough = {
    row["attention"]: row["sorted"] >= LEAST / 200 * _INPUTS.value
    for row in rows
    if row["ticks"] == AT
  }
  return {
    "experiment": "nano_sort",
    "label": "measured",
    "checkpoint": None
    if _SMOKE.value
    else pathlib.Path(_CHECKPOINT.value).name,
    "tune": _TUNE.value,
    "lr": _LR.value,
    "weights_sha256": provenance.params_sha256(params),
    "parameters": config.num_params,
    "inputs": _INPUTS.value,
    "calibration": _CALIBRATION.value,
    "mlp_top": _TOP.value,
    "share": _SHARE.value,
    "neuron": _NEURON.value,
    "signed": _SIGNED.value,
    "dense": _score(dense, inputs, dense),
    "rows": rows,
    "chip": chip,
    "claim_holds": None if _SMOKE.value else enough.get("softmax"),
    "all_spikes_holds": None if _SMOKE.value else enough.get("tuned"),
    "versions": provenance.versions(),
    "seconds": round(time.perf_counter() - start, 1),
  }


def show(data: dict[str, Any]) -> None:
  """The table, and the verdict."""
  people = tables.console()
  cells = lambda row: (
    row["sorted"],
    f"{100 * row['symbols_right']:.1f}",
    row["same_as_dense"],
  )
  body = [("none", "softmax", *cells(data["dense"]))]
  for row in data["rows"]:
    body.append((str(row["ticks"]), row["attention"], *cells(row)))
  columns = (
    *("ticks", "attention", f">sorted of {data['inputs']}"),
    *(">symbols right, %", ">as the dense model"),
  )
  people.print(tables.table("Blocks as converted (measured)", columns, body))
  verdict = {
    True: f"at {AT} ticks at least {LEAST} of 200 are sorted: holds",
    False: f"at {AT} ticks at least {LEAST} of 200 are sorted: does not hold",
    None: f"nothing is claimed: random weights, or no run at {AT} ticks",
  }
  people.print(verdict[data["claim_holds"]], markup=False)
  if data["chip"] is not None:
    chip = data["chip"]
    if "refused" in chip:
      print(f"{chip['ticks']} ticks, in integers: {chip['refused']}")
    else:
      print(f"{chip['ticks']} ticks, in integers: {chip['sorted']} sorted")
      on_chip.show(chip)
  if data["all_spikes_holds"] is not None:
    people.print(
      "everything spikes, attention tuned:"
      f" {verdict[data['all_spikes_holds']]}",
      markup=False,
    )


def main() -> int:
  """Runs the script."""
  data = run()
  show(data)
  files.write_json(_JSON.value, data)
  return 1 if data["claim_holds"] is False else 0


if __name__ == "__main__":
  script.start(main, _SMOKE_SIZES)
