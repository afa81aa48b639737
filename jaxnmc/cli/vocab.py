"""`jaxnmc vocab`: a model of fewer tokens, and what that costs in bits."""

import time

import jaxnmc
from jaxnmc.cli.output import Output, bar
from jaxnmc.evaluate import provenance, read_documents
from jaxnmc.io import files, reduced
from jaxnmc.report import vocabulary
from jaxnmc.train import export, qat

REPORT = "vocabulary.json"


def main(args) -> int:
  """Runs the command.

  Raises:
    CheckpointError: the folder is taken, or as `jaxnmc.load`.
    DataError: a text cannot be read, or has nothing to score.
    TokenError: no tokenizer, one that cannot be cut, or an impossible size.
  """
  start = time.perf_counter()
  out = Output(args)
  # The name is taken before the work, and the folder appears when all is done.
  with files.new_folder(args.out) as work:
    model = jaxnmc.load(args.model)
    out.notes(model.notes)
    texts = _documents(args.text, None)
    cut, kept = reduced.reduce(model, texts, args.size)
    if model.plan is not None:
      out.notes(
        [
          "the plan that the model brought is left out, as it names no head of"
          " this size; make one with 'jaxnmc plan make'"
        ]
      )
    scored = args.score or args.text
    tasks = [
      vocabulary.task(m, _documents(scored, args.documents))
      for m in (model, cut)
    ]
    with bar("ids scored", sum(t.ids for t in tasks)) as advance:
      before, after = (
        vocabulary.measure(t, args.batch, advance) for t in tasks
      )
    saved = cut.replace(params=qat.latents(cut.params))
    data = {
      "command": "vocab",
      "labels": {
        "measured": ["ids_per_byte", "bits_per_byte", "perplexity_per_id"],
        "counted": ["tokens", "parameters", "megabytes", "ids", "bytes"],
      },
      "model": model.name,
      "weights_sha256": provenance.params_sha256(model.params),
      "text": args.text,
      "text_sha256": provenance.file_sha256(args.text),
      "scored": scored,
      "scored_sha256": provenance.file_sha256(scored),
      "documents": args.documents,
      "backend": "float",
      "out": args.out,
      "before": before,
      "after": after,
      "kept": kept.tolist(),
      "versions": provenance.versions(),
      "seconds": round(time.perf_counter() - start, 1),
    }
    export.save_folder(work, saved, {"reduced_from": model.name})
    files.write_json(work / REPORT, data)
  vocabulary.show(out.people, data)
  if scored == args.text:
    out.line("Scored on the text that the tokens were chosen on; --score FILE")
    out.line("takes another one.")
  out.line(f"{args.out}: {args.size:,} tokens; report in {REPORT}")
  out.result(data)
  return 0


def _documents(path: str, most: int | None) -> list[bytes]:
  """Documents of a text as UTF-8, the first ones only if so asked."""
  return [text.encode() for text in read_documents([path])[:most]]
