"""Tolerances of recorded arrays, and the tally of a comparison.

Allowed are: float64 arrays and losses within 1e-9, gradient norms within 1e-9
relative, float32 arrays within 2e-5 + 1e-5 |x|, gradients within 1e-4 of their
largest entry, activation codes and greedy ids exactly.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxnmc.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Tolerance:
  """|found - expected| <= atol + rtol |expected| + scale max |expected|."""

  atol: float = 0.0
  rtol: float = 0.0
  scale: float = 0.0

  def limit(self, expected: np.ndarray) -> np.ndarray:
    """The largest error allowed per entry, float64 of the shape given."""
    size = np.abs(expected)
    top = size.max(initial=0.0)
    return self.atol + self.rtol * size + self.scale * top


TOLERANCES = {
  "float64": Tolerance(atol=1e-9),
  "loss": Tolerance(atol=1e-9),
  "gradient_norm": Tolerance(rtol=1e-9),
  "float32": Tolerance(atol=2e-5, rtol=1e-5),
  "gradient": Tolerance(scale=1e-4),
  "activation_codes": Tolerance(),
  "ids": Tolerance(),
}


def kind_of(key: str) -> str:
  """Which tolerance (of `TOLERANCES`) a recorded array has."""
  if key.startswith("f64/"):
    return "float64"
  if key.startswith("grad/"):
    return "gradient"
  if key.startswith("act_codes_"):
    return "activation_codes"
  special = {
    "loss_f64": "loss",
    "grad_l2": "gradient_norm",
    "greedy_ids": "ids",
  }
  return special.get(key, "float32")


class Comparison:
  """Tally of one run.

  Args:
    name: file name of the recorded arrays, for messages.

  Attributes:
    failed: one dict per array over its tolerance.
    unknown: arrays that have no meaning here.
    skipped: array -> why it could not be compared.
  """

  def __init__(self, name: str) -> None:
    self._name = name
    self._kinds: dict[str, dict[str, Any]] = {}
    self.failed: list[dict[str, Any]] = []
    self.unknown: list[str] = []
    self.skipped: dict[str, str] = {}

  @property
  def count(self) -> int:
    """Number of arrays compared."""
    return sum(kind["arrays"] for kind in self._kinds.values())

  @property
  def ok(self) -> bool:
    """Everything compared is within its tolerance, and something was."""
    return self.count > 0 and not self.failed

  def add(self, key: str, expected: np.ndarray, found: np.ndarray) -> None:
    """Compares one array.

    Args:
      key: its recorded name.
      expected: numbers, as recorded.
      found: what this model gives, of the same shape.

    Raises:
      CheckpointError: another shape, or no numbers.
    """
    found = np.asarray(found)
    if "state_" in key and expected.size == found.size:
      # [B, H, E / H] and [B, E] are the same state.
      found = found.reshape(expected.shape)
    if expected.dtype.kind not in "fiub" or expected.shape != found.shape:
      raise CheckpointError(
        f"{self._name}: array {key!r}: found {expected.dtype}"
        f"{list(expected.shape)}, this model gives {list(found.shape)}; the"
        " file was recorded from another model"
      )
    kind = kind_of(key)
    want = expected.astype(np.float64)
    gap = np.abs(found.astype(np.float64) - want)
    limit = TOLERANCES[kind].limit(want)
    with np.errstate(divide="ignore", invalid="ignore"):
      ratio = np.where(gap == 0, 0.0, gap / limit)
    # NaN on either side is over any tolerance.
    ratio = np.where(np.isnan(gap), np.inf, ratio)
    row = self._kinds.setdefault(
      kind, {"arrays": 0, "worst": -1.0, "share_of_tolerance": 0.0, "at": None}
    )
    row["arrays"] += 1
    share = float(ratio.max(initial=0.0))
    if row["at"] is None or share > row["share_of_tolerance"]:
      row.update(worst=_number(gap), share_of_tolerance=_finite(share), at=key)
    if share > 1:
      self.failed.append(self._failure(key, kind, want, found, gap, ratio))

  def _failure(self, key, kind, want, found, gap, ratio) -> dict[str, Any]:
    index = np.unravel_index(int(ratio.argmax()), ratio.shape)
    row = {
      "array": key,
      "kind": kind,
      "error": _number(gap),
      "at": [int(i) for i in index],
      "expected": _finite(float(want[index])),
      "found": _finite(float(found[index])),
    }
    if key.endswith("logits"):
      # Measures for arithmetic that is looser than these tolerances.
      size = float(np.linalg.norm(want))
      row["relative_frobenius"] = _finite(
        float(np.linalg.norm(gap)) / max(size, 1e-300)
      )
      same = want.argmax(-1) == found.argmax(-1)
      row["argmax_agreement"] = float(same.mean())
    return row

  def summary(self) -> dict[str, Any]:
    """`ok`, the number of arrays, and the worst error of each kind."""
    return {
      "ok": self.ok,
      "arrays": self.count,
      "kinds": {name: self._kinds[name] for name in sorted(self._kinds)},
    }


def _finite(x: float) -> float | None:
  """None for what JSON has no number for."""
  return x if np.isfinite(x) else None


def _number(gap: np.ndarray) -> float | None:
  return _finite(float(gap.max(initial=0.0)))
