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
import sys

import jax
import numpy as np
import script
from absl import flags
from neurt import energies, measure, on_chip, show
from smoke_model import STORIES

import jaxnmc as nmc
from jaxnmc.errors import UserError
from jaxnmc.evaluate import bits, provenance, text
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import families, gpt, to_spikes
from jaxnmc.report import backends, files, plots
from jaxnmc.train import data, export, loop

_MODEL = flags.DEFINE_string("model", "wikitext-gpt", "What `load` takes.")
_TRAIN = flags.DEFINE_list("train", [], "Training text files (.gz allowed).")
_TEXT = flags.DEFINE_string("text", None, "NAME=FILE to predict.")
_TICKS = flags.DEFINE_integer("ticks", 4, "Of the fine-tuned attention.", 1)
_SWEEP = flags.DEFINE_list("sweep", ["2", "4", "8", "16"], "Ticks, untrained.")
_LEVELS = flags.DEFINE_list(
  "levels", ["8", "15", "31"], "Counts of the blocks behind tuned attention."
)
_NEURON = flags.DEFINE_enum("neuron", "lif", ["lif", "if"], "Of attention.")
_SIGNED = flags.DEFINE_bool("signed", True, "Spikes -1, 0, 1, not 0, 1.")
_WINDOWS = flags.DEFINE_list(
  "windows", ["2", "3", "4", "8", "16", "64"], "Tokens that each head keeps."
)
_POSITIONS = flags.DEFINE_string(
  "positions", "none", "Of spiking attention: rotary, learned or none."
)
_SHARE = flags.DEFINE_float("share", 90.0, "Percentile that sets thresholds.")
_MLP_TOP = flags.DEFINE_string(
  "mlp_top", "p99.9", "Largest activation: a percentile, maximum, least_error."
)
_STEPS = flags.DEFINE_integer("steps", 700, "Steps of each run.", 1)
_LR = flags.DEFINE_float("lr", 2e-3, "Peak learning rate.")
_CONTROL_LR = flags.DEFINE_float("control_lr", 5e-4, "That of the control.")
_ALPHA = flags.DEFINE_float("alpha", 0.5, "Weight of the teacher's logits.")
_COSINE = flags.DEFINE_float("cosine", 1.0, "Weight of the hidden states.")
_BATCH = flags.DEFINE_integer("batch", 8, "Windows per step.", 1)
_SEQ = flags.DEFINE_integer("seq", 128, "Ids per window.", 2)
_CALIBRATION = flags.DEFINE_integer("calibration", 16, "Windows of ids.", 1)
_DOCUMENTS = flags.DEFINE_integer("documents", 48, "First of the text.", 1)
_CHIP_IDS = flags.DEFINE_integer(
  "chip_ids", 0, "Ids that the cores read, integer for integer; 0: none.", 0
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.")
_PLOT = flags.DEFINE_string("plot", None, "Folder for the plot.")
_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny model.")
flags.mark_flag_as_required("workdir")

_SMALL = {"steps": 3, "batch": 2, "seq": 16, "calibration": 2, "ticks": 2}
_SMALL |= {
  "mlp_top": "maximum",
  "sweep": ["2"],
  "windows": ["2", "0"],
  "documents": 2,
}
_SMALL |= {"levels": ["3"], "chip_ids": 6}
_ONLY = r"\.attn\."


def _tiny() -> "nmc.models.model.Model":
  tokenizer = ByteTokenizer()
  config = gpt.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    max_position_embeddings=32,
    intermediate_size=24,
    norm_eps=1e-3,
    tie_word_embeddings=False,
  )
  params = gpt.init_params(config, jax.random.key(0))
  params["embed"]["weight"] *= 20
  return families.model("tiny, random", config, params, tokenizer=tokenizer)


class Study:
  """A teacher, what is made of it, and the text it is judged on."""

  def __init__(self):
    if _SMOKE.value:
      self.model, self.documents, texts = _tiny(), list(STORIES), STORIES
      self.text_name = "stories"
    else:
      self.model = nmc.load(_MODEL.value)
      backends.need_tokenizer(self.model)
      if not (_TRAIN.value and _TEXT.value):
        raise UserError("--train and --text: name a file of each")
      self.documents = text.read_documents(_TRAIN.value)
      self.text_name, path = text.named(_TEXT.value)
      texts = text.read_documents([path])
    if not isinstance(self.model.config, gpt.Config):
      raise UserError(
        f"--model {_MODEL.value}: is no transformer; allowed are those of"
        " jaxnmc.models.gpt"
      )
    model, config = self.model, self.model.config
    ids = bits.first_pieces(
      model.tokenizer,
      texts,
      config.vocab_size,
      most=_DOCUMENTS.value,
      max_ids=config.context,
    )
    self.judge = measure.Judge(model, ids, backends.begin_id(model))
    stream = data.pack(self.documents[:64], model.tokenizer)
    size = min(config.context, len(stream.ids) // _CALIBRATION.value)
    rows = stream.ids[: size * _CALIBRATION.value]
    self.calibration = np.asarray(rows).reshape(_CALIBRATION.value, size)

  def recipe(self, ticks: int | None, mlp_ticks: int | None):
    """How the model is converted."""
    windows = [int(w) or None for w in _WINDOWS.value]
    return to_spikes.Recipe(
      ticks=ticks,
      neuron=_NEURON.value,
      signed=_SIGNED.value,
      windows=tuple(windows) if windows else None,
      positions=_POSITIONS.value,
      share=_SHARE.value,
      mlp_ticks=mlp_ticks,
      mlp_top=_MLP_TOP.value,
    )

  def convert(self, ticks: int | None, mlp_ticks: int | None):
    """(config, params) of a spiking model, not trained."""
    model = self.model
    return to_spikes.convert(
      model.config,
      model.params,
      self.calibration,
      self.recipe(ticks, mlp_ticks),
    )

  def blocks(self, config, params, levels: int):
    """(config, params) with spiking blocks behind spiking attention."""
    how = self.recipe(None, levels)
    return to_spikes.convert(config, params, self.calibration, how)

  def tune(self, name: str, config, params, lr: float, **teacher):
    """Parameters after the steps on attention; other ones stay."""
    work = pathlib.Path(_WORKDIR.value) / name
    work.mkdir(parents=True, exist_ok=True)
    steps = _STEPS.value
    held = {"teacher": None} | teacher
    loop.train(
      fn=gpt.make(config),
      init_params=lambda: params,
      model_config=families.to_json(config),
      tokenizer=self.model.tokenizer,
      documents=self.documents,
      # Nothing is chosen by a score: the runs end after the same steps.
      held=[],
      recipe=loop.Recipe(
        steps=steps,
        batch=_BATCH.value,
        seq=_SEQ.value,
        lr=lr,
        schedule="cosine",
        warmup=max(1, steps // 20),
        alpha=_ALPHA.value if held["teacher"] else 0.0,
        cosine=_COSINE.value if held["teacher"] else 0.0,
        only=_ONLY,
      ),
      rhythm=loop.Rhythm(
        checkpoint_every=max(1, steps // 7), progress=sys.stderr.isatty()
      ),
      workdir=str(work),
      **held,
    )
    return export.load(work / "final.npz")[0]

  def row(self, name: str, config, params) -> dict:
    """Figures of one model."""
    found = {"row": name, "attention_ticks": config.ticks}
    found["attention"] = config.attention
    found["mlp_ticks"] = config.mlp_ticks
    found |= self.judge(config, params)
    print(f"{name}: done", file=sys.stderr, flush=True)
    return found


def run() -> dict:
  """Does it all; returns what came out, ready for JSON."""
  study = Study()
  model, ticks = study.model, _TICKS.value
  rows = [study.row("teacher", model.config, model.params)]
  for sweep in map(int, _SWEEP.value):
    rows += [
      study.row(f"blocks, {sweep} ticks", *study.convert(None, sweep)),
      study.row(f"attention, {sweep} ticks", *study.convert(sweep, None)),
    ]
  config, start = study.convert(ticks, None)
  teacher = gpt.make(model.config), model.params
  tuned = study.tune("spiking", config, start, _LR.value, teacher=teacher)
  rows.append(study.row(f"attention, {ticks} ticks, tuned", config, tuned))
  rates = {k: rows[-1]["rates"][k] for k in "qkv"}
  for levels in map(int, _LEVELS.value):
    last = made = study.blocks(config, tuned, levels)
    rows.append(study.row(f"and blocks, {levels} levels", *made))
  control = study.tune("control", model.config, model.params, _CONTROL_LR.value)
  rows.append(study.row("control: dense, tuned", model.config, control))
  chip = None
  if _CHIP_IDS.value:
    text_ids = max(study.judge.documents, key=len)[: _CHIP_IDS.value]
    chip = on_chip.same_spikes(*last, study.calibration[:4], text_ids)
  return {
    "model": model.name,
    "parameters": model.config.num_params,
    "text": study.text_name,
    "steps": _STEPS.value,
    "recipe": dataclasses.asdict(study.recipe(ticks, None)),
    "rows": rows,
    "energy": energies.core(config, model.config.context, ticks, rates),
    "curves": energies.curves(config),
    "chip": chip,
    "inverted": energies.inverted(),
    "versions": provenance.versions(),
    "commit": provenance.commit(),
  }


def main() -> int:
  """Runs the study."""
  if _JSON.value is not None:
    files.check_writable(_JSON.value)
  if _PLOT.value is not None:
    plots.check(_PLOT.value)
  found = run()
  if _JSON.value is not None:
    files.write_json(_JSON.value, found)
  show.tables_of(found)
  if _PLOT.value is not None:
    show.plot(found, _PLOT.value)
  return 0


if __name__ == "__main__":
  script.start(main, _SMALL)
