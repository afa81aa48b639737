"""A teacher, the spiking models made of it, and what they are judged on.

The flags are those of both scripts of the study.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import kept
import numpy as np
import smoke_model
import teaching
from absl import flags

import jaxnmc as nmc
from jaxnmc.errors import UserError
from jaxnmc.evaluate import bits, provenance, text
from jaxnmc.models import gpt, to_spikes
from jaxnmc.models.model import Model
from jaxnmc.report import backends
from jaxnmc.train import data
from neurt import measure
from neurt.windows import spread

_TRAIN = flags.DEFINE_list("train", [], "Training text files (.gz allowed).")
_TEXT = flags.DEFINE_string("text", None, "NAME=FILE to predict.")
_TICKS = flags.DEFINE_integer("ticks", 4, "Of the fine-tuned attention.", 1)
_NEURON = flags.DEFINE_enum("neuron", "lif", ["lif", "if"], "Of attention.")
_SIGNED = flags.DEFINE_bool("signed", True, "Spikes -1, 0, 1, not 0, 1.")
_WINDOWS = flags.DEFINE_list(
  "windows",
  ["2", "3", "4", "8", "16", "64"],
  "Tokens that each head keeps, 0 for all; with fewer heads, some of them.",
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
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny model.")

# Sizes of `--smoke`, for `script.start`.
SMALL = {"steps": 3, "batch": 2, "seq": 16, "calibration": 2, "ticks": 2}
SMALL |= {"mlp_top": "maximum", "windows": ["2", "0"], "documents": 2}
_ONLY = r"\.attn\."


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
  """A teacher, what is made of it, and the text it is judged on.

  Attributes:
    model: the teacher.
    documents: to train on.
    calibration: int32[B, T], of them.
    text_name: of the text that it is judged on.
    judge: of all models.
    folder: of its runs.
  """

  model: Model
  documents: Sequence[str]
  calibration: np.ndarray
  text_name: str
  judge: measure.Judge
  folder: pathlib.Path

  def recipe(self, **changes: Any) -> to_spikes.Recipe:
    """How the model is converted, by the flags."""
    left = spread([int(w) for w in _WINDOWS.value], self.model.config.num_heads)
    how = to_spikes.Recipe(
      ticks=_TICKS.value,
      neuron=_NEURON.value,
      signed=_SIGNED.value,
      windows=left,
      positions=_POSITIONS.value,
      share=_SHARE.value,
      mlp_ticks=None,
      mlp_top=_MLP_TOP.value,
    )
    return dataclasses.replace(how, **changes)

  def convert(self, how: to_spikes.Recipe) -> tuple[gpt.Config, Any]:
    """(config, params) of a spiking model, not trained."""
    model = self.model
    return to_spikes.convert(model.config, model.params, self.calibration, how)

  def blocks(self, config: gpt.Config, params: Any, levels: int):
    """(config, params) with spiking blocks behind spiking attention."""
    how = self.recipe(ticks=None, mlp_ticks=levels)
    return to_spikes.convert(config, params, self.calibration, how)

  def tune(
    self, name: str, config: gpt.Config, params: Any, seed: int = 0
  ) -> Any:
    """Parameters after steps on attention beside the teacher."""
    return self._teach(name, config, params, _LR.value, seed, True)

  def control(self) -> Any:
    """The teacher after as many steps on its own attention."""
    model = self.model
    return self._teach(
      "control", model.config, model.params, _CONTROL_LR.value, 0, False
    )

  def _teach(self, name, config, params, lr, seed, beside: bool) -> Any:
    how = teaching.Teaching(
      steps=_STEPS.value,
      lr=lr,
      batch=_BATCH.value,
      seq=_SEQ.value,
      alpha=_ALPHA.value,
      cosine=_COSINE.value,
      only=_ONLY,
      seed=seed,
    )
    model = self.model
    return teaching.teach(
      how,
      config,
      params,
      model.tokenizer,
      self.documents,
      self.folder / name,
      (model.config, model.params) if beside else None,
    )

  def row(self, name: str, config: gpt.Config, params: Any) -> dict[str, Any]:
    """Figures of one model."""
    found = {"row": name, "attention_ticks": config.ticks}
    found["attention"] = config.attention
    found["mlp_ticks"] = config.mlp_ticks
    found |= self.judge(config, params)
    kept.say(f"{name}: done")
    return found


def begin(name: str, folder: pathlib.Path) -> Study:
  """The study of a model.

  Args:
    name: what `load` takes; with --smoke the teacher is a tiny one instead.
    folder: of its runs.

  Raises:
    UserError: no text, or no transformer.
  """
  if _SMOKE.value:
    model, documents = smoke_model.tiny_gpt(), list(smoke_model.STORIES)
    text_name, texts = "stories", documents
  else:
    model = nmc.load(name)
    backends.need_tokenizer(model)
    if not (_TRAIN.value and _TEXT.value):
      raise UserError("--train and --text: name a file of each")
    documents = text.read_documents(_TRAIN.value)
    text_name, path = text.named(_TEXT.value)
    texts = text.read_documents([path])
  config = model.config
  if not isinstance(config, gpt.Config):
    raise UserError(
      f"model {name}: is no transformer; allowed are those of jaxnmc.models.gpt"
    )
  ids = bits.first_pieces(
    model.tokenizer,
    texts,
    config.vocab_size,
    most=_DOCUMENTS.value,
    max_ids=config.context,
  )
  stream = data.pack(documents[:64], model.tokenizer)
  size = min(config.context, len(stream.ids) // _CALIBRATION.value)
  rows = stream.ids[: size * _CALIBRATION.value]
  return Study(
    model,
    documents,
    np.asarray(rows).reshape(_CALIBRATION.value, size),
    text_name,
    measure.Judge(model, ids, backends.begin_id(model)),
    folder,
  )


def settings() -> dict[str, Any]:
  """Flags that every figure depends on, ready for JSON."""
  names = ("train", "text", "ticks", "neuron", "signed", "windows")
  names += ("positions", "share", "mlp_top", "steps", "lr", "control_lr")
  names += ("alpha", "cosine", "batch", "seq", "calibration", "documents")
  found = {name: flags.FLAGS[name].value for name in (*names, "smoke")}
  if not _SMOKE.value and _TEXT.value:
    files = [*_TRAIN.value, text.named(_TEXT.value)[1]]
    found["texts_sha256"] = [provenance.file_sha256(path) for path in files]
  return found
