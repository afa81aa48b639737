"""Training under the formats wins back what 8-bit activations lose.

Claims: of the perplexity that W8A8 loses (integers at every site, ranges chosen
after training), a few hundred steps of training under these very formats
(`fake_quant`, straight-through gradients) win back most; the same steps in
float, quantised afterwards, do not.

  python experiments/recover_w8a8.py --model stories-mmf --train train.txt \
    --text valid=valid.txt --steps 300 --workdir runs/recover

Comes out: perplexity of the integers (`fixed`) under W8A8 before and after, of
the float model with the same steps (the control), and that one under W8A8
chosen anew, with 95 % intervals paired by document; in --workdir the two runs
with their logs. The same command goes on with a run that was stopped.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import script
from absl import flags
from smoke_model import STORIES, tiny

import jaxnmc as nmc
from jaxnmc.errors import UserError
from jaxnmc.evaluate import bits, closeness, provenance, text
from jaxnmc.models import families
from jaxnmc.report import backends, tables
from jaxnmc.train import data, export, loop, qat

_MODEL = flags.DEFINE_string("model", "stories-mmf", "What `load` takes.")
_TRAIN = flags.DEFINE_list("train", [], "Training text files (.gz allowed).")
_TEXT = flags.DEFINE_multi_string("text", [], "NAME=FILE to predict.")
_STEPS = flags.DEFINE_integer("steps", 300, "Steps of each run.", 1)
_LR = flags.DEFINE_float("lr", 1e-3, "Peak learning rate.")
_BATCH = flags.DEFINE_integer("batch", 8, "Windows per step.", 1)
_SEQ = flags.DEFINE_integer("seq", 256, "Ids per window.", 2)
_DOCUMENTS = flags.DEFINE_integer("documents", 48, "First of each text.", 1)
_MAX_IDS = flags.DEFINE_integer("max_ids", 512, "Ids of a document.", 1)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of both runs.")
_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny model.")
flags.mark_flag_as_required("workdir")

_PRESET = nmc.quantize.W8A8
_SMALL = {"steps": 4, "batch": 2, "seq": 16}  # of --smoke
_RUNS = ("float", "W8A8")  # what the steps are taken in


class Study:
  """A model, its start, and the texts it is judged on."""

  def __init__(self):
    if _SMOKE.value:
      self.model, self.documents = tiny(), list(STORIES)
      self.texts = {"stories": self._ids(STORIES)}
    else:
      self.model = nmc.load(_MODEL.value)
      backends.need_tokenizer(self.model)
      if not (_TRAIN.value and _TEXT.value):
        raise UserError("--train and --text: name at least one file of each")
      self.documents = text.read_documents(_TRAIN.value)
      self.texts = {
        name: self._ids(text.read_documents([path]))
        for name, path in map(text.named, _TEXT.value)
      }
    self.bos = backends.begin_id(self.model)
    self.start = qat.latents(self.model.params)
    stream = data.pack(self.documents[:64], self.model.tokenizer)
    self.windows = qat.windows(stream, _SEQ.value)
    self.base = nmc.reference(self.model.fn), self.start

  def _ids(self, documents: Sequence[str]) -> list[np.ndarray]:
    """Ids of the first documents, cut to `--max_ids` each."""
    return bits.first_pieces(
      self.model.tokenizer,
      documents,
      self.model.config.vocab_size,
      most=_DOCUMENTS.value,
      max_ids=_MAX_IDS.value,
    )

  def plan(self, params, preset=_PRESET):
    """Formats with the ranges of these parameters on training windows."""
    stats = nmc.calibrate(self.model.fn)(params, self.windows)
    return nmc.plan(stats, preset)

  def train(self, name: str, plan):
    """Parameters after the steps, in float or under a plan."""
    work = pathlib.Path(_WORKDIR.value) / name
    work.mkdir(parents=True, exist_ok=True)
    steps = _STEPS.value
    loop.train(
      fn=self.model.fn,
      init_params=lambda: self.start,
      model_config=families.to_json(self.model.config),
      tokenizer=self.model.tokenizer,
      documents=self.documents,
      # Nothing is chosen by a score: both runs end after the same steps.
      held=[],
      recipe=loop.Recipe(
        steps=steps,
        batch=_BATCH.value,
        seq=_SEQ.value,
        lr=_LR.value,
        warmup=min(20, steps // 4),
      ),
      rhythm=loop.Rhythm(
        checkpoint_every=max(1, steps // 3),
        progress=sys.stderr.isatty(),
      ),
      workdir=str(work),
      plan=plan,
    )
    return export.load(work / "final.npz")[0]

  def row(self, name: str, params, plan=None) -> dict:
    """How far a model is from the start, in integers if it has a plan."""
    if plan is None:
      other = nmc.reference(self.model.fn), params
    else:
      qparams = nmc.quantize_params(params, plan)
      other = nmc.fixed(self.model.fn, plan), qparams
    found = {}
    for text_name, documents in self.texts.items():
      close = closeness.compare(self.base, other, documents, bos=self.bos)
      found[text_name] = {
        "documents": len(close.ids),
        "ids": int(close.ids.sum()),
        "perplexity": close.perplexity,
        "loss": dataclasses.asdict(close.loss),
      }
    plan = None if plan is None else plan.fingerprint
    print(f"{name}: done", file=sys.stderr, flush=True)
    return {"row": name, "plan_sha256": plan, "texts": found}


def run() -> dict:
  """Does it all; returns what came out, ready for JSON."""
  study = Study()
  start, before = study.start, study.plan(study.start)
  wide = study.plan(start, nmc.quantize.W8A16)
  rows = [
    study.row("start, float", start),
    study.row("start, W8A16", start, wide),
    study.row("start, W8A8", start, before),
  ]
  control, found = (
    study.train(name, plan)
    for name, plan in zip(_RUNS, (None, before), strict=True)
  )
  rows += [
    study.row("steps in float", control),
    study.row("steps in float, then W8A8", control, study.plan(control)),
    study.row("steps under W8A8, W8A8", found, before),
  ]
  return {
    "model": study.model.name,
    "steps": _STEPS.value,
    "rows": rows,
    "recovered": {name: _recovered(rows, name) for name in study.texts},
    "versions": provenance.versions(),
    "commit": provenance.commit(),
  }


def _recovered(rows: list[dict], name: str) -> dict[str, float | None]:
  """Shares of the loss (in nats) won back, with and without the control.

  `of_start`: of what W8A8 loses at the start. `of_control`: of what lies
  between the control in float and the control under W8A8.
  """
  nats = {
    row["row"]: float(np.log(row["texts"][name]["perplexity"])) for row in rows
  }
  share = lambda lost, best, now: (lost - now) / (lost - best)
  now = nats["steps under W8A8, W8A8"]
  pairs = {
    "of_start": ("start, W8A8", "start, float"),
    "of_control": ("steps in float, then W8A8", "steps in float"),
  }
  return {
    key: share(nats[lost], nats[best], now) if nats[lost] > nats[best] else None
    for key, (lost, best) in pairs.items()
  }


def show(found: dict) -> None:
  """Prints what came out."""
  people = tables.console()
  for name in found["rows"][0]["texts"]:
    body = []
    for row in found["rows"]:
      one = row["texts"][name]
      spread = one["loss"]["spread"] or 0.0
      change = f"{100 * one['loss']['value']:+.2f} ± {100 * spread:.2f}"
      body.append((row["row"], f"{one['perplexity']:.3f}", change))
    title = (
      f"{found['model']}, {found['steps']} steps, {name}: {one['ids']:,} ids in"
      f" {one['documents']} documents (measured)"
    )
    head = ("model", ">perplexity", ">from the start, %")
    people.print(tables.table(title, head, body))
    shares = {
      k: v for k, v in found["recovered"][name].items() if v is not None
    }
    words = {
      "of_start": "of the start's loss",
      "of_control": "of the control's",
    }
    said = ", ".join(f"{100 * v:.0f} % {words[k]}" for k, v in shares.items())
    print(f"won back on {name}: {said or 'nothing was lost'}")


def main() -> None:
  """Runs the study."""
  script.study(run, show, _JSON.value)


if __name__ == "__main__":
  script.start(main, _SMALL)
