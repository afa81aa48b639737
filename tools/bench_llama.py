r"""Our 370M shape beside llama.cpp's TQ2_0 of the same shape, in turns.

  python tools/bench_llama.py --make 370m.gguf
  python tools/bench_llama.py --bench build/bin/llama-bench \
    --model 370m.gguf --json llama.json

`--make` needs the PyPI package `gguf`.  It writes a model of the llama
architecture with the sizes of the shape and random ternary weights; every
matrix, embedding and head too, is TQ2_0: what `llama-quantize` makes of the
same weights, bit for bit.  The sdist of the PyPI package `llama-cpp-python`
(here 0.3.36) holds llama.cpp in `vendor/llama.cpp`; cmake and ninja are on
PyPI.  The build, for the CPU that measures:

  pip download --no-binary llama-cpp-python --no-deps llama-cpp-python
  cmake -S vendor/llama.cpp -B build -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF
  ninja -C build llama-bench

A turn is `llama-bench` with some number of threads (prompt, then tokens after
an empty context, each after its own warm-up), then ours with all CPUs (prompt,
then tokens after it and after a warm-up, with their counters read), so that a
busy moment hits both; medians are compared.
The two do not compute the same: llama.cpp takes 8-bit activations with float
scales and attends over the tokens so far; ours takes exact 16-bit ones, a
recurrence, and counts.  `JAXNMC_NATIVE=0` measures ours in pure XLA.
"""

import argparse
import importlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from jaxnmc.evaluate import provenance
from jaxnmc.kernels import native
from jaxnmc.report.bench import models, shapes

LEAST, GOAL = 1.0, 1.5  # times the decode of llama.cpp
SHAPE = "370M"
PROMPT, TOKENS = 512, 32
_ROUNDS = 5
_HEAD_DIM = 128  # large heads are the cheaper ones
_SPECIAL = ("<unk>", "<s>", "</s>")


def tensors(shape: shapes.Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Names and shapes of a llama model's tensors; norms have one axis."""
  d, inner, ends = shape.hidden, shape.intermediate, (shape.vocab, shape.hidden)
  yield "token_embd.weight", ends
  for k in range(shape.layers):
    block = f"blk.{k}."
    yield f"{block}attn_norm.weight", (d,)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
      yield f"{block}{name}.weight", (d, d)
    yield f"{block}ffn_norm.weight", (d,)
    yield f"{block}ffn_gate.weight", (inner, d)
    yield f"{block}ffn_up.weight", (inner, d)
    yield f"{block}ffn_down.weight", (d, inner)
  yield "output_norm.weight", (d,)
  yield "output.weight", ends


def parameters(shape: shapes.Shape) -> int:
  """Parameters of that model."""
  return sum(int(np.prod(size)) for _, size in tensors(shape))


def vocabulary(size: int) -> list[tuple[str, int]]:
  """Made-up pieces of a SentencePiece vocabulary, with their GGUF types."""
  unknown, normal, control, byte = 2, 1, 3, 6
  pieces = [(_SPECIAL[0], unknown), *((x, control) for x in _SPECIAL[1:])]
  pieces += [(f"<0x{k:02X}>", byte) for k in range(256)]
  pieces += [(f"piece{k}", normal) for k in range(len(pieces), size)]
  return pieces[:size]


def make(path: str, shape: shapes.Shape, seed: int = 0) -> None:
  """Writes a random ternary llama model, all matrices TQ2_0.

  Args:
    path: of the GGUF file.
    shape: sizes; widths are multiples of 256, the blocks of TQ2_0.
    seed: of the weights.

  Raises:
    SystemExit: the package `gguf` is not installed.
  """
  try:
    gguf = importlib.import_module("gguf")
  except ImportError as error:
    raise SystemExit(f"--make needs 'pip install gguf' ({error})") from error
  out = gguf.GGUFWriter(path, "llama")
  heads = max(1, shape.hidden // _HEAD_DIM)
  out.add_vocab_size(shape.vocab)
  out.add_context_length(2048)
  out.add_embedding_length(shape.hidden)
  out.add_block_count(shape.layers)
  out.add_feed_forward_length(shape.intermediate)
  out.add_head_count(heads)
  out.add_head_count_kv(heads)
  out.add_layer_norm_rms_eps(1e-6)
  out.add_rope_dimension_count(shape.hidden // heads)
  out.add_file_type(gguf.LlamaFileType.MOSTLY_TQ2_0)
  out.add_quantization_version(gguf.GGML_QUANT_VERSION)
  pieces, kinds = zip(*vocabulary(shape.vocab), strict=True)
  out.add_tokenizer_model("llama")
  out.add_token_list(pieces)
  out.add_token_scores([0.0] * len(pieces))
  out.add_token_types(kinds)
  out.add_unk_token_id(0)
  out.add_bos_token_id(1)
  out.add_eos_token_id(2)
  draw, two_bits = np.random.default_rng(seed), gguf.GGMLQuantizationType.TQ2_0
  for name, size in tensors(shape):
    if len(size) == 1:
      out.add_tensor(name, np.ones(size, np.float32))
      continue
    # Two thirds are not zero: outputs keep the size of inputs.
    scale = np.float32(np.float16((size[1] * 2 / 3) ** -0.5))
    codes = draw.integers(-1, 2, size, np.int8) * scale
    small = gguf.quants.quantize(codes.astype(np.float32), two_bits)
    out.add_tensor(name, small, raw_dtype=two_bits)
  out.write_header_to_file()
  out.write_kv_data_to_file()
  out.write_tensors_to_file()
  out.close()


def parse(text: str, shape: shapes.Shape) -> dict[str, Any]:
  """Reads what `llama-bench -o json` printed for one number of threads.

  Args:
    text: its output.
    shape: what the model file has to be.

  Returns:
    "prefill" and "decode" in tokens/s, and "facts" about build and file.

  Raises:
    ValueError: something else, or a model of another shape.
  """
  try:
    found = {_kind(x): x for x in json.loads(text)}
    prefill, decode = (
      statistics.median(found[what]["samples_ts"])
      for what in ("prefill", "decode")
    )
    facts = {
      key: found["decode"][key]
      for key in (
        *("build_commit", "build_number", "cpu_info", "model_type"),
        *("model_size", "model_n_params", "n_threads"),
      )
    }
  except (KeyError, TypeError, statistics.StatisticsError) as error:
    raise ValueError(f"no result of llama-bench: {error!r}") from error
  if facts["model_n_params"] != parameters(shape):
    raise ValueError(
      f"--model has {facts['model_n_params']} parameters, the shape"
      f" {parameters(shape)}; --make writes one that fits"
    )
  return {"prefill": prefill, "decode": decode, "facts": facts}


def _kind(test: dict) -> str:
  prompt, tokens = test["n_prompt"], test["n_gen"]
  if bool(prompt) == bool(tokens):
    raise KeyError(f"prompt {prompt} and tokens {tokens} in one test")
  return "prefill" if prompt else "decode"


def llama(bench: str, model: str, threads: int, shape: shapes.Shape) -> dict:
  """One run of llama-bench, see `parse`.

  Raises:
    ValueError: it cannot be run, fails, or says something else.
  """
  command = [
    *(bench, "-m", model, "-o", "json", "-r", "1", "-ngl", "0"),
    *("-p", str(PROMPT), "-n", str(TOKENS), "-t", str(threads)),
  ]
  try:
    run = subprocess.run(command, capture_output=True, text=True)
  except OSError as error:
    raise ValueError(f"--bench {bench}: {error.strerror}") from error
  if run.returncode:
    last = (run.stderr.strip() or "no word").splitlines()[-1]
    raise ValueError(f"--bench ended with {run.returncode}: {last}")
  return parse(run.stdout, shape)


class Ours:
  """The same shape in `loihi`, counters on.

  Args:
    shape: sizes.
  """

  def __init__(self, shape: shapes.Shape) -> None:
    built = shapes.build(shape, shapes.formats_apart(shape))
    cases = models.shape_cases(built, SHAPE, PROMPT, others=False)
    self.prefill, self.decode = cases
    self.turn()  # compiles
    self.facts = {
      "kernel": native.path() if native.available() else None,
      "weight_bytes": self.decode.weight_bytes // self.decode.tokens,
      "cpus": os.cpu_count(),
    }

  def turn(self) -> dict[str, float]:
    """Tokens/s of a prompt, and of tokens after it."""
    start = time.perf_counter()
    self.prefill.run()
    after = time.perf_counter() - start
    self.decode.run()  # llama-bench warms up, too
    middle = time.perf_counter()
    for _ in range(TOKENS // self.decode.tokens):
      self.decode.run()
    end = time.perf_counter()
    return {
      "prefill": PROMPT / after,
      "decode": TOKENS / (end - middle),
    }


def take_turns(
  rounds: int,
  threads: Sequence[int],
  theirs: Callable[[int], dict],
  ours: Callable[[], dict],
  say: Callable[[str], None] = lambda text: None,
) -> list[dict]:
  """Turns of both, threads inside rounds; a turn holds what both gave."""
  turns, begin = [], time.monotonic()
  for number in range(1, rounds + 1):
    for count in threads:
      turn: dict[str, Any] = {"threads": count, "load": os.getloadavg()[0]}
      turn |= {"llama": theirs(count), "ours": ours()}
      turns.append(turn)
      say(_told(turn))  # a long run that is ended has shown something
    left = (time.monotonic() - begin) / number * (rounds - number)
    say(f"round {number} of {rounds}, about {left:.0f} s left")
  return turns


def _told(turn: dict) -> str:
  pair = lambda x: f"{turn['llama'][x]:.1f} and {turn['ours'][x]:.1f}"
  return (
    f"threads {turn['threads']}, load {turn['load']:.1f}: decode"
    f" {pair('decode')}, prefill {pair('prefill')} (llama.cpp, ours)"
  )


def compare(turns: Sequence[dict]) -> list[dict]:
  """A row per number of threads and kind: medians, and their ratio.

  The span of ratios is that of single turns.  The goal is that of decode,
  beside the number of threads that llama.cpp is fastest with.
  """
  rows = []
  for what in ("decode", "prefill"):
    for count in dict.fromkeys(x["threads"] for x in turns):
      mine = [x for x in turns if x["threads"] == count]
      theirs, ours = ([x[y][what] for x in mine] for y in ("llama", "ours"))
      ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
      middle = statistics.median(ours) / statistics.median(theirs)
      rows.append(
        {
          "what": what,
          "threads": count,
          "llama_tokens_per_s": statistics.median(theirs),
          "ours_tokens_per_s": statistics.median(ours),
          "ratio": middle,
          "least_ratio": min(ratios),
          "largest_ratio": max(ratios),
          "label": "measured",
        }
      )
  decode = (row for row in rows if row["what"] == "decode")
  fastest = max(decode, key=lambda row: row["llama_tokens_per_s"])
  fastest["goal"] = _goal(fastest["ratio"])
  return rows


def _goal(ratio: float) -> str:
  if ratio >= GOAL:
    return "goal"
  return "met" if ratio >= LEAST else "not met"


def render(found: dict) -> str:
  """The table, at most 80 columns."""
  load, facts, ours = found["load_average"], found["llama"], found["ours"]
  bits = 8 * facts["model_size"] / facts["model_n_params"]
  lines = [
    f"measured: medians of {found['rounds']} rounds, in turns; {SHAPE} shape",
    f"load average {load['before']:.1f} before, {load['least']:.1f} to"
    f" {load['largest']:.1f} at the turns",
    f"llama.cpp: build {facts['build_commit']}, {bits:.2f} bits per weight",
    f"ours: loihi, counters on, {ours['cpus']} CPUs,"
    f" kernel {ours['kernel'] or 'none (XLA)'}",
    "",
    f"{'tokens/s':12} {'threads':>7} {'llama.cpp':>9} {'ours':>9}"
    f" {'ratio':>6}  single turns",
  ]
  for row in found["rows"]:
    size = TOKENS if row["what"] == "decode" else PROMPT
    mark = {"goal": f"  >= {GOAL}", "met": f"  >= {LEAST}"}
    mark["not met"] = f"  < {LEAST}"
    lines.append(
      f"{row['what']:8}{size:4} {row['threads']:7}"
      f" {row['llama_tokens_per_s']:9.1f} {row['ours_tokens_per_s']:9.1f}"
      f" {row['ratio']:6.2f}  {row['least_ratio']:.2f} to"
      f" {row['largest_ratio']:.2f}{mark.get(row.get('goal', ''), '')}"
    )
  return "\n".join(lines)


def bench(
  program: str, model: str, rounds: int, threads: Sequence[int]
) -> dict:
  """Measures both; gives what `--json` writes.

  Raises:
    ValueError: llama-bench cannot be used, see `llama`.
  """
  begin, before = time.monotonic(), os.getloadavg()[0]

  def say(text: str) -> None:
    print(f"[{time.monotonic() - begin:5.0f} s] {text}", file=sys.stderr)

  shape, commit = shapes.SHAPES[SHAPE], provenance.commit()
  theirs = lambda count: llama(program, model, count, shape)
  say("llama-bench once, about 10 s")
  facts = theirs(max(threads))["facts"]
  say("ours: random weights, formats, compiling; about 40 s")
  ours = Ours(shape)
  turns = take_turns(rounds, threads, theirs, ours.turn, say)
  loads = [x["load"] for x in turns]
  return {
    "rows": compare(turns),
    "turns": turns,
    "rounds": rounds,
    "load_average": {
      "before": before,
      "least": min(loads),
      "largest": max(loads),
    },
    "llama": facts,
    "ours": ours.facts,
    "versions": provenance.versions(),
    "commit": commit,
  }


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  every = os.cpu_count() or 1
  parser.add_argument("--make", metavar="GGUF", help="write a model and end")
  parser.add_argument("--bench", help="the program llama-bench")
  parser.add_argument("--model", metavar="GGUF", help="what --make wrote")
  parser.add_argument("--rounds", type=int, default=_ROUNDS)
  parser.add_argument(
    "--threads", default=",".join(map(str, dict.fromkeys((1, every))))
  )
  parser.add_argument("--json", type=pathlib.Path)
  args = parser.parse_args(argv)
  if args.make:
    make(args.make, shapes.SHAPES[SHAPE])
    return 0
  if not (args.bench and args.model):
    parser.error("--bench and --model, or --make, have to be given")
  if args.rounds < _ROUNDS:
    parser.error(f"--rounds {args.rounds}: medians want at least {_ROUNDS}")
  if not all(x.isdigit() and int(x) for x in args.threads.split(",")):
    parser.error(f"--threads {args.threads}: numbers from 1, with commas")
  if jax.default_backend() != "cpu":
    parser.error("both are measured on the CPU; JAX_PLATFORMS=cpu sees to it")
  threads = [int(x) for x in args.threads.split(",")]
  try:
    found = bench(args.bench, args.model, args.rounds, threads)
  except ValueError as error:
    parser.error(str(error))
  if args.json:
    args.json.write_text(json.dumps(found, indent=1) + "\n")
  print(render(found))
  return 0


if __name__ == "__main__":
  sys.exit(main())
