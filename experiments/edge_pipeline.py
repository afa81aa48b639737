"""From a laptop model to an edge chip: every step of the workflow, measured.

Claims: a practitioner's article takes a language model of 7 million parameters
that understands commands to Loihi 2 by pruning, 8-bit weights, spikes, mapping,
profiling and tuning on the chip, at 9 ms, 45 uJ and 0.5 of perplexity.  This is
that workflow on a real model and real commands; what the article's numbers come
to is in the table at the end and in docs/edge.md.

  python experiments/edge_pipeline.py --smoke --workdir /tmp/edge
  python experiments/edge_pipeline.py --labelled nlu_eval_train.jsonl \
    --more snips_train.jsonl.gz,clinc150_train.jsonl --general wiki.txt.gz \
    --new clinc150_train.jsonl --new_test clinc150_valid.jsonl \
    --new_intents smart_home,find_phone --workdir runs/edge --json edge.json

A stage that is done is not done again: the same command goes on with a run that
was stopped, and refuses a folder that was made with other settings.
"""

import dataclasses
import pathlib

import script
from absl import flags
from edge import (
  chip,
  claims,
  commands,
  floats,
  formats,
  made_up,
  measure,
  personal,
  reading,
  show,
  spikes,
  words,
)
from edge.bench import Bench, Options
from edge.stages import Run

from jaxnmc.errors import UserError
from jaxnmc.evaluate import provenance
from jaxnmc.io.tokenizer import BPETokenizer
from jaxnmc.report import files

_LABELLED = flags.DEFINE_string("labelled", None, "Commands with intents.")
_MORE = flags.DEFINE_list("more", [], "Commands or phrases: their text only.")
_GENERAL = flags.DEFINE_list("general", [], "Other text.")
_NEW = flags.DEFINE_string("new", None, "Commands to learn on the chip.")
_NEW_TEST = flags.DEFINE_string("new_test", None, "Such commands to test on.")
_NEW_INTENTS = flags.DEFINE_list("new_intents", [], "Which of them are new.")
_MOST_MORE = flags.DEFINE_integer("most_more", 4000, "Texts of each --more.")
_MOST_GENERAL = flags.DEFINE_integer("most_general", 200_000, "Bytes of each.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the choice of texts.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
_PLOT = flags.DEFINE_string("plot", None, "Folder for plots.")
_SMOKE = flags.DEFINE_bool("smoke", False, "On commands made on the spot.")
flags.mark_flag_as_required("workdir")
_DEFINE = {
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}
_OPTIONS = {
  field.name: _DEFINE[type(field.default)](
    field.name, field.default, field.metadata["help"]
  )
  for field in dataclasses.fields(Options)
}
_SMALL = {"vocab": 400, "hidden": 32, "layers": 2, "heads": 4, "steps": 120}
_SMALL |= {"recover": 20, "tune": 40, "ticks": 2, "levels": 3, "asked": 1}
_SMALL |= {"calibration": 8, "examples": 60, "most_tested": 48, "rehearse": 2}
_SMALL |= {"mlp_top": "maximum", "passes": 0, "try_ticks": ""}
_SMALL |= {"try_ids": "2,8", "lr": 2e-2, "try_steps": 10}
_CONTEXT = 64


def _corpus() -> commands.Corpus:
  """Commands made up, or of files.

  Raises:
    UserError: a file is missing, or flags that need each other.
  """
  if _SMOKE.value:
    return made_up.corpus()
  if _LABELLED.value is None:
    raise UserError("--labelled: name a file of commands with intents")
  new = [_NEW.value, _NEW_TEST.value, _NEW_INTENTS.value]
  if any(new) and not all(new):
    raise UserError("--new, --new_test and --new_intents: give all, or none")
  return commands.read_corpus(
    _LABELLED.value,
    *(_MORE.value, _GENERAL.value),
    (_NEW.value, _NEW_TEST.value) if _NEW.value else None,
    *(_NEW_INTENTS.value, _MOST_MORE.value, _MOST_GENERAL.value, _SEED.value),
  )


def _bench() -> Bench:
  """Commands and tokenizer; the folder has the latter from the first run on."""
  options = Options(**{name: flag.value for name, flag in _OPTIONS.items()})
  corpus = _corpus()
  folder = pathlib.Path(_WORKDIR.value)
  files.make_folder(str(folder))
  kept = folder / "tokenizer.npz"
  # A folder without a first stage may have one of other flags.
  if kept.exists() and any(folder.glob("01-*")):
    tokenizer = BPETokenizer.load(kept)
  else:
    documents = corpus.documents()
    tokenizer = BPETokenizer.train(documents, options.vocab, corpus.labels)
    tokenizer.save(kept)
  judge = measure.Judge.of(
    *(corpus, tokenizer, _CONTEXT, options.calibration, options.most_tested)
  )
  total = len(STAGES) - (not corpus.new)
  return Bench(options, corpus, tokenizer, judge, Run(folder, total))


STAGES = ("baseline", "prune", "quantise", "spikes", "thresholds", "cores")
STAGES += ("reading", "claims", "vocabulary", "learning")


def run() -> dict:
  """All stages; returns what they found, ready for JSON."""
  bench = _bench()
  asked = dataclasses.asdict(bench.options)
  some = lambda *names: {name: asked[name] for name in names}
  stage = bench.run.stage
  data = {"labelled": _LABELLED.value, "more": _MORE.value}
  data |= {"general": _GENERAL.value, "new_intents": _NEW_INTENTS.value}
  data |= some(
    "vocab", "hidden", "layers", "heads", "steps", "lr", "calibration"
  )
  data |= {"most_more": _MOST_MORE.value, "most_general": _MOST_GENERAL.value}
  data |= some("most_tested") | {"smoke": _SMOKE.value, "seed": _SEED.value}
  stage("baseline", data, lambda place: floats.baseline(bench, place))
  stage(
    "prune",
    some("prune_heads", "prune_units", "recover"),
    lambda place: floats.prune(bench, "baseline", place),
  )
  stage("quantise", {}, lambda place: formats.quantise(bench, "prune", place))
  stage(
    "spikes",
    some("ticks", "levels", "tune", "mlp_top"),
    lambda place: spikes.convert(bench, "prune", "baseline", place),
  )
  stage(
    "thresholds",
    some("budget", "passes"),
    lambda place: spikes.thresholds(bench, "spikes", "prune", place),
  )
  stage("cores", some("asked"), lambda place: chip.figures(bench, "thresholds"))
  stage("reading", {}, lambda place: reading.figures(bench, "thresholds"))
  stage(
    "claims",
    some("try_ticks", "try_steps", "try_ids"),
    lambda place: claims.figures(bench, "thresholds", place),
  )
  stage("vocabulary", {}, lambda place: words.figures(bench))
  if bench.corpus.new:
    stage(
      "learning",
      some("examples", "rehearse")
      | {"new": _NEW.value, "new_test": _NEW_TEST.value},
      lambda place: personal.learn(bench, "thresholds", place),
    )
  return bench.run.results | {
    "versions": provenance.versions(),
    "commit": provenance.commit(),
  }


def main() -> None:
  """Runs the study."""
  script.study(run, show.tables_of, _JSON.value, _PLOT.value, show.plot)


if __name__ == "__main__":
  script.start(main, _SMALL)
