"""A model ready to run: one of the backends with parameters that fit it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import jaxnmc
from jaxnmc.errors import ConfigError, TokenError
from jaxnmc.evaluate import provenance
from jaxnmc.evaluate.subject import Subject
from jaxnmc.evaluate.text import read_documents
from jaxnmc.models.generate import left_pad
from jaxnmc.quantize import Plan
from jaxnmc.report import placement

NAMES = ("float", "fake_quant", "fixed", "spiking", "loihi")
_CALIBRATION_IDS = 256
# Room above a range that was seen on a few sentences only.
SMALL_MARGIN = 1.0
_SENTENCES = (
  "Once upon a time, there was a little girl named Lily. She loved to play"
  " outside in the sun with her red ball.",
  '"What is in the box?" asked Tom. His mom smiled and said, "It is a gift'
  ' for your birthday!" Tom was very happy.',
  "The old dog ran to the big tree. It saw 3 birds there, and a cat. They"
  " were scared, but the dog only wanted to be their friend.",
  "In 1984 the committee published its report: costs had risen by 12.5 %"
  " (see page 7), while output fell.",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Backend:
  """One way to run a model.

  Attributes:
    name: one of `NAMES`.
    run: `run(params, inputs, state) -> (out, state[, counters])`.
    params: what `run` takes: float params or qparams.
    jit: whether the caller should compile `run`.
    integer: whether logits are integers.
    plan: number formats, or None for float.
    qparams: integer parameters, or None.
    placement: cores, for loihi.
    engine: engine of loihi, or None.
    code: spike code of spiking, or None.
    notes: what a reader should know, one line each.
  """

  name: str
  run: Callable
  params: Any
  jit: bool = True
  integer: bool = False
  plan: Any = None
  qparams: Any = None
  placement: Any = None
  engine: str | None = None
  code: str | None = None
  notes: tuple[str, ...] = ()


def need_tokenizer(model) -> Any:
  """The model's tokenizer.

  Raises:
    TokenError: it has none.
  """
  if model.tokenizer is None:
    why = "; ".join(model.notes) or "none came with it"
    raise TokenError(
      f"{model.name}: has no tokenizer ({why}); put a tokenizer.npz,"
      " tokenizer.json or tokenizer.model into its folder"
    )
  return model.tokenizer


def begin_id(model) -> int:
  """The token in front of every text: BOS, or 0 where there is none."""
  for found in (
    getattr(model.tokenizer, "bos_id", None),
    getattr(model.config, "bos_token_id", None),
  ):
    if found is not None:
      return int(found)
  return 0


def encode_prompt(model, text: str) -> np.ndarray:
  """BOS and the ids of a prompt, int32[1 + n].

  Raises:
    TokenError: no tokenizer, an empty prompt, one without ids, or ids that
      the model lacks.
  """
  if not text:
    raise TokenError("the prompt is empty; give some text to continue")
  ids = np.asarray(need_tokenizer(model).encode(text), np.int32)
  if not len(ids):
    raise TokenError(
      f"the prompt {text!r} gives no token ids; give some text to continue"
    )
  low, high = int(ids.min()), int(ids.max())
  if low < 0 or high >= model.config.vocab_size:
    raise TokenError(
      f"the prompt gives token id {low if low < 0 else high}, but {model.name}"
      f" has {model.config.vocab_size} tokens; its tokenizer belongs to another"
      " model"
    )
  return np.concatenate([[begin_id(model)], ids]).astype(np.int32)


def calibration_batches(
  model, documents: Sequence[str | bytes] | None
) -> list[dict[str, np.ndarray]]:
  """One batch of ids [B, T] with a left-padding mask.

  Args:
    model: a model; without a tokenizer random ids are used.
    documents: texts; built-in sentences if None.

  Returns:
    Input dicts of int32[B, T], at most 16 texts of 256 ids and BOS each, or
    what the model's context holds of them.
  """
  context = getattr(model.fn, "context", None) or _CALIBRATION_IDS + 1
  most = min(_CALIBRATION_IDS, context - 1)
  if model.tokenizer is None:
    draw = np.random.default_rng(0)
    size = (4, min(64, context))
    ids = draw.integers(0, model.config.vocab_size, size, np.int32)
    return [{"ids": ids}]
  bos = [begin_id(model)]
  rows = [
    np.concatenate([bos, model.tokenizer.encode(d)[:most]])
    for d in (documents or _SENTENCES)
  ]
  batches = []
  for first in range(0, len(rows), 16):
    ids, mask = left_pad(rows[first : first + 16])
    batches.append({"ids": ids, "mask": mask})
  return batches


def quantized(model, calibrate: str | None = None, plan: str | None = None):
  """(plan, qparams, notes): the model's own, of a file, or made here.

  Args:
    model: a model.
    calibrate: text file to calibrate on; overrides a plan of the model's own.
    plan: plan file; overrides a plan of the model's own.

  Returns:
    Plan, integer parameters and notes for the reader.

  Raises:
    ConfigError: both files are given.
    DataError: the text cannot be read, or is none.
    PlanError: the plan cannot be read, is another model's, or is not integers
      everywhere.
  """
  found, notes = chosen(model, calibrate, plan)
  return found, _integers(model, found), notes


def _integers(model, plan: Plan):
  """The integer parameters under a plan, those of the model if it has them."""
  if plan is model.plan and model.qparams is not None:
    return model.qparams
  return jaxnmc.quantize_params(model.params, plan)


def chosen(model, calibrate: str | None = None, plan: str | None = None):
  """(plan, notes); arguments and errors as `quantized`."""
  if plan is not None:
    if calibrate is not None:
      raise ConfigError("--plan and --calibrate exclude each other; drop one")
    found = Plan.load(plan)
    found.check_params(model.params)
    return found, ()
  if calibrate is None and model.plan is not None:
    return model.plan, ()
  preset = jaxnmc.quantize.W8A16
  stats, notes = measured(model, calibrate)
  if calibrate is None:
    notes = (f"{model.name} brings no plan: {notes[0]}",)
    preset = preset.replace(margin=SMALL_MARGIN)
  return jaxnmc.plan(stats, preset), notes


def measured(
  model,
  calibrate: str | None,
  histograms: bool = False,
  channels: bool = False,
):
  """(statistics, notes) of a model on a text.

  Args:
    model: a model.
    calibrate: text file, or None for a few built-in sentences.
    histograms: as `jaxnmc.calibrate`.
    channels: as `jaxnmc.calibrate`.

  Raises:
    DataError: the text cannot be read, or is none.
  """
  notes: tuple[str, ...]
  if calibrate is None:
    documents = None
    what = "built-in sentences" if model.tokenizer else "random token ids"
    notes = (
      f"formats were chosen on {what} with one bit to spare; --calibrate FILE"
      " does better",
    )
  else:
    documents = read_documents([calibrate])[:64]
    notes = (f"formats were chosen on {calibrate}",)
  batches = calibration_batches(model, documents)
  run = jaxnmc.calibrate(model.fn, histograms, channels)
  return run(model.params, batches), notes


def fingerprints(model, backend: Backend) -> dict[str, str | None]:
  """SHA-256 of the weights in use and of the plan (None for float)."""
  if backend.qparams is not None:
    plan, weights = backend.plan.fingerprint, backend.qparams.weights
    return {"weights_sha256": weights, "plan_sha256": plan}
  weights = provenance.params_sha256(model.params)
  plan = None if backend.plan is None else backend.plan.fingerprint
  return {"weights_sha256": weights, "plan_sha256": plan}


def subject(model, backend: Backend) -> Subject:
  """A model under a backend, as `jaxnmc.evaluate` takes it.

  Raises:
    TokenError: the model has no tokenizer.
  """
  return Subject(
    backend.run,
    backend.params,
    need_tokenizer(model),
    model.config.vocab_size,
    begin_id(model),
    backend.jit,
    getattr(backend.run, "context", None),
  )


def place_on(graph, chips: int | None):
  """A placement on `chips` chips, or on as few as do.

  Raises:
    PlacementError: it does not fit.
  """
  return placement.on_chips(graph, chips)


def prepare(
  model,
  name: str,
  *,
  engine: str = "functional",
  chips: int | None = None,
  calibrate: str | None = None,
  plan: str | None = None,
  mode: str = "pipelined",
  histograms: bool = False,
  ticks: int | None = None,
  code: str = "bitwise",
) -> Backend:
  """Makes a model ready to run.

  Args:
    model: what `jaxnmc.load` returned.
    name: one of `NAMES`.
    engine: engine of loihi.
    chips: chips of loihi; None for as few as do.
    calibrate: text file to choose formats on.
    plan: plan file.
    mode: schedule of loihi, "pipelined" or "fall-through".
    histograms: count sizes of messages, where the engine does.
    ticks: of spiking; None for as many as each site needs.
    code: spike code of spiking.

  Returns:
    The backend.

  Raises:
    ConfigError: there is no such backend or code, or as `quantized`.
    FormatError: a site does not fit the ticks of spiking.
    DataError, PlanError: as `quantized`.
    PlacementError: the model does not fit the chips.
  """
  if name not in NAMES:
    raise ConfigError(f"--backend {name}: allowed are {', '.join(NAMES)}")
  if name == "float":
    return Backend(name, jaxnmc.reference(model.fn), model.params)
  if name == "fake_quant":
    found, notes = chosen(model, calibrate, plan)
    qparams = _integers(model, found) if found.integers else None
    run = jaxnmc.fake_quant(model.fn, found)
    made = {"plan": found, "qparams": qparams, "notes": notes}
    return Backend(name, run, model.params, integer=False, **made)
  found, qparams, notes = quantized(model, calibrate, plan)
  made = {"plan": found, "qparams": qparams, "notes": notes}
  if name == "fixed":
    run = jaxnmc.fixed(model.fn, found)
    return Backend(name, run, qparams, integer=True, **made)
  if name == "spiking":
    run = jaxnmc.spiking(model.fn, found, ticks, code)
    # What does not fit is refused here, before a prompt is shown.
    one = {"ids": jax.ShapeDtypeStruct((1,), np.int32)}
    jax.eval_shape(run, qparams, one)
    return Backend(name, run, qparams, integer=True, code=code, **made)
  graph = jaxnmc.record(model.fn, found, qparams)
  placed = place_on(graph, chips)
  count = histograms and engine == "functional"
  run = jaxnmc.loihi(
    *(model.fn, found, placed), engine=engine, mode=mode, histograms=count
  )
  return Backend(
    name,
    run,
    qparams,
    jit=False,
    integer=True,
    placement=placed,
    engine=engine,
    **made,
  )
