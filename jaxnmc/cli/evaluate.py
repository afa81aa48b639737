"""`jaxnmc evaluate`: perplexity of a text, or accuracy on multiple choice."""

import contextlib
import pathlib
import time
from typing import Any

from jaxnmc.cli import setup
from jaxnmc.cli.output import Output, bar
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import (
  Scorer,
  bits,
  choices,
  cut,
  encode,
  journal,
  provenance,
  tasks,
  text,
  windows,
)
from jaxnmc.report import backends, files, tables

# Which flags belong to which kind of evaluation.
_OF_TEXT = ("max_ids", "prefix_bytes", "max_documents", "window", "stride")

_OF_TASKS = ("limit", "form")
_ACCURACIES = ("acc", "acc_norm")


def main(args) -> int:
  """Runs the command; the JSON goes to standard output in any case."""
  out = Output(args)
  _check_flags(args)
  measure = _text if args.task is None else _tasks
  out.answer(measure(args, out))
  return 0


def _check_flags(args) -> None:
  """Refuses flags of the other kind, before anything is looked at.

  Raises:
    ConfigError: a flag that would have no effect, or impossible windows.
  """
  if args.journal is not None:
    files.check_folder(args.journal)
  kind, other = ("text", "task") if args.task is None else ("task", "text")
  for name in _OF_TASKS if args.task is None else _OF_TEXT:
    if getattr(args, name) is not None:
      raise ConfigError(
        f"--{name} is about --{other}, found --{kind}; leave one of them out"
      )
  if args.window is None and args.stride is not None:
    raise ConfigError(
      "--stride is about --window, which is not there; give --window, too"
    )
  if args.window is not None:
    windows.check(args.window, _stride(args))


def _stride(args) -> int:
  return args.stride or max(args.window // 2, 1)


def _text(args, out: Output) -> dict[str, Any]:
  """Bits per byte and perplexity of `--text`."""
  model = setup.load(args, out)
  tokenizer = backends.need_tokenizer(model)
  documents = text.read_documents([args.text])
  lengths = None
  if args.prefix_bytes is not None:
    lengths = text.read_lengths(args.prefix_bytes)
  texts = cut(documents, lengths)[: args.max_documents]
  rows, size = encode(tokenizer, texts, model.config.vocab_size, args.max_ids)
  words = bits.words_of(tokenizer, texts, rows, args.max_ids)
  backend = setup.prepare(args, out, model)
  about = _about(model, backend, args.batch)
  head = {
    "text_sha256": provenance.file_sha256(args.text),
    "prefixes": lengths,
    "max_ids": args.max_ids,
    "window": args.window,
    "stride": None if args.window is None else _stride(args),
  }
  start = time.perf_counter()
  with contextlib.ExitStack() as stack:
    kept = None
    if args.journal is not None:
      path = _journal(args, pathlib.Path(args.text).stem, backend)
      kept = journal.Parts(path, head | about)
      stack.callback(kept.close)
    before = len(kept.done) if kept else 0
    options = {
      "bos": backends.begin_id(model),
      "batch": args.batch,
      "words": words,
      "done": kept.done if kept else None,
      "keep": kept.keep if kept else None,
      "progress": stack.enter_context(bar("ids", sum(map(len, rows)))),
    }
    if args.window is None:
      scorer = Scorer(backend.run, jit=backend.jit)
      score = scorer(backend.params, rows, size, **options)
    else:
      score = windows.score(
        *(backend.run, backend.params, rows, size),
        window=args.window,
        stride=head["stride"],
        jit=backend.jit,
        **options,
      )
  return {
    "label": "measured",
    "bits_per_byte": score.bits_per_byte,
    "perplexity": score.perplexity,
    "word_perplexity": score.word_perplexity,
    "nats": score.nats,
    "ids": score.ids,
    "bytes": score.bytes,
    "words": score.words,
    "documents": score.documents,
    "parts_from_journal": before,
    "model": model.name,
    "text": args.text,
    "text_sha256": head["text_sha256"],
    "range": {
      "prefix_bytes": args.prefix_bytes,
      "max_ids": args.max_ids,
      "max_documents": args.max_documents,
      "window": args.window,
      "stride": head["stride"],
    },
    **about,
    "logits_integers": score.integers,
    "logits_sha256": score.digest,
    "seconds": round(time.perf_counter() - start, 3),
    "notes": list(backend.notes),
  }


def _about(model, backend, batch: int) -> dict[str, Any]:
  """All that a result depends on; what the model is called is not of it."""
  return {
    "backend": backend.name,
    "engine": backend.engine,
    **backends.fingerprints(model, backend),
    "tokenizer_sha256": provenance.tokenizer_sha256(model.tokenizer),
    "begin_id": backends.begin_id(model),
    "batch": batch,
    "versions": provenance.versions(),
  }


def _journal(args, name: str, backend) -> pathlib.Path:
  """The file of a journal; its folder is made."""
  return files.make_folder(args.journal) / f"{name}.{backend.name}.jsonl"


def _tasks(args, out: Output) -> dict[str, Any]:
  """Accuracy on the files of `--task`."""
  found = [tasks.read(path, args.form) for path in args.task]
  names = [task.name for task in found]
  if len(set(names)) < len(names):
    raise ConfigError(
      f"--task: found {', '.join(names)}; allowed is one file of a name"
    )
  model = setup.load(args, out)
  backends.need_tokenizer(model)
  backend = setup.prepare(args, out, model)
  subject = backends.subject(model, backend)
  likelihood = subject.likelihood(args.batch)
  about = _about(model, backend, args.batch)
  about["chunk"] = likelihood.rows.chunk
  start = time.perf_counter()
  with bar("items", sum(_count(task, args.limit) for task in found)) as advance:
    results = [
      _task(args, task, about, backend, likelihood, subject.tokenizer, advance)
      for task in found
    ]
  _table(out, results)
  return {
    "label": "measured",
    "tasks": results,
    "model": model.name,
    **about,
    "limit": args.limit,
    "seconds": round(time.perf_counter() - start, 3),
    "notes": list(backend.notes),
  }


def _count(task: tasks.Task, limit: int | None) -> int:
  return len(task.items[:limit])


def _task(
  args, task, about, backend, likelihood, tokenizer, advance
) -> dict[str, Any]:
  """Accuracy on one task, with what a reader has to know of it."""
  asked = task._replace(items=task.items[: args.limit])
  start = time.perf_counter()
  head = {"task": task.name, "form": task.form, "task_sha256": task.sha256}
  with contextlib.ExitStack() as stack:
    kept = None
    if args.journal is not None:
      path = _journal(args, task.name, backend)
      kept = journal.Answers(path, head | about, task)
      stack.callback(kept.close)
    before = set(kept.done) if kept else set()
    answers = choices.answer(
      *(likelihood, tokenizer, asked),
      done=kept.done if kept else None,
      keep=kept.keep if kept else None,
      progress=advance,
    )
  result = choices.result(asked, answers)
  return {
    **head,
    "file": task.path,
    "items": len(answers),
    "items_in_file": len(task.items),
    "items_from_journal": sum(item.id in before for item in asked.items),
    "acc": result.acc.value,
    "acc_interval": result.acc.interval,
    "acc_norm": result.acc_norm.value,
    "acc_norm_interval": result.acc_norm.interval,
    "interval": "95 %, Wilson",
    "chance": result.chance,
    "seconds": round(time.perf_counter() - start, 3),
  }


def _table(out: Output, results: list[dict[str, Any]]) -> None:
  """The same for people, on stderr: standard output has the JSON."""
  rows = [
    (
      *(one["task"], str(one["items"])),
      *(_share(one[name], one[f"{name}_interval"]) for name in _ACCURACIES),
      f"{100 * one['chance']:.1f}",
    )
    for one in results
  ]
  measures = [f">{name} % (95 %)" for name in _ACCURACIES]
  columns = ["task", ">items", *measures, ">chance %"]
  out.errors.print(tables.table("measured", columns, rows))


def _share(value: float, interval: tuple[float, float]) -> str:
  low, high = interval
  return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
