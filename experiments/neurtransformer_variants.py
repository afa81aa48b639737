"""NeurTransformer's recipe over sizes, ticks, neurons, surrogates and seeds.

Claims (Balaji et al. 2025, arXiv 2510.00133): three sizes of one model keep
their quality, and "degradation beyond an acceptable threshold" comes above 300
million parameters; the attention saves 64.71 to 85.28 % of the energy.  Asked
beside them: what more ticks buy and cost, and how much a surrogate, a neuron
or a seed matter.

  python experiments/neurtransformer_variants.py --models small,medium,large \
    --train train.txt.gz --text test=test.txt --steps 600 \
    --vary ticks=2,8,16 --vary surrogate=sigmoid,boxcar --vary neuron=if \
    --vary signed=false --vary seed=1,2 --workdir runs/variants --plot plots

Comes out: for each model, and for each variant of the first one, the model with
tuned attention, and the same with spiking blocks: perplexity (signed change
from its teacher), token agreement, cosine of hidden states, spike rates, energy
of the attention core; and for each model a control, itself with the same steps
on its own attention.  A variant that is done is not done again.
"""

import dataclasses
import pathlib
from typing import Any

import kept
import script
from absl import flags
from neurt import energies, variants
from neurt.study import SMALL, Study, begin, settings

from jaxnmc.evaluate import provenance
from jaxnmc.report import files

_MODELS = flags.DEFINE_list("models", ["wikitext-gpt"], "What `load` takes.")
_VARY = flags.DEFINE_multi_string(
  "vary", [], "FIELD=A,B of the recipe, or seed=A,B, on the first model."
)
_LEVELS = flags.DEFINE_integer("levels", 31, "Counts of spiking blocks.", 1)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.")
_PLOT = flags.DEFINE_string("plot", None, "Folder for the plot.")
_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
flags.mark_flag_as_required("workdir")

_SMALL = SMALL | {"models": ["tiny"], "levels": 3}
_SMALL |= {"vary": ["ticks=1", "surrogate=boxcar", "seed=1"]}
_BASE = "as it is"


def measured(
  study: Study, place: pathlib.Path, changes: dict[str, Any], control: bool
) -> dict[str, Any]:
  """Trains one variant and measures it.

  Args:
    study: of the model.
    place: folder of the variant.
    changes: fields of the recipe, and "seed".
    control: also train the model itself.

  Returns:
    "attention" and "all" (with spiking blocks), rows of `Study.row`; "energy"
    of the core; "control", a row or None; ready for JSON.
  """
  study = dataclasses.replace(study, folder=place)
  fields = dict(changes)
  seed = fields.pop("seed", 0)
  config, start = study.convert(study.recipe(**fields))
  tuned = study.tune("spiking", config, start, seed)
  attention = study.row("attention", config, tuned)
  blocks = study.blocks(config, tuned, _LEVELS.value)
  rates = {name: attention["rates"][name] for name in "qkv"}
  context = study.model.config.context
  found = {
    "model": study.model.name,
    "commit": provenance.commit(),
    "versions": provenance.versions(),
    "parameters": study.model.config.num_params,
    "attention": attention,
    "all": study.row("with blocks", *blocks),
    "energy": energies.core(config, context, config.ticks, rates),
    "control": None,
  }
  if control:
    dense = study.model.config, study.control()
    found["control"] = study.row("control", *dense)
  return found


def run() -> dict[str, Any]:
  """Does it all; returns what came out, ready for JSON."""
  folder = pathlib.Path(_WORKDIR.value)
  varied = variants.parse(_VARY.value)
  files.make_folder(str(folder))
  total = len(_MODELS.value) + len(varied)
  asked = settings() | {"levels": _LEVELS.value}
  rows: list[dict[str, Any]] = []

  def add(study, index: int, name: str, changes: dict[str, Any]) -> None:
    label = f"{_MODELS.value[index]}, {name}"
    place = folder / f"{index}-{name.replace(' ', '-')}"
    work = lambda place: measured(study, place, changes, not changes)
    head = f"[{len(rows) + 1}/{total}] {label}"
    given = asked | {
      "models": _MODELS.value[index],
      "weights_sha256": provenance.params_sha256(study.model.params),
      "vary": changes,
    }
    found = kept.once(place, given, work, head)
    rows.append(found | {"variant": name, "changes": changes})

  for index, model in enumerate(_MODELS.value):
    study = begin(model, folder)
    add(study, index, _BASE, {})
    for name, changes in varied if index == 0 else []:
      add(study, index, name, changes)
  return {
    "settings": asked,
    "rows": rows,
  }


def main() -> None:
  """Runs the study."""
  script.study(run, variants.tables_of, _JSON.value, _PLOT.value, variants.plot)


if __name__ == "__main__":
  script.start(main, _SMALL)
