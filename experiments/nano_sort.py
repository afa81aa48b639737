"""A transformer that sorts, converted to spikes without training.

Claim: minGPT's `gpt-nano`, trained to sort six symbols (GPT-2 blocks with
LayerNorm, tanh-GELU, learned positions; 3 layers, 48 wide), still sorts at
least 195 of 200 random inputs after its feed-forward blocks gave way to counts
of spikes over 16 ticks; attention stays as it is.  Beside it: 2, 4 and 8 ticks,
and the same with attention as spikes too, which no conversion makes an equal of
softmax without training.

  python experiments/nano_sort.py --checkpoint gpt-nano-sort-model.json
  python experiments/nano_sort.py --checkpoint gpt-nano-sort-model.json \
    --ticks 2,4,8,16,32 --mlp_top maximum
  python experiments/nano_sort.py --smoke

The checkpoint is `gpt-nano-sort-model.json`, minGPT's tensors as JSON.  Inputs
are those of the model's own test; calibration draws others, but there are only
729 inputs, so most of the 200 are in both.
The exit status is 1 if the claim does not hold.  `--smoke` takes a tiny model
with random weights, which sorts nothing, and claims nothing.
"""

import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
import script
from absl import flags

from jaxnmc.errors import CheckpointError
from jaxnmc.evaluate import provenance
from jaxnmc.models import gpt
from jaxnmc.models.generate import generate
from jaxnmc.models.to_spikes import Recipe, convert
from jaxnmc.ops.transform import reference
from jaxnmc.report import files, tables

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
_NEURON = flags.DEFINE_enum("neuron", "lif", ["lif", "if"], "Of attention.")
_SIGNED = flags.DEFINE_bool("signed", True, "Spikes of attention: also -1.")
_INPUTS = flags.DEFINE_integer("inputs", 200, "Inputs sorted.", lower_bound=1)
_CALIBRATION = flags.DEFINE_integer(
  "calibration", 512, "Inputs that thresholds are chosen on.", lower_bound=1
)
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny random model.")
_JSON = flags.DEFINE_string("json", None, "Also write the result here.")

_SMOKE_SIZES = {"ticks": ["2"], "inputs": 8, "calibration": 128}
SYMBOLS, LENGTH = 3, 6
# Of the claim: ticks, and inputs of 200.
AT, LEAST = 16, 195


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
    initializer_range=0.5,
  )
  return config, gpt.init_params(config, jax.random.key(0))


def _say(text: str) -> None:
  """One line of progress."""
  print(text, file=sys.stderr, flush=True)


def calibration(number: int) -> np.ndarray:
  """What the model reads while it sorts, but the last symbol: int[n, 11]."""
  drawn = draw(1, number)
  return np.concatenate([drawn, np.sort(drawn, axis=1)], axis=1)[:, :-1]


def draw(seed: int, number: int) -> np.ndarray:
  """Random inputs, int[n, 6]."""
  return np.random.default_rng(seed).integers(0, SYMBOLS, (number, LENGTH))


def answers(config: gpt.Config, params, inputs: np.ndarray) -> np.ndarray:
  """Six greedy symbols behind each input, int[n, 6]."""
  run = reference(gpt.make(config))
  found = generate(run, params, list(inputs), LENGTH, vocab_size=SYMBOLS)
  return np.stack(found.ids)


def _score(answers, inputs, dense) -> dict[str, float]:
  right = answers == np.sort(inputs, axis=1)
  return {
    "sorted": int(right.all(1).sum()),
    "symbols_right": float(right.mean()),
    "same_as_dense": int((answers == dense).all(1).sum()),
  }


def run() -> dict[str, Any]:
  """Converts and sorts; returns what came out, ready for JSON."""
  start = time.perf_counter()
  config, params = _model()
  inputs = draw(0, _INPUTS.value)
  dense = answers(config, params, inputs)
  ids = calibration(_CALIBRATION.value)
  rows = []
  for ticks in map(int, _TICKS.value):
    for attention in (False, True):
      how = Recipe(
        ticks=ticks if attention else None,
        neuron=_NEURON.value,
        signed=_SIGNED.value,
        share=_SHARE.value,
        mlp_ticks=ticks,
        mlp_top=_TOP.value,
      )
      kept = "spikes" if attention else "softmax"
      _say(f"{ticks} ticks, attention {kept}")
      made = convert(config, params, ids, how)
      given = answers(*made, inputs)
      rows.append(
        {"ticks": ticks, "attention_spikes": attention}
        | _score(given, inputs, dense)
      )
  claimed = next(
    (
      row["sorted"] >= LEAST / 200 * _INPUTS.value
      for row in rows
      if row["ticks"] == AT and not row["attention_spikes"]
    ),
    None,
  )
  return {
    "experiment": "nano_sort",
    "label": "measured",
    "checkpoint": None
    if _SMOKE.value
    else pathlib.Path(_CHECKPOINT.value).name,
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
    "claim_holds": None if _SMOKE.value else claimed,
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
    attention = "spikes" if row["attention_spikes"] else "softmax"
    body.append((str(row["ticks"]), attention, *cells(row)))
  columns = (
    *("ticks", "attention", f">sorted of {data['inputs']}"),
    *(">symbols right, %", ">as the dense model"),
  )
  people.print(tables.table("Converted, not trained (measured)", columns, body))
  verdict = {
    True: f"at {AT} ticks at least {LEAST} of 200 are sorted: holds",
    False: f"at {AT} ticks at least {LEAST} of 200 are sorted: does not hold",
    None: f"nothing is claimed: random weights, or no run at {AT} ticks",
  }
  people.print(verdict[data["claim_holds"]], markup=False)


def main() -> int:
  """Runs the script."""
  data = run()
  show(data)
  files.write_json(_JSON.value, data)
  return 1 if data["claim_holds"] is False else 0


if __name__ == "__main__":
  script.start(main, _SMOKE_SIZES)
