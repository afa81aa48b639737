"""What number formats cost: every row of the paper's Table 1 on our models.

Claims (Abreu et al. 2025, Table 1, a 370M MatMul-free model on six tasks):
8-bit gains cost 0.2 % of accuracy, 16-bit activations nothing (+0.9 %), 8-bit
activations 2.0 %, both 8-bit 2.9 %, and 10.7 % with eps 1e-3; W8A16 costs
nothing, with either eps. Matrices have 35.4 +- 2.5 % zeros, and products
multiply nothing.

  python experiments/table1_formats.py --text stories=valid.txt \
    --tasks zero-shot --limit 100 --workdir out --json out/table1.json

Comes out: for each row perplexity on the texts (its change from the baseline
paired by document, with a 95 % interval), agreement of the likeliest token with
the baseline and KL divergence from it, accuracy on each task with its interval
and the level of chance; what `fixed` says to rows that have no integers; what
eps 1e-6 becomes with 12 fraction bits; how close `fake_quant` in float32 is to
the integers; a census of operations. Figures of the paper are quoted beside.
Small models are near chance on the tasks: perplexity and agreement tell more.
"""

import dataclasses
import pathlib
import sys
import time

import jax
import numpy as np
import script
from absl import flags
from smoke_model import STORIES, tiny
from table1 import quoted, rows, show

import jaxnmc as nmc
from jaxnmc.errors import UserError
from jaxnmc.evaluate import bits, choices, closeness, provenance, tasks, text
from jaxnmc.evaluate.subject import Subject
from jaxnmc.models.model import Model
from jaxnmc.report import backends, census, plots

_MODEL = flags.DEFINE_string("model", "stories-mmf", "What `load` takes.")
_TEXT = flags.DEFINE_multi_string("text", [], "NAME=FILE to predict.")
_CALIBRATE = flags.DEFINE_string(
  "calibrate", None, "Text to choose formats on."
)
_TASKS = flags.DEFINE_string(
  "tasks", None, "Folder of task files (JSON lines)."
)
_LIMIT = flags.DEFINE_integer("limit", None, "First items of each task.", 1)
_DOCUMENTS = flags.DEFINE_integer("documents", 64, "First of each text.", 1)
_MAX_IDS = flags.DEFINE_integer(
  "max_ids", 512, "Ids of a document; longer ones are cut into several.", 1
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the plot.")
_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny model.")


def _tiny_task() -> tasks.Task:
  """Two items: which story goes on."""
  first, second, third = STORIES
  items = (
    tasks.Item("a", first[:20], (first[20:], second[20:]), 0),
    tasks.Item("b", third[:9], (second[:20], third[9:]), 1),
  )
  return tasks.Task("tiny", "-", "plain", "-", items)


class Study:
  """A model, texts and tasks.

  Args:
    model: what `jaxnmc.load` returned.
    texts: name -> ids of its documents.
    sets: tasks.
    calibration: texts to choose formats on, or None for built-in sentences.
  """

  def __init__(self, model: Model, texts, sets, calibration):
    self.model, self.texts, self.sets = model, texts, sets
    self.bos = backends.begin_id(model)
    batches = backends.calibration_batches(model, calibration)
    measure = nmc.calibrate(model.fn, histograms=True)
    self.stats = measure(model.params, batches)
    self.base = rows.ready(rows.paper_rows()[0], model, self.stats)[:2]

  def row(self, row: rows.Row) -> dict:
    """What one row comes to; {"refused": why} where it cannot be."""
    found = {"row": row.name, "backend": row.backend, "quoted": row.quoted}
    try:
      run, params, plan = rows.ready(row, self.model, self.stats)
      texts = {n: self._text(run, params, d) for n, d in self.texts.items()}
      if row.backend == "fixed":
        for name, found_there in texts.items():
          found_there["float32"] = self._floats(run, params, plan, name)
    except UserError as error:
      return found | {"refused": str(error)}
    accuracy = self._accuracy(jax.jit(run), params)
    return found | {
      "plan_sha256": plan.fingerprint,
      "texts": texts,
      "tasks": accuracy,
    }

  def _text(self, run, params, documents) -> dict:
    close = closeness.compare(self.base, (run, params), documents, bos=self.bos)
    plain = dataclasses.asdict
    return {
      "ids": int(close.ids.sum()),
      "documents": len(close.ids),
      "perplexity": close.perplexity,
      "loss": plain(close.loss),
      "agreement": plain(close.agreement),
      "kl": plain(close.divergence),
    }

  def _floats(self, run, qparams, plan, name: str) -> dict:
    """How close `fake_quant` in float32 is to the integers of `fixed`."""
    floats = nmc.fake_quant(self.model.fn, plan), self.model.params
    documents = self.texts[name]
    close = closeness.compare((run, qparams), floats, documents, bos=self.bos)
    return {
      "loss": dataclasses.asdict(close.loss),
      "agreement": dataclasses.asdict(close.agreement),
    }

  def _accuracy(self, run, params) -> dict:
    model, tokenizer = self.model, self.model.tokenizer
    subject = Subject(run, params, tokenizer, model.config.vocab_size, self.bos)
    likelihood = subject.likelihood()
    found = {}
    for task in self.sets:
      answers = choices.answer(likelihood, tokenizer, task)
      made = choices.result(task, answers)
      found[task.name] = {
        "items": made.acc.count,
        "acc": made.acc.value,
        "acc_interval": made.acc.interval,
        "acc_norm": made.acc_norm.value,
        "acc_norm_interval": made.acc_norm.interval,
        "chance": made.chance,
      }
    return found


def _documents(model: Model, path: str) -> list[np.ndarray]:
  """Ids of the first documents of a file, cut to `--max_ids` each."""
  return bits.first_pieces(
    model.tokenizer,
    text.read_documents([path]),
    model.config.vocab_size,
    most=_DOCUMENTS.value,
    max_ids=_MAX_IDS.value,
  )


def _study() -> Study:
  """The study that the flags ask for."""
  if _SMOKE.value:
    model = tiny()
    ids = [np.asarray(model.tokenizer.encode(t), np.int32) for t in STORIES]
    return Study(model, {"stories": ids}, [_tiny_task()], STORIES)
  model = nmc.load(_MODEL.value)
  backends.need_tokenizer(model)
  if not _TEXT.value:
    raise UserError("--text: name at least one text, as NAME=FILE")
  files_of = map(text.named, _TEXT.value)
  texts = {name: _documents(model, path) for name, path in files_of}
  sets = []
  if _TASKS.value is not None:
    paths = sorted(pathlib.Path(_TASKS.value).glob("*.jsonl"))
    if not paths:
      raise UserError(f"--tasks {_TASKS.value}: found no *.jsonl file there")
    for path in paths:
      task = tasks.read(str(path))
      sets.append(task._replace(items=task.items[: _LIMIT.value]))
  calibration = None
  if _CALIBRATE.value is not None:
    calibration = text.read_documents([_CALIBRATE.value])[:64]
  return Study(model, texts, sets, calibration)


def _census(study: Study) -> dict:
  """Operations per token; {"refused": why} of a model without integers."""
  try:
    graph = rows.recorded(study.model, study.stats, nmc.quantize.W8A16)
  except UserError as error:
    return {"refused": str(error)}
  return dataclasses.asdict(census.census(graph))


def run() -> dict:
  """Does it all; returns what came out, ready for JSON."""
  study = _study()
  model = study.model
  wanted = [*rows.paper_rows(), *rows.chip_rows(), *rows.own_rows()]
  if _SMOKE.value:
    wanted = [wanted[0], wanted[5], rows.chip_rows()[1]]
  found, start = [], time.perf_counter()
  for k, row in enumerate(wanted):
    seconds = time.perf_counter() - start
    left = "" if not k else f", about {seconds / k * (len(wanted) - k):.0f} s"
    say = f"[{seconds:7.1f} s] {row.name} ({k + 1}/{len(wanted)}{left})"
    print(say, file=sys.stderr, flush=True)
    found.append(study.row(row))
  return {
    "model": model.name,
    "rows": found,
    "refusals": rows.refusals(rows.paper_rows(), model, study.stats),
    "underflow": rows.underflow(model, study.stats),
    "census": _census(study),
    "quoted": {k: list(v) for k, v in quoted.TABLE1.items()},
    "limit": _LIMIT.value,
    "weights_sha256": provenance.params_sha256(model.params),
    "versions": provenance.versions(),
    "commit": provenance.commit(),
  }


def _plot(data, folder: str):
  return plots.save({"table1_formats": show.plot(data)}, folder)


def main() -> None:
  """Runs the study."""
  script.study(run, show.show, _JSON.value, _WORKDIR.value, _plot)


if __name__ == "__main__":
  script.start(main)
