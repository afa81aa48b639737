"""Are the integers of a run those of `fixed`?"""

import dataclasses
from typing import Any

import jax
import numpy as np

import jaxnmc
from jaxnmc.models.generate import Generated


@dataclasses.dataclass(frozen=True)
class Equality:
  """Result of a comparison.

  Attributes:
    equal: whether every integer and every format is the same.
    integers: number of integers compared.
    different: number of integers that differ.
  """

  equal: bool
  integers: int
  different: int

  def line(self, name: str) -> str:
    """`loihi == fixed: bit-equal (N integers)`, or what differs."""
    if self.equal:
      return f"{name} == fixed: bit-equal ({self.integers:,} integers)"
    wrong = f"{self.different:,} of {self.integers:,}"
    return f"{name} != fixed: {wrong} integers differ"


def against_fixed(model, backend, found: Generated) -> Equality:
  """Compares logits of every position and the last state with `fixed`.

  `fixed` reads all tokens in one prompt, the run under test read them as a
  prompt and then one by one: so cached decode is tested as well.

  Args:
    model: the model.
    backend: the integer backend that generated.
    found: what it generated, with `keep_logits=True`.

  Returns:
    The comparison.
  """
  run = jax.jit(jaxnmc.fixed(model.fn, backend.plan))
  inputs: dict[str, Any] = {"ids": found.fed}
  if not found.mask.all():
    inputs["mask"] = found.mask
  out, state = run(backend.qparams, inputs, None)
  pieces = [np.asarray(part.q) for part in found.logits]
  pairs = [(np.concatenate(pieces, axis=1), out.logits.q)]
  formats = found.logits[-1].frac == out.logits.frac
  mine, theirs = jax.tree.leaves(found.state), jax.tree.leaves(state)
  formats = formats and len(mine) == len(theirs)
  pairs += list(zip(mine, theirs))
  total = different = 0
  for a, b in pairs:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
      formats, a = False, np.broadcast_to(np.int32(0), b.shape)
    total += b.size
    different += int(np.count_nonzero(a != b))
  return Equality(formats and not different, total, different)
