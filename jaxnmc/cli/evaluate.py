"""`jaxnmc evaluate`: bits per byte and perplexity of a text."""

import contextlib
import time

from jaxnmc.cli import setup
from jaxnmc.cli.output import Output, is_terminal
from jaxnmc.evaluate import Scorer, cut, encode, provenance, text
from jaxnmc.report import backends


def main(args) -> int:
  """Runs the command; the JSON goes to standard output in any case."""
  out = Output(args)
  model = setup.load(args, out)
  tokenizer = backends.need_tokenizer(model)
  documents = text.read_documents([args.text])
  lengths = None
  if args.prefix_bytes is not None:
    lengths = text.read_lengths(args.prefix_bytes)
  texts = cut(documents, lengths)[: args.max_documents]
  rows, size = encode(tokenizer, texts, model.config.vocab_size, args.max_ids)
  backend = setup.prepare(args, out, model)
  scorer = Scorer(backend.run, jit=backend.jit)
  start = time.perf_counter()
  with _bar(sum(len(row) for row in rows)) as advance:
    score = scorer(
      *(backend.params, rows, size),
      bos=backends.begin_id(model),
      batch=args.batch,
      progress=advance,
    )
  data = {
    "label": "measured",
    "bits_per_byte": score.bits_per_byte,
    "perplexity": score.perplexity,
    "nats": score.nats,
    "ids": score.ids,
    "bytes": score.bytes,
    "documents": score.documents,
    "model": model.name,
    "backend": backend.name,
    "engine": backend.engine,
    "text": args.text,
    "text_sha256": provenance.file_sha256(args.text),
    "range": {
      "prefix_bytes": args.prefix_bytes,
      "max_ids": args.max_ids,
      "max_documents": args.max_documents,
    },
    **backends.fingerprints(model, backend),
    "logits_integers": score.integers,
    "logits_sha256": score.digest,
    "seconds": round(time.perf_counter() - start, 3),
    "notes": list(backend.notes),
    "versions": provenance.versions(),
  }
  out.answer(data)
  return 0


@contextlib.contextmanager
def _bar(total: int):
  """Yields `advance(ids)`; draws a bar with an ETA on a terminal's stderr."""
  if not is_terminal():
    yield lambda ids: None
    return
  from rich import console, progress

  columns = (
    progress.TextColumn("ids"),
    progress.MofNCompleteColumn(),
    progress.BarColumn(),
    progress.TextColumn("ETA"),
    progress.TimeRemainingColumn(),
  )
  with progress.Progress(
    *columns, console=console.Console(stderr=True), transient=True
  ) as bar:
    task = bar.add_task("evaluate", total=total)
    yield lambda ids: bar.advance(task, ids)
