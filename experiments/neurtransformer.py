"""NeurTransformer's recipe on a transformer of ours: convert, tune, measure.

Claims (Balaji et al. 2025, arXiv 2510.00133, abstract): softmax attention
gives way to spiking attention, feed-forward blocks are converted, and only the
attention is fine-tuned; hidden states lose 5 to 12 % of cosine similarity,
"a 9.7 % reduction in perplexity" (both readings are shown), and the spiking
attention block saves 64.71 to 85.28 % of the estimated energy.

  python experiments/neurtransformer.py --model wikitext-gpt \
    --train train.txt.gz --text test=test.txt --workdir runs/neurt \
    --plot plots

Comes out: for each number of ticks the model as converted (blocks alone,
attention alone); the one whose attention was fine-tuned, with and without
spiking blocks (n levels are n ticks of a unary code, or log2(n + 1) of a binary
one); and a control, the dense model with the same steps on its own attention:
perplexity (signed change from the teacher, 95 %), token agreement with the
teacher, cosine of hidden states and logits, spike rates; energy of the core by
the convention the paper must have used, with memory, and against a bit-matched
quantised form. The same command goes on with a run that was stopped.
"""

import dataclasses
import pathlib

import integers
import on_chip
import script
from absl import flags
from neurt import energies, show
from neurt.study import SMALL, begin, settings

from jaxnmc.evaluate import provenance

_MODEL = flags.DEFINE_string("model", "wikitext-gpt", "What `load` takes.")
_SWEEP = flags.DEFINE_list("sweep", ["2", "4", "8", "16"], "Ticks, untrained.")
_LEVELS = flags.DEFINE_list(
  "levels", ["8", "15", "31"], "Counts of the blocks behind tuned attention."
)
_CHIP_IDS = flags.DEFINE_integer(
  "chip_ids", 0, "Ids that the cores read, integer for integer; 0: none.", 0
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.")
_PLOT = flags.DEFINE_string("plot", None, "Folder for the plot.")
_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
flags.mark_flag_as_required("workdir")

_SMALL = SMALL | {"sweep": ["2"], "levels": ["3"], "chip_ids": 6}


def run() -> dict:
  """Does it all; returns what came out, ready for JSON."""
  study = begin(_MODEL.value, pathlib.Path(_WORKDIR.value))
  model, how = study.model, study.recipe()
  ticks = how.ticks
  rows = [study.row("teacher", model.config, model.params)]
  for sweep in map(int, _SWEEP.value):
    rows += [
      study.row(
        f"blocks, {sweep} ticks",
        *study.convert(study.recipe(ticks=None, mlp_ticks=sweep)),
      ),
      study.row(
        f"attention, {sweep} ticks", *study.convert(study.recipe(ticks=sweep))
      ),
    ]
  config, start = study.convert(how)
  tuned = study.tune("spiking", config, start)
  rows.append(study.row(f"attention, {ticks} ticks, tuned", config, tuned))
  rates = {k: rows[-1]["rates"][k] for k in "qkv"}
  for levels in map(int, _LEVELS.value):
    last = made = study.blocks(config, tuned, levels)
    rows.append(study.row(f"and blocks, {levels} levels", *made))
  control = study.control()
  rows.append(study.row("control: dense, tuned", model.config, control))
  chip = None
  if _CHIP_IDS.value:
    text_ids = max(study.judge.documents, key=len)[: _CHIP_IDS.value]
    made = integers.of(*last, study.calibration[:4])
    chip = on_chip.same_spikes(made, text_ids)
  return {
    "model": model.name,
    "parameters": model.config.num_params,
    "text": study.text_name,
    "settings": settings(),
    "recipe": dataclasses.asdict(how),
    "rows": rows,
    "energy": energies.core(config, model.config.context, ticks, rates),
    "curves": energies.curves(config),
    "chip": chip,
    "inverted": energies.inverted(),
    "versions": provenance.versions(),
    "commit": provenance.commit(),
  }


def main() -> None:
  """Runs the study."""
  script.study(run, show.tables_of, _JSON.value, _PLOT.value, show.plot)


if __name__ == "__main__":
  script.start(main, _SMALL)
