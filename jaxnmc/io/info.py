"""What a model is made of: parameters, memory, operations per token."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.io import gpt_operations, name_map
from jaxnmc.models.families import family_of
from jaxnmc.models.matmulfree_config import Config
from jaxnmc.models.model import Model
from jaxnmc.numerics.ternary import Ternary, ternarize


def info(model: Model) -> dict[str, Any]:
  """Sizes and costs of a model, as a JSON-ready dict.

  Args:
    model: what `jaxnmc.load` returned.

  Returns:
    `parameters` by kind, `memory_bytes` by format, `state_bytes` of one
    sequence, `operations_per_token` (see `operations`), `zero_fraction` of
    ternary matrices, over all and by role (mean over layers); None without.
  """
  config = model.config
  return {
    "model": model.name,
    "config": dataclasses.asdict(config),
    "parameters": parameters(config),
    "memory_bytes": memory(config),
    "state_bytes": state_bytes(config),
    "operations_per_token": operations(config),
    "zero_fraction": zero_fraction(config, model.params),
    "tokenizer": None
    if model.tokenizer is None
    else {
      "kind": getattr(model.tokenizer, "kind", "other"),
      "vocab_size": model.tokenizer.vocab_size,
    },
    "plan": model.plan.name if model.plan else None,
    "notes": list(model.notes),
  }


# Kind of a parameter -> how it is called here.
_KINDS = {
  "matrix": "ternary",
  "dense": "dense",
  "table": "embedding",
  "gain": "gains",
  "bias": "biases",
  "bounds": "lower_bounds",
  "threshold": "thresholds",
  "table of thresholds": "thresholds",
}


def parameters(config: Any) -> dict[str, int]:
  """Number of parameters by kind (those that there are), and their total."""
  count = dict.fromkeys(_KINDS.values(), 0)
  for entry in name_map.entries(config):
    count[_KINDS[entry.kind]] += math.prod(entry.shape)
  found = {kind: number for kind, number in count.items() if number}
  return {"total": sum(count.values()), **found}


def state_bytes(config: Any) -> int:
  """Bytes of the state of one sequence, 32 bits each."""
  init = family_of(config).init_state
  leaves = jax.tree.leaves(jax.eval_shape(lambda: init(config)))
  return 4 * sum(math.prod(leaf.shape) for leaf in leaves)


def memory(config: Any) -> dict[str, int]:
  """Bytes of the parameters in three formats.

  `float32`: everything.  `packed_8bit` and `packed_16bit`: ternary codes at
  2 bits (rows padded to whole bytes) with a 4-byte scale per matrix, all else
  at 8 or 16 bits.
  """
  packed = other = 0
  for entry in name_map.entries(config):
    if entry.kind == "matrix":
      rows, width = entry.shape
      packed += rows * -(-width // 4) + 4
    else:
      other += math.prod(entry.shape)
  return {
    "float32": 4 * parameters(config)["total"],
    "packed_8bit": packed + other,
    "packed_16bit": packed + 2 * other,
  }


def operations(config: Any) -> dict[str, int]:
  """Operations of the float model for one token, batch one.

  What is counted depends on the family: `matmulfree_operations`,
  `gpt_operations.operations`.
  """
  return _OPERATIONS[family_of(config).name](config)


def matmulfree_operations(config: Config) -> dict[str, int]:
  """Operations of the MatMul-free model, one token.

  Kinds:
    ternary_adds: one add, subtract or skip per stored ternary weight.
    adds: every other addition (norm sums, residuals, recurrence).
    multiplies: element-wise products, squares, gains and scales.
    lookups: values of sigmoid (a table on the chip) and embedding rows.
    roots: inverse square roots; norms that read one value share it, and the
      fused formulation takes a block norm and those behind it from one.
    divisions: activation scales of the dynamic 8-bit quantiser; integer plans
      have none.
  """
  d, e, i, v = (
    config.hidden_size,
    config.state_size,
    config.mlp_size,
    config.vocab_size,
  )
  total = dict.fromkeys(
    ("ternary_adds", "adds", "multiplies", "lookups", "roots", "divisions"), 0
  )

  def add(**counts: int) -> None:
    for kind, count in counts.items():
      total[kind] += count

  def norm(n: int, readers: int = 1) -> None:
    # Squares, 1/n, root; n times root; a gain per reader.
    add(adds=n, multiplies=(2 + readers) * n + 1, roots=1)

  def product(n: int, out: int) -> None:
    # Scale to codes and back with the matrix's own scale.
    add(ternary_adds=n * out, multiplies=n + out, divisions=1)

  def normed(readers: int) -> None:
    if config.norm == "fused":
      # v = gain x; squares of x and v, two means, eps; v times root; gains.
      add(adds=2 * d + 1, multiplies=(4 + readers) * d + 3, roots=1)
    else:
      norm(d)
      norm(d, readers)

  add(lookups=1)
  for layer in range(config.num_layers):
    normed(3)
    for _ in range(3):
      product(d, e)
    # f and its complement; the lower bound is one product more.
    bound = e if config.use_lower_bound and layer else 0
    add(lookups=e, adds=e, multiplies=bound)
    # u = silu(i) (1 - f);  h = f h + u;  gated = norm(z) silu(h).
    add(lookups=2 * e, multiplies=2 * e + e + e + e, adds=2 * e)
    norm(e)
    norm(e)
    product(e, d)
    normed(1)
    product(d, 2 * i)
    add(lookups=i, multiplies=2 * i)
    norm(i)
    product(i, d)
    # Two residual additions.
    add(adds=2 * d)
  normed(1)
  product(d, v)
  return total


_OPERATIONS: dict[str, Callable[[Any], dict[str, int]]] = {
  "matmulfree": matmulfree_operations,
  "gpt": gpt_operations.operations,
}


def zero_fraction(config: Any, params: dict[str, Any]) -> dict[str, Any] | None:
  """Share of zero weights, 0 to 1: over all, the extremes, and by role.

  Args:
    config: sizes.
    params: matrices are latent float[out, in] or `Ternary`.

  Returns:
    `all`, `least` and `most` of a matrix, `by_role`: role -> mean over layers;
    None for a model without ternary matrices.

  Raises:
    CheckpointError: a matrix is not in the tree.
  """
  zeros = size = 0
  shares: dict[str, list[float]] = {}
  count = jax.jit(lambda w: jnp.sum(ternarize(w).codes == 0))
  for entry in name_map.entries(config):
    if entry.kind != "matrix":
      continue
    leaf = name_map.get(params, entry.path)
    if isinstance(leaf, Ternary):
      here = int(np.count_nonzero(np.asarray(leaf.codes) == 0))
    else:
      here = int(count(leaf))
    many = math.prod(entry.shape)
    zeros += here
    size += many
    role = entry.path.split(".")[-2]
    shares.setdefault(role, []).append(here / many)
  if not size:
    return None
  every = [share for row in shares.values() for share in row]
  return {
    "all": zeros / size,
    "least": min(every),
    "most": max(every),
    "by_role": {role: sum(row) / len(row) for role, row in shares.items()},
  }
