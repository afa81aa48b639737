"""16,000 tokens in one go: speed and memory by sequence length.

Claim: a MatMul-free model keeps a state of fixed size, so neither the time nor
the energy nor the memory of a token depends on how many came before it. A model
writes 16,000 tokens one after the other on simulated cores, reads the same
tokens as a prompt in pieces, and every logit and the states of both ways equal
those of `fixed`.

  python experiments/long_run.py --workdir runs/long
  python experiments/long_run.py --smoke

Comes out: for every window of 500 tokens the modelled tokens/s and mJ/token of
the cores, and this machine's own tokens/s and resident memory; the slope of
each over the sequence, with its uncertainty; beside it what the cache of keys
and values of a transformer of equal size would grow by. --workdir FOLDER keeps
result.json and long_run.png, --json FILE the result alone. The exit status is 1
if an integer differs, or if something that should be constant is not.

Time on this machine drifts with its load, so every fifth token is followed by
one of a young sequence, begun anew in every window, through the same program:
the ratio of such neighbours does not drift. The first two windows compile and
are left out of slopes and plot.
"""

import functools
import os
import pathlib
import statistics
import sys
import time

import jax
import numpy as np
import script
from absl import flags

import jaxnmc as nmc
from jaxnmc.evaluate import provenance
from jaxnmc.models import matmulfree, sampling
from jaxnmc.models.model import Model
from jaxnmc.report import backends, files, lines, plots, tables

_MODEL = flags.DEFINE_string("model", "stories-mmf", "What `load` takes.")
_TOKENS = flags.DEFINE_integer("tokens", 16000, "To write.", lower_bound=1)
_WINDOW = flags.DEFINE_integer("window", 500, "Tokens a row.", lower_bound=2)
_CHIPS = flags.DEFINE_integer("chips", None, "Chips; default: as few as do.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the integer sampler.")
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny model.")
_JSON = flags.DEFINE_string("json", None, "Also write the result here.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for result and plot.")

_SMOKE_SIZES = {"tokens": 60, "window": 10}
_YOUNG = 100  # tokens of a young sequence in every window
_SKIP = 2  # windows that compile
_CACHE_BYTES = 2  # FP16
# What the whole interval of a change may reach and still be called constant:
# percent over the sequence; of memory, of what a transformer's cache grows by.
_MODELLED, _SPEED, _MEMORY = 1.0, 5.0, 50.0
_WIDTH = 100
_START = time.perf_counter()


def _say(text: str) -> None:
  """One line of progress; results go to stdout, this does not."""
  seconds = time.perf_counter() - _START
  print(f"[{seconds:7.1f} s] {text}", file=sys.stderr, flush=True)


def resident_bytes() -> int | None:
  """Memory of this process now; None where the system does not say (Linux)."""
  try:
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
  except OSError:
    return None
  return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cache_bytes_per_token(config) -> int:
  """Keys and values that a transformer of equal layers and width keeps."""
  return 2 * config.num_layers * config.hidden_size * _CACHE_BYTES


def _bytes(state) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


class Reader:
  """One sequence through one backend, piece by piece, with its state."""

  def __init__(self, run, qparams) -> None:
    self.run, self.qparams = run, qparams
    self.state = None

  def __call__(self, ids: np.ndarray):
    """(what `run` gives but for the state, seconds) for ids int32[1, T]."""
    start = time.perf_counter()
    found = self.run(self.qparams, {"ids": ids}, self.state)
    jax.block_until_ready(found[:2])
    self.state = found[1]
    return (found[0], *found[2:]), time.perf_counter() - start


class Run:
  """The long run of one model.

  Args:
    model: what `load` returned, or of its form.
    chips: chips; None for as few as do.
    seed: of the sampler.
  """

  def __init__(self, model, chips: int | None, seed: int) -> None:
    self.model = model
    made = backends.prepare(model, "loihi", chips=chips)
    self.placement, self.qparams = made.placement, made.qparams
    self.made = made
    fixed = jax.jit(nmc.fixed(model.fn, made.plan))
    self.writer = Reader(made.run, made.qparams)
    self.prompt = Reader(made.run, made.qparams)
    self.truth = Reader(fixed, made.qparams)
    self.next = backends.begin_id(model)
    self.written = self.integers = self.different = 0
    pick = sampling.IntegerSample(1.0, seed=seed)
    last = lambda logits: jax.tree.map(lambda x: x[:, -1], logits)
    self._pick = jax.jit(lambda logits, n: pick(last(logits), n))

  def window(self, tokens: int) -> dict:
    """Writes, reads and compares the next tokens; a row of the result."""
    young = Reader(self.made.run, self.qparams)
    fed, logits, counted, times, pairs = [], [], [], [], []
    for n in range(tokens):
      ids = np.array([[self.next]], np.int32)
      (out, counters), took = self.writer(ids)
      times.append(took)
      counted.append(counters)
      fed.append(self.next)
      logits.append(np.asarray(out.logits.q)[0])
      self.next = int(self._pick(out.logits, np.int32(self.written))[0])
      self.written += 1
      if n % max(1, tokens // _YOUNG) == 0:
        pairs.append((young(ids)[1], took))
    ids = np.array([fed], np.int32)
    (mine, prompt), reading = self.prompt(ids)
    (truth,), _ = self.truth(ids)
    expected = np.asarray(truth.logits.q)[0]
    self._compare(expected, np.concatenate(logits))
    self._compare(expected, np.asarray(mine.logits.q)[0])
    for reader in (self.writer, self.prompt):
      both = map(jax.tree.leaves, (self.truth.state, reader.state))
      for a, b in zip(*both, strict=True):
        self._compare(np.asarray(a), np.asarray(b))
    merged = functools.reduce(lambda a, b: a.merge(b), counted)
    writing = nmc.cost(merged, self.placement)
    cost = nmc.cost(prompt, self.placement)
    # The first call of a young sequence has no state, which is a program apart.
    del pairs[0]
    fresh = statistics.median(young for young, _ in pairs)
    return {
      "tokens": self.written,
      "generate_tokens_per_s": writing.generate_tokens_per_s.value,
      "generate_mj_per_token": writing.generate_mj_per_token.value,
      "prefill_tokens_per_s": cost.prefill_tokens_per_s.value,
      "prefill_mj_per_token": cost.prefill_mj_per_token.value,
      "host_generate_tokens_per_s": 1 / statistics.median(times),
      "host_young_tokens_per_s": 1 / fresh,
      "host_old_to_young": statistics.median(a / b for a, b in pairs),
      "host_prefill_tokens_per_s": tokens / reading,
      "resident_bytes": resident_bytes(),
      "state_bytes": _bytes(self.writer.state),
    }

  def _compare(self, a: np.ndarray, b: np.ndarray) -> None:
    self.integers += a.size
    same = a.shape == b.shape
    self.different += int((a != b).sum()) if same else a.size


# Key -> (what, unit, label).
SERIES = {
  "generate_tokens_per_s": ("generation", "tokens/s", "modelled"),
  "generate_mj_per_token": ("generation", "mJ/token", "modelled"),
  "prefill_tokens_per_s": ("prompt", "tokens/s", "modelled"),
  "prefill_mj_per_token": ("prompt", "mJ/token", "modelled"),
  "host_generate_tokens_per_s": ("generation here", "tokens/s", "measured"),
  "host_old_to_young": ("here, to a young one", "ratio", "measured"),
  "host_prefill_tokens_per_s": ("prompt here", "tokens/s", "measured"),
  "resident_bytes": ("process", "bytes", "measured"),
  "state_bytes": ("state", "bytes", "measured"),
}


def slopes(rows: list[dict], cache: int, smoke: bool) -> dict[str, dict]:
  """What each series does over the sequence.

  Args:
    rows: of `Run.window`; those that compile are left out.
    cache: bytes per token of a transformer's cache.
    smoke: judge only what no clock and no other program can disturb.

  Returns:
    `lines.fit` of each key of `SERIES` that is known, with what, unit, label,
    and "constant": whether it is; None where the load of the machine decides.
  """
  found = {}
  for key, (what, unit, label) in SERIES.items():
    values = [row[key] for row in rows[_SKIP:]]
    if None in values:
      continue
    fit = lines.fit([row["tokens"] for row in rows[_SKIP:]], values)
    most = max(abs(fit["change_low"]), abs(fit["change_high"]))
    constant = None
    if label == "modelled" or key == "state_bytes":
      constant = most <= _MODELLED
    elif key == "host_old_to_young" and not smoke:
      constant = most <= _SPEED
    elif key == "resident_bytes" and not smoke:
      grown = abs(fit["slope"]) + fit["slope_error"]
      constant = grown <= _MEMORY / 100 * cache
    head = {"what": what, "unit": unit, "label": label}
    found[key] = head | fit | {"constant": constant}
  return found


def figure(data: dict):
  """The plot: matplotlib figure of four panels."""
  rows = data["windows"][_SKIP:]
  at = [row["tokens"] for row in rows]
  made, axes = plots.new(2, 10, 6.4, rows=2)

  def panel(ax, title, unit, keys):
    for key, name, style in keys:
      ax.plot(at, [row[key] for row in rows], style, ms=3, label=name)
    ax.set(title=title, xlabel="tokens so far", ylabel=unit)
    ax.set_ylim(0, 1.1 * ax.get_ylim()[1])
    ax.legend(fontsize="small", loc="lower left")

  modelled = [("generate_tokens_per_s", "generation, modelled", "o-")]
  panel(axes[0], "Speed of the cores", "tokens/s", modelled)
  modelled = [
    ("generate_mj_per_token", "generation, modelled", "o-"),
    ("prefill_mj_per_token", "prompt, modelled", "s-"),
  ]
  panel(axes[1], "Energy of the cores", "mJ/token", modelled)
  here = [
    ("host_generate_tokens_per_s", "this sequence, measured", "o-"),
    ("host_young_tokens_per_s", "a young sequence, measured", ".:"),
  ]
  panel(axes[2], "Speed of the simulation", "tokens/s", here)
  if rows[0]["resident_bytes"] is not None:
    start = rows[0]["resident_bytes"]
    grown = [(row["resident_bytes"] - start) / 1e6 for row in rows]
    more = [data["cache_bytes_per_token"] * (n - at[0]) / 1e6 for n in at]
    state = f"its state, measured: {rows[0]['state_bytes'] / 1e3:.1f} kB always"
    ax = axes[3]
    ax.plot(at, grown, "o-", ms=3, label="whole process, measured")
    ax.plot(at, [0] * len(at), "-", lw=1, label=state)
    ax.plot(at, more, "k--", label="a transformer's cache, computed")
    title = f"Memory beyond the {start / 1e9:.2f} GB at {at[0]:,} tokens"
    ax.set(title=title, xlabel="tokens so far", ylabel="MB")
    ax.legend(fontsize="small", loc="upper left")
  name = f"{data['model']}: {data['tokens']:,} tokens in one sequence"
  made.suptitle(name)
  return made


def show(data: dict) -> None:
  """Prints rows, slopes and the verdict."""
  people = tables.console()
  people.width = _WIDTH
  keys = ("generate_tokens_per_s", "generate_mj_per_token")
  keys += ("prefill_tokens_per_s", "host_generate_tokens_per_s")
  keys += ("host_old_to_young",)
  some = data["windows"]
  every = max(1, len(some) // 16)
  body = [
    [r["tokens"], *(r[k] for k in keys), _size(r["resident_bytes"])]
    for r in some[every - 1 :: every]
  ]
  head = ("tokens", ">/s", ">mJ", ">prompt/s", ">here/s", ">old/young")
  title = "Modelled: /s, mJ per token, prompt/s; measured: the rest"
  people.print(tables.table(title, (*head, ">memory"), body))
  verdict = {True: "yes", False: "NO", None: "-"}
  body = [
    (
      f"{s['what']}, {s['unit']}",
      s["mean"],
      f"{s['slope']:.2e} ± {s['slope_error']:.1e}",
      f"{s['change']:+.3f} ± {s['change_high'] - s['change']:.3f}",
      s["label"],
      verdict[s["constant"]],
    )
    for s in data["slopes"].values()
  ]
  head = ("what", ">mean", ">per token", ">% in all", "label", "constant")
  title = f"Over {data['tokens']:,} tokens (95 %)"
  people.print(tables.table(title, head, body))
  growth, last = data["cache_bytes_per_token"], data["windows"][-1]
  people.print(
    f"A transformer of equal layers and width would keep {growth:,} bytes more"
    " per token (computed: keys and values, FP16):"
    f" {_size(growth * last['tokens'])} after {last['tokens']:,}. The"
    f" state here is {_size(last['state_bytes'])}.",
    markup=False,
    soft_wrap=True,
  )
  people.print(data["verdict"], markup=False, soft_wrap=True)


def _size(count: int | None) -> str:
  return "unknown" if count is None else tables.size(count)


def _tiny():
  """A model of one small layer, random weights, without a tokenizer."""
  config = matmulfree.Config(
    vocab_size=48, hidden_size=16, num_layers=1, intermediate_size=24
  )
  params = matmulfree.init_params(config, jax.random.key(0))
  params["embed"]["weight"] *= 20
  fn = matmulfree.make(config)
  init = functools.partial(matmulfree.init_state, config)
  return Model("tiny", config, params, fn, init)


def run() -> dict:
  """Does it all; returns what came out, ready for JSON."""
  model = _tiny() if _SMOKE.value else nmc.load(_MODEL.value)
  made = Run(model, _CHIPS.value, _SEED.value)
  rows: list[dict] = []
  while made.written < _TOKENS.value:
    left = _TOKENS.value - made.written
    rows.append(made.window(min(_WINDOW.value, left)))
    row = rows[-1]
    _say(
      f"{row['tokens']} tokens, {row['host_generate_tokens_per_s']:.1f}/s,"
      f" {_size(row['resident_bytes'])}, {made.different} integers differ"
    )
  cache = cache_bytes_per_token(model.config)
  found = slopes(rows, cache, _SMOKE.value)
  moved = [s["what"] for s in found.values() if s["constant"] is False]
  equal = f"loihi == fixed: bit-equal ({made.integers:,} integers)"
  if made.different:
    equal = f"loihi != fixed: {made.different:,} of {made.integers:,} differ"
  verdict = "constant over the sequence" if not moved else f"not: {moved}"
  return {
    "experiment": "long_run",
    "model": model.name,
    "tokens": made.written,
    "window": _WINDOW.value,
    "seed": _SEED.value,
    "integers": made.integers,
    "different": made.different,
    "constant": not moved,
    "verdict": f"{equal}; {verdict}",
    "windows": rows,
    "slopes": found,
    "cache_bytes_per_token": cache,
    "cache": {"label": "modelled", "source": "2 x layers x width x 2 bytes"},
    "cores_here": os.cpu_count(),
    "seconds": time.perf_counter() - _START,
    **backends.fingerprints(model, made.made),
    "versions": provenance.versions(),
  }


def main() -> int:
  """Runs the script."""
  files.check_writable(_JSON.value)
  if _WORKDIR.value:
    plots.check(_WORKDIR.value)
  data = run()
  show(data)
  files.write_json(_JSON.value, data)
  if _WORKDIR.value:
    files.make_folder(_WORKDIR.value)
    files.write_json(f"{_WORKDIR.value}/result.json", data)
    plots.save({"long_run": figure(data)}, _WORKDIR.value)
  return 0 if not data["different"] and data["constant"] else 1


if __name__ == "__main__":
  script.start(main, _SMOKE_SIZES)
