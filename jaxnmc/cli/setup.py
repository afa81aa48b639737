"""What commands do first: the model and the backend that the flags name.

Notes that come with either go to stderr at once.
"""

import numpy as np

import jaxnmc
from jaxnmc.cli.flags import CODES, ENGINES
from jaxnmc.cli.output import Output
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import bits, text
from jaxnmc.models.model import Model
from jaxnmc.quantize import Plan, QParams
from jaxnmc.report import backends


def check_flags(args) -> None:
  """Refuses flags that do not go together, before anything is looked at.

  Raises:
    ConfigError: a flag about cores without `--backend loihi`, or about spikes
      without `--backend spiking`.
  """
  backend = getattr(args, "backend", "loihi")
  for flag in ("engine", "chips", "trace", "plots"):
    if backend != "loihi" and getattr(args, flag, None) is not None:
      raise ConfigError(
        f"--{flag} is about cores, which --backend {backend} has not; add"
        " --backend loihi or leave it out"
      )
  for flag in ("ticks", "code"):
    if backend != "spiking" and getattr(args, flag, None) is not None:
      raise ConfigError(
        f"--{flag} is about spikes, which --backend {backend} has not; add"
        " --backend spiking or leave it out"
      )


def load(args, out: Output) -> Model:
  """The model of `args.model`.

  Raises:
    ConfigError: as `check_flags`.
    CheckpointError, ConfigError, MissingExtra: as `jaxnmc.load`.
  """
  check_flags(args)
  model = jaxnmc.load(args.model)
  out.notes(model.notes)
  return model


def prepare(args, out: Output, model: Model) -> backends.Backend:
  """The model under `--backend` with its flags, and its formats.

  Raises:
    ConfigError, FormatError, PlacementError: as `backends.prepare`.
  """
  drawn = [getattr(args, name, None) for name in ("report", "plots")]
  backend = backends.prepare(
    model,
    args.backend,
    engine=args.engine or ENGINES[0],
    chips=args.chips,
    calibrate=args.calibrate,
    plan=args.plan,
    histograms=any(name is not None for name in drawn),
    ticks=args.ticks,
    code=args.code or CODES[0],
  )
  out.notes(backend.notes)
  return backend


def quantized(args, out: Output, model: Model) -> tuple[Plan, QParams]:
  """(plan, qparams): the model's own, of `--plan`, or on `--calibrate`.

  Raises:
    DataError, PlanError: as `backends.quantized`.
  """
  plan, qparams, notes = backends.quantized(model, args.calibrate, args.plan)
  out.notes(notes)
  return plan, qparams


def pieces(args, model: Model) -> list[np.ndarray]:
  """Ids of the first `--documents` of `--text`, cut to `--max_ids`.

  Raises:
    TokenError: the model has no tokenizer, or one of another model.
    DataError: the text cannot be read, or is none.
  """
  return bits.first_pieces(
    backends.need_tokenizer(model),
    text.read_documents([args.text]),
    model.config.vocab_size,
    most=args.documents,
    max_ids=args.max_ids,
  )
