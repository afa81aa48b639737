"""What the training scripts share: text, tokenizer, teacher, the loop.

A script defines the flags of its model and calls `start` with a function that
makes a config of them.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import script
from absl import flags

from jaxnmc import quantize
from jaxnmc.errors import ConfigError
from jaxnmc.io import tokenizer as tokenizers
from jaxnmc.io.files import write_bytes
from jaxnmc.models import families
from jaxnmc.quantize import Plan
from jaxnmc.report import files
from jaxnmc.train import data, evalrange, export, loop, mixed, qat, schedules

# Of --qat: integers everywhere, or the paper's rows.
PRESETS = ("W8A8", "W8A16", "W8", "A8", "A16")
_CALIBRATION = 32  # documents that --qat measures ranges on

_TRAIN = flags.DEFINE_list("train", [], "Training text files (.gz allowed).")
_VALID = flags.DEFINE_string("valid", None, "Text scored once, at the end.")
_EVAL_PREFIX_BYTES = flags.DEFINE_string(
  "eval_prefix_bytes",
  None,
  "JSON list: score only so many bytes of each document of --valid.",
)
_HOLD_OUT = flags.DEFINE_float(
  "hold_out", 0.01, "Share of --train kept back to choose the best step."
)
_TOKENIZER = flags.DEFINE_string(
  "tokenizer", "bpe", "'bytes', 'bpe' (learned from --train), or a file."
)
_VOCAB = flags.DEFINE_integer("vocab", 4096, "Size of a learned vocabulary.")
_STEPS = flags.DEFINE_integer("steps", 1000, "Steps in all.")
_BATCH = flags.DEFINE_integer("batch", 8, "Windows per step.")
_SEQ = flags.DEFINE_integer("seq", 256, "Ids per window.")
_LR = flags.DEFINE_float("lr", 4e-3, "Peak learning rate.")
_WARMUP = flags.DEFINE_integer("warmup", 50, "Steps of warm-up.")
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 0.01, "On matrices only.")
_CLIP = flags.DEFINE_float("clip", 1.0, "Largest gradient norm.")
_SCHEDULE = flags.DEFINE_enum(
  "schedule", "wsd", sorted(schedules.SCHEDULES), "Learning-rate schedule."
)
_SEED = flags.DEFINE_integer("seed", 0, "Weights and order of the text.")
_INIT_FROM = flags.DEFINE_string(
  "init_from", None, "Start from best.npz of another run, or from any model."
)
_QAT = flags.DEFINE_string(
  "qat",
  None,
  f"Train under number formats: {', '.join(PRESETS)} (ranges of the start on"
  " --train), or a plan file. Scores are those under the plan.",
)
_TEACHER = flags.DEFINE_string(
  "teacher", None, "Model to learn from; it must have the same vocabulary."
)
_ALPHA = flags.DEFINE_float("alpha", 0.5, "Weight of the teacher, 0 ... 1.")
_COSINE = flags.DEFINE_float(
  "cosine", 0.0, "Weight of the angle to the teacher's hidden states."
)
_ONLY = flags.DEFINE_string(
  "only", None, "Train parameters whose path matches this expression, only."
)
_DTYPE = flags.DEFINE_enum(
  "dtype",
  "float32",
  mixed.DTYPES,
  "Of the operands of ternary products; the rest stays float32.",
)
_DEVICES = flags.DEFINE_integer("devices", None, "Devices; default: all.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run.")
_CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 500, "Steps.")
_EVAL_EVERY = flags.DEFINE_integer("eval_every", 500, "Steps.")
_LOG_EVERY = flags.DEFINE_integer("log_every", 10, "Steps.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Write event files.")
_PROGRESS = flags.DEFINE_bool("progress", True, "Draw a progress bar.")
_SMOKE = flags.DEFINE_bool(
  "smoke", False, "Seconds, on built-in text: shows that everything works."
)
_JSON = flags.DEFINE_string("json", None, "Also write the result here.")
flags.mark_flag_as_required("workdir")

_SMOKE_TEXT = (
  "Once upon a time there was a little {0}. The {0} liked to {1} all day. "
  "One day the {0} met a big {2}. They became friends and went home."
)
_SMOKE_SIZES = {
  "vocab": 300,
  "steps": 30,
  "seq": 32,
  "checkpoint_every": 10,
  "eval_every": 10,
  "hold_out": 0.1,
}


def _smoke_documents() -> list[str]:
  return [
    _SMOKE_TEXT.format(who, what, whom)
    for who in ("cat", "dog", "girl", "boy", "bird")
    for what in ("run", "sing", "play", "dig")
    for whom in ("bear", "tree", "frog")
  ]


def _tokenizer(documents: list[str], work: pathlib.Path):
  """Returns the tokenizer and keeps it in the work folder."""
  if _TOKENIZER.value == "bpe":
    tokenizer = tokenizers.BPETokenizer.train(documents, _VOCAB.value)
  else:
    tokenizer = tokenizers.load(_TOKENIZER.value)
  if isinstance(tokenizer, tokenizers.BPETokenizer):
    kept = work / "tokenizer.npz"
    same = not kept.exists() or _same(tokenizers.load(kept), tokenizer)
    if not kept.exists():
      tokenizer.save(kept)
  else:
    # Of other packages: the file itself, so that the result can be loaded.
    source = pathlib.Path(_TOKENIZER.value)
    if source.is_dir():
      names = ("tokenizer.json", "tokenizer.model")
      source = next(source / n for n in names if (source / n).is_file())
    kept, data = work / f"tokenizer{source.suffix}", source.read_bytes()
    same = not kept.exists() or kept.read_bytes() == data
    if not kept.exists():
      write_bytes(kept, data)
  if not same:
    raise ConfigError(
      f"{kept}: belongs to a run with another text or tokenizer; give the "
      "same --train, --tokenizer and --vocab, or another --workdir"
    )
  return tokenizer


def _same(one: tokenizers.Tokenizer | None, two: tokenizers.Tokenizer) -> bool:
  """Whether two tokenizers give the same ids, as far as can be seen."""
  if one is None:
    return False
  both = isinstance(one, tokenizers.BPETokenizer) and isinstance(
    two, tokenizers.BPETokenizer
  )
  if both:
    return one.serialized() == two.serialized()
  return one.vocab_size == two.vocab_size


def _teacher(tokenizer: tokenizers.Tokenizer):
  """Returns (fn, params) of --teacher: a training result or any model."""
  if _TEACHER.value is None:
    return None
  path = pathlib.Path(_TEACHER.value)
  if path.suffix == ".npz":
    params, meta = export.load(path)
    fn = families.make(families.from_json(meta["config"], str(path)))
    theirs = tokenizers.load(path.parent)
  else:
    import jaxnmc

    model = jaxnmc.load(_TEACHER.value)
    fn, params, theirs = model.fn, model.params, model.tokenizer
  if not _same(theirs, tokenizer):
    size = "no tokenizer" if theirs is None else f"{theirs.vocab_size} ids"
    raise ConfigError(
      f"--teacher {_TEACHER.value}: has another vocabulary "
      f"({size}, the student has {tokenizer.vocab_size} ids); "
      "a teacher's logits are of use only to a student with its tokenizer"
    )
  return fn, params


def _run(make_config: Callable[..., Any]) -> dict:
  files.check_writable(_JSON.value)
  work = pathlib.Path(_WORKDIR.value)
  try:
    work.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(
      f"--workdir {work}: cannot be made ({error.strerror}); name a folder"
    ) from error
  if _SMOKE.value and not _TRAIN.value:
    documents = _smoke_documents()
  else:
    documents = data.read_documents(_TRAIN.value)
  documents, held = data.hold_out(documents, _HOLD_OUT.value)
  tokenizer = _tokenizer(documents, work)
  config = make_config(
    vocab_size=tokenizer.vocab_size,
    bos_token_id=tokenizer.bos_id,
    eos_token_id=tokenizer.eos_id,
    pad_token_id=tokenizer.pad_id,
  )
  family, teacher = families.family_of(config), _teacher(tokenizer)
  fn, described = family.make(config), families.to_json(config)

  def init_params():
    if _INIT_FROM.value:
      return _start(_INIT_FROM.value, described)
    return family.init_params(config, jax.random.key(_SEED.value))

  plan = None
  if _QAT.value is not None:
    plan = _plan(work, fn, init_params, documents, tokenizer)

  result = loop.train(
    fn=fn,
    init_params=init_params,
    model_config=described,
    tokenizer=tokenizer,
    documents=documents,
    held=held,
    recipe=loop.Recipe(
      steps=_STEPS.value,
      batch=_BATCH.value,
      seq=_SEQ.value,
      lr=_LR.value,
      schedule=_SCHEDULE.value,
      warmup=_WARMUP.value,
      weight_decay=_WEIGHT_DECAY.value,
      clip=_CLIP.value,
      seed=_SEED.value,
      alpha=_ALPHA.value if teacher else 0.0,
      cosine=_COSINE.value,
      only=_ONLY.value,
      dtype=_DTYPE.value,
    ),
    rhythm=loop.Rhythm(
      checkpoint_every=_CHECKPOINT_EVERY.value,
      log_every=_LOG_EVERY.value,
      eval_every=_EVAL_EVERY.value,
      tensorboard=_TENSORBOARD.value,
      progress=_PROGRESS.value and sys.stderr.isatty(),
      devices=_DEVICES.value,
    ),
    workdir=str(work),
    teacher=teacher,
    plan=plan,
  )
  result["params"] = config.num_params
  if _VALID.value:
    result["valid"] = _score(work, fn, plan, tokenizer)
  files.write_json(str(work / "result.json"), result)
  files.write_json(_JSON.value, result)
  return result


def _start(source: str, described: Mapping[str, Any]) -> Any:
  """Parameters of --init_from; ternary matrices become latents.

  Raises:
    ConfigError: the model there has another config.
    CheckpointError: it cannot be read.
  """
  if pathlib.Path(source).suffix == ".npz":
    params, meta = export.load(source)
    found = meta["config"]
  else:
    import jaxnmc

    model = jaxnmc.load(source)
    params, found = model.params, families.to_json(model.config)
  if found != described:
    raise ConfigError(
      f"--init_from {source}: has the config {found}, this run {described};"
      " give the same sizes"
    )
  return qat.latents(params)


def _plan(work, fn, init_params, documents, tokenizer) -> Plan:
  """The plan of --qat; kept in the work folder, where a resumed run finds it.

  Raises:
    PlanError: no preset and no plan file, or a plan of another model.
  """
  kept = work / "plan.json"
  if kept.exists():
    return Plan.load(kept)
  if _QAT.value in PRESETS:
    stream = data.pack(documents[:_CALIBRATION], tokenizer)
    windows = qat.windows(stream, _SEQ.value)
    stats = quantize.calibrate(fn)(init_params(), windows)
    plan = quantize.plan(stats, getattr(quantize, _QAT.value))
  else:
    plan = Plan.load(_QAT.value)
    plan.check_params(init_params())
  plan.save(kept)
  return plan


def _score(work, fn, plan, tokenizer) -> dict:
  """Scores the best parameters on --valid, once."""
  lengths = None
  if _EVAL_PREFIX_BYTES.value:
    lengths = evalrange.read_lengths(_EVAL_PREFIX_BYTES.value)
  documents = data.read_documents([_VALID.value])
  params, _ = export.load(work / "best.npz")
  return evalrange.bits_per_byte(
    evalrange.score(fn, plan),
    params,
    tokenizer,
    evalrange.cut(documents, lengths),
  )


def start(make_config: Callable[..., Any], smoke: Mapping[str, int]) -> None:
  """Runs a training script and ends the process.

  Args:
    make_config: called with `vocab_size` and the ids of special tokens.
    smoke: values of the model's flags for `--smoke`.
  """

  def main() -> None:
    print(json.dumps(_run(make_config)))

  script.start(main, _SMOKE_SIZES | dict(smoke))
