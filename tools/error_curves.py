"""Errors of the integer tables against their size, and of norms and codes.

Prints the tables of docs/numerics.md.  NumPy only, a few seconds.

  python tools/error_curves.py [--plot curves.png] [--json FILE]
"""

import json
import pathlib

import numpy as np
from absl import app, flags

from jaxnmc import _extras
from jaxnmc.numerics.formats import frac_for, symmetric_limit
from jaxnmc.numerics.sigmoid import SigmoidTable

SEGMENTS = (1, 2, 4, 8, 16, 32, 64)
ENTRIES = (6, 12, 24, 48, 96)
STEPS = (1, 2, 3, 4, 5)


def table_sigmoid(k: np.ndarray, table: SigmoidTable) -> np.ndarray:
  """docs/numerics.md section 7 on int64 codes."""
  nodes = table.nodes.astype(np.int64)
  a = np.minimum(np.abs(k), table.reach)
  j = np.minimum(a >> table.spacing, table.segments - 1)
  rise = (nodes[j + 1] - nodes[j]) * (a - (j << table.spacing))
  y = nodes[j] + (rise >> table.spacing)
  return np.where(k < 0, (1 << table.out_frac) - y, y)


def sigmoid_errors(table: SigmoidTable) -> tuple[float, float]:
  """Largest error at input codes, and at real inputs rounded to codes."""
  scale = 1 << table.in_frac
  points = np.arange(-12 * scale * 16, 12 * scale * 16 + 1)
  x = points / (scale * 16)
  k = np.floor(x * scale + 0.5).astype(np.int64)
  value = table_sigmoid(k, table) / (1 << table.out_frac)
  error = np.abs(value - 1 / (1 + np.exp(-x)))
  return float(error[points % 16 == 0].max()), float(error.max())


def seeds(entries: int) -> np.ndarray:
  """Seed 2^19 / sqrt(x) per entry, largest x first.

  24 entries: one an octave.  More of them share an octave; fewer cover several
  octaves, and then start from the top of the range (a seed that is too large
  would not converge).
  """
  edges = 2.0 ** np.linspace(24, 0, entries + 1)
  middle = np.sqrt(edges[1:] * edges[:-1])
  return np.floor(2**19 / np.sqrt(middle if entries > 12 else edges[:-1]))


def root_error(entries: int, steps: int) -> float:
  """Largest relative error of the inverse root for 2^8 <= x < 2^16."""
  x = np.arange(1 << 8, 1 << 16, dtype=np.int64)
  index = np.floor((24 - np.log2(x)) * entries / 24 - 1e-9).astype(int)
  seed = seeds(entries).astype(np.int64)[np.clip(index, 0, entries - 1)]
  b, y = x, seed >> 1
  for _ in range(steps):
    b = ((b * seed >> 13) * seed) >> 13
    seed = 12288 - b
    y = (y * seed) >> 13
  return float(np.abs(y * np.sqrt(x) / 2**18 - 1).max())


def scalar_norm_errors(spread: float, channels: float) -> tuple[float, float]:
  """Errors of the paper's scalar double norm: (element-wise, mean) reading.

  Args:
    spread: standard deviation of the gains around 1.
    channels: standard deviation of the log of the channels' deviations.

  Returns:
    Mean of |z - exact| / |exact| over 64 rows of 512 features.
  """
  rng = np.random.default_rng(0)
  n, eps = 512, 1e-3
  gain = 1 + spread * rng.standard_normal(n)
  gain2 = 1 + spread * rng.standard_normal(n)
  deviation = np.exp(channels * rng.standard_normal(n))
  x = rng.standard_normal((64, n)) * deviation
  mean = lambda a: np.mean(a, axis=-1, keepdims=True)
  y = x * gain / np.sqrt(mean(x * x) + eps)
  exact = y * gain2 / np.sqrt(mean(y * y) + eps)

  def error(square):
    root = np.sqrt(mean(x * x) * (square + eps) + eps**2)
    off = x * gain * gain2 / root - exact
    norms = np.linalg.norm(off, axis=-1) / np.linalg.norm(exact, axis=-1)
    return float(norms.mean())

  return error(gain**2), error(np.mean(gain**2))


def activation_noise() -> dict[str, float]:
  """Noise of a quantised Gaussian row, relative to the row (512 features)."""
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2048, 512))
  scale = 127 / np.abs(x).max(axis=-1, keepdims=True)
  rows = {"dynamic 8 bit, one scale a token": np.round(x * scale) / scale}
  for bits in (16, 12, 8):
    frac = frac_for(float(np.abs(x).max()), bits)
    high = symmetric_limit(bits)
    codes = np.clip(np.floor(x * 2.0**frac + 0.5), -high, high)
    rows[f"static {bits} bit, frac {frac}"] = codes * 2.0**-frac
  size = np.sqrt(np.mean(x * x))
  return {
    k: float(np.sqrt(np.mean((v - x) ** 2)) / size) for k, v in rows.items()
  }


def curves() -> dict:
  """All tables, as plain data."""
  sigmoid = {
    s: sigmoid_errors(SigmoidTable(spacing=9 - s.bit_length() + 1, segments=s))
    for s in SEGMENTS
  }
  root = {n: [root_error(n, steps) for steps in STEPS] for n in ENTRIES}
  spreads = [(0.0, 0.0), (0.1, 0.0), (0.3, 0.0), (0.3, 0.5), (0.3, 1.0)]
  norm = [(s, d, *scalar_norm_errors(s, d)) for s, d in spreads]
  return {
    "sigmoid": sigmoid,
    "root": root,
    "double_norm": norm,
    "activations": activation_noise(),
  }


def _row(*cells) -> str:
  return "| " + " | ".join(str(c) for c in cells) + " |"


def report(data: dict) -> str:
  """The tables as Markdown."""
  lines = [_row("segments", "error at codes", "with rounded input")]
  lines.append("| --- | --- | --- |")
  for segments, (codes, real) in data["sigmoid"].items():
    lines.append(_row(segments, f"{codes:.4f}", f"{real:.4f}"))
  lines += ["", _row("entries", *(f"{s} steps" for s in STEPS))]
  lines.append("| --- " * (1 + len(STEPS)) + "|")
  for entries, errors in data["root"].items():
    lines.append(_row(entries, *(f"{e:.1e}" for e in errors)))
  lines += ["", _row("s", "d", "element-wise", "mean")]
  lines.append("| --- | --- | --- | --- |")
  for spread, channels, element, mean in data["double_norm"]:
    lines.append(_row(spread, channels, f"{element:.2%}", f"{mean:.2%}"))
  lines += ["", _row("input of a product", "noise")]
  lines.append("| --- | --- |")
  for name, noise in data["activations"].items():
    lines.append(_row(name, f"{noise:.2e}"))
  return "\n".join(lines)


def plot(data: dict, path: str) -> None:
  """Both curves side by side, as PNG."""
  _extras.need("matplotlib", "plot").use("Agg")
  plt = _extras.need("matplotlib.pyplot", "plot")
  figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
  left.loglog(SEGMENTS, [e[0] for e in data["sigmoid"].values()], "o-")
  left.set(xlabel="segments", ylabel="largest error", title="sigmoid table")
  for steps in STEPS:
    errors = [e[steps - 1] for e in data["root"].values()]
    right.loglog(ENTRIES, errors, "o-", label=f"{steps} steps")
  right.set(xlabel="entries", title="inverse root, relative error")
  right.legend()
  figure.tight_layout()
  figure.savefig(path, dpi=150)


def main(argv: list[str]) -> None:
  del argv
  data = curves()
  print(report(data))
  if flags.FLAGS.json:
    text = json.dumps(data, indent=1) + "\n"
    pathlib.Path(flags.FLAGS.json).write_text(text)
  if flags.FLAGS.plot:
    plot(data, flags.FLAGS.plot)


if __name__ == "__main__":
  # Not at import: the tests import this file beside other tools.
  flags.DEFINE_string("plot", None, "PNG file to write (extra: plot).")
  flags.DEFINE_string("json", None, "JSON file to write.")
  app.run(main)
