"""`jaxnmc spikes`: a transformer as a spiking one, by calibration."""

import dataclasses
import time

import numpy as np

import jaxnmc
from jaxnmc.cli.output import Output, bar
from jaxnmc.cli.spikes_flags import ATTENTION
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import DataError, encode, provenance, read_documents
from jaxnmc.io import files
from jaxnmc.models import families, gpt
from jaxnmc.models.model import Model
from jaxnmc.models.to_spikes import Recipe, convert
from jaxnmc.report import backends, conversion
from jaxnmc.train import export

REPORT = "conversion.json"


def main(args) -> int:
  """Runs the command.

  Raises:
    ConfigError: MODEL is no transformer, flags without effect, or as
      `to_spikes.convert`.
    CheckpointError: the folder is taken, or as `jaxnmc.load`.
    DataError, TokenError: the text cannot be read, or by this model.
  """
  start = time.perf_counter()
  out = Output(args)
  how = _recipe(args)
  # The name is taken before the work, and the folder appears when all is done.
  with files.new_folder(args.out) as work:
    model = jaxnmc.load(args.model)
    out.notes(model.notes)
    check(model)
    ids = ids_of(model, args)
    layers = model.config.num_layers
    with bar("layers converted", layers) as advance:
      made = convert(model.config, model.params, ids, how, advance)
    with bar("layers measured", layers) as advance:
      rows = conversion.layers((model.config, model.params), made, ids, advance)
    spiking = families.model(args.out, *made, tokenizer=model.tokenizer)
    data = {
      "command": "spikes",
      "label": "measured, on the text that thresholds were chosen on",
      "model": model.name,
      "weights_sha256": provenance.params_sha256(model.params),
      "text": args.text,
      "text_sha256": provenance.file_sha256(args.text),
      "ids": int(ids.size),
      "recipe": dataclasses.asdict(how),
      "out": args.out,
      "out_weights_sha256": provenance.params_sha256(spiking.params),
      "parts": conversion.parts(model.config, spiking.config),
      "layers": rows,
      "versions": provenance.versions(),
      "seconds": round(time.perf_counter() - start, 1),
    }
    export.save_folder(work, spiking, {"converted_from": model.name})
    files.write_json(work / REPORT, data)
  conversion.show(out.people, data)
  out.line(f"{args.out}: {ids.size:,} ids; report in {REPORT}")
  out.result(data)
  return 0


def _recipe(args) -> Recipe:
  """What the flags ask for.

  Raises:
    ConfigError: nothing to convert, or a flag about what stays.
  """
  for kept, names in (
    ("keep_attention", ATTENTION),
    ("keep_mlp", ("mlp_top",)),
  ):
    for name in names:
      if getattr(args, kept) and getattr(args, name) is not None:
        raise ConfigError(
          f"--{name} has no effect with --{kept}; leave one of them out"
        )
  if args.keep_attention and args.keep_mlp:
    raise ConfigError(
      "--keep_attention and --keep_mlp together convert nothing; leave one out"
    )
  given = {
    name: getattr(args, name)
    for name in ("ticks", "mlp_ticks", "mlp_top", *ATTENTION)
    if getattr(args, name) is not None
  }
  if args.keep_attention:
    given["ticks"] = None
  if args.keep_mlp:
    given["mlp_ticks"] = None
  return Recipe(**given)


def check(model: Model) -> None:
  """Refuses what is no transformer.

  Raises:
    ConfigError: of another family.
  """
  if not isinstance(model.config, gpt.Config):
    family = families.family_of(model.config).name
    raise ConfigError(
      f"{model.name}: is a model of family {family!r}, 'spikes' converts"
      " transformers ('gpt'); its integers are sent as spikes without any"
      f" conversion: 'jaxnmc run {model.name} --backend spiking --prompt TEXT'"
    )


def ids_of(model: Model, args) -> np.ndarray:
  """Rows of one length from the beginning of the text, int32[B, T].

  Each row begins with the begin token, as texts do that are evaluated.

  Raises:
    DataError: the text has no ids.
    TokenError: no tokenizer, or one of another model.
  """
  tokenizer = backends.need_tokenizer(model)
  documents = [d.encode() for d in read_documents([args.text])]
  found, _ = encode(tokenizer, documents, model.config.vocab_size, args.ids)
  ids = np.concatenate(found)[: args.ids]
  width = min(model.config.context - 1, len(ids))
  if width < 1:
    raise DataError(
      f"{args.text}: {len(ids)} ids for a context of {model.config.context};"
      " at least one behind the begin token is needed: give a longer text, or"
      " another model"
    )
  rows = ids[: len(ids) // width * width].reshape(-1, width)
  first = np.full((len(rows), 1), backends.begin_id(model), np.int32)
  return np.concatenate([first, rows], axis=1)
