"""Packs a training run into a zoo folder, scores it and writes its card.

  python tools/build_zoo.py --run runs/stories --name stories-mmf \
    --train train.txt,train_extra.txt.gz --valid valid.txt \
    --eval_prefix_bytes lengths.json

The plan is calibrated on training text and the shipped parameters; every
figure on the card is measured here, on the packed model.
"""

import dataclasses
import json
import pathlib
import platform

import jax
import numpy as np
from absl import app, flags

import jaxnmc as nmc
from jaxnmc.evaluate import bits, provenance, text
from jaxnmc.io import tokenizer as tokenizers
from jaxnmc.io import zoo
from jaxnmc.models import families
from jaxnmc.train import export

_RUN = flags.DEFINE_string("run", None, "Folder of the training run.")
_NAME = flags.DEFINE_string("name", "stories-mmf", "Name of the model.")
_ZOO = flags.DEFINE_string("zoo", None, "Folder to write into.")
_TRAIN = flags.DEFINE_list("train", [], "Training text files.")
_VALID = flags.DEFINE_string("valid", None, "Text that is scored.")
_PREFIX = flags.DEFINE_string(
  "eval_prefix_bytes", None, "JSON list of bytes of each document to score."
)
_SCORED = flags.DEFINE_integer(
  "scored", None, "Score only the first documents of --valid."
)
_DOCUMENTS = flags.DEFINE_integer("documents", 192, "Calibration documents.")
_CARD = flags.DEFINE_string("card", None, "Markdown put on top of the card.")
flags.mark_flags_as_required(["run", "valid"])

_LENGTH = 512


def _batches(
  tokenizer, documents: list[str], bos: int, context: int | None
) -> list[dict]:
  """Left-aligned windows from the start of each document."""
  rows, most = [], min(_LENGTH, context or _LENGTH)
  for document in documents:
    ids = [bos, *tokenizer.encode(document)][:most]
    rows.append(np.asarray(ids, np.int32))
  batches = []
  for first in range(0, len(rows), 16):
    group = rows[first : first + 16]
    size = max(len(r) for r in group)
    size = min(-(-size // 64) * 64, most)
    # Padding repeats the text: it adds no value that text does not reach.
    ids = np.stack([np.resize(r, size) for r in group])
    batches.append({"ids": ids})
  return batches


def _scores(model, plan, qparams, texts: dict[str, list[bytes]], bos: int):
  """{range: {backend: Score}} of the packed model."""
  backends = {"float": (nmc.reference(model.fn), model.params)}
  if qparams is not None:
    backends["fixed"] = nmc.fixed(model.fn, plan), qparams
  else:
    backends["fake_quant"] = nmc.fake_quant(model.fn, plan), model.params
  vocab = model.config.vocab_size
  result: dict[str, dict] = {}
  for name, (run, params) in backends.items():
    scorer = bits.Scorer(run)
    for label, documents in texts.items():
      rows, size = bits.encode(model.tokenizer, documents, vocab)
      score = scorer(params, rows, size, bos=bos)
      result.setdefault(label, {})[name] = score
      print(
        f"{label:8} {name:6} {score.bits_per_byte:.4f} bits per byte,"
        f" perplexity {score.perplexity:.4f} ({score.ids} ids)",
        flush=True,
      )
  return result


def _table(scores) -> str:
  _, name = next(iter(scores.values()))
  lines = [
    f"| text | bytes | float | `{name}`, W8A16 | perplexity float | `{name}` |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
  ]
  for label, by in scores.items():
    f, q = by["float"], by[name]
    lines.append(
      f"| {label} | {f.bytes:,} | {f.bits_per_byte:.4f} |"
      f" {q.bits_per_byte:.4f} | {f.perplexity:.3f} | {q.perplexity:.3f} |"
    )
  return "\n".join(lines)


def _card(config, meta, scores, top: str) -> str:
  recipe = json.dumps(meta.get("recipe", {}), sort_keys=True)
  fields = dataclasses.asdict(config)
  return f"""{top}
## Results

Bits per byte on text the model has not seen, measured by `tools/build_zoo.py`
on the packed model (every document from its own begin-of-text token):

{_table(scores)}

## Model

{config.num_params:,} parameters. Configuration: `{json.dumps(fields)}`

Recipe: `{recipe}`; step kept: {meta.get("best", {}).get("step")}.

Made with {provenance.versions()} on {platform.machine()},
{jax.default_backend()}.
"""


def main(_) -> None:
  run = pathlib.Path(_RUN.value)
  params, meta = export.load(run / "best.npz")
  config = families.from_json(meta["config"], str(run / "best.npz"))
  tokenizer = tokenizers.load(run / "tokenizer.npz")
  fn = families.make(config)
  params = zoo.rounded(config, params)
  bos = config.bos_token_id
  documents = text.read_documents(_TRAIN.value)
  # Documents from all over the text, not only its start.
  stride = max(1, len(documents) // _DOCUMENTS.value)
  context = getattr(fn, "context", None)
  batches = _batches(tokenizer, documents[::stride], bos, context)
  stats = nmc.calibrate(fn)(params, batches)
  # Softmax attention has no integers: a float model with roundings.
  integers = families.family_of(config).name == "matmulfree"
  preset = nmc.quantize.paper("W8A16", 1e-3, integers)
  plan = nmc.plan(stats, preset)
  qparams = nmc.quantize_params(params, plan) if integers else None
  model = families.model(
    *(_NAME.value, config, params),
    tokenizer=tokenizer,
    plan=plan if integers else None,
    qparams=qparams,
  )
  valid = text.read_documents([_VALID.value])
  some = valid[: _SCORED.value]
  label = "whole" if len(some) == len(valid) else f"first {len(some)}"
  texts = {label: [d.encode() for d in some]}
  if _PREFIX.value:
    lengths = text.read_lengths(_PREFIX.value)
    texts = {"prefixes": text.cut(valid, lengths), **texts}
  scores = _scores(model, plan, qparams, texts, bos)
  top = pathlib.Path(_CARD.value).read_text() if _CARD.value else ""
  card = _card(config, meta, scores, top)
  if _ZOO.value:
    folder = pathlib.Path(_ZOO.value) / _NAME.value
    shipped = model.plan
    zoo.write(folder, config, params, tokenizer, card, shipped, overwrite=True)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"wrote {folder.name}: {size:,} bytes")


if __name__ == "__main__":
  app.run(main)
