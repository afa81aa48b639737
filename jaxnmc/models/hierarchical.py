"""Two-stage decoding of a vocabulary: first a cluster, then a token of it.

V tokens lie in C clusters of at most M (about sqrt(V) both), so that a token
costs C rows and those of the clusters looked into, in place of V:

    stage 1   a_k = centre_k x + bias_k                 all k
    stage 2   b_v = word_v x + bias_v                   v of the best clusters

Two meanings of the same arrays:

* *trained*, a two-level softmax (Goodman 2001, arXiv cs/0108006), which is a
  distribution of its own:  p(v) = softmax(a)[k(v)] softmax(b of k(v))[v];
* *converted*, where words are the rows of a plain head and centres their means:
  a shortcut to the largest b_v, wrong where the best token's cluster is not
  among the best ones.  How often that is, `compare` measures.

Floats, or integers: int8 rows, int32 inputs and sums, of equal ones the
smallest id (of clusters the smallest number).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.models.clusters import Clusters
from jaxnmc.models.gpt_config import Config as Transformer
from jaxnmc.numerics.ternary import Ternary, ternary_values

__all__ = [
  "Choice",
  "Comparison",
  "choose",
  "compare",
  "convert",
  "flat",
  "head_input",
  "head_rows",
  "likeliest",
  "log_probs",
  "quantize",
  "token_log_probs",
]

_WORD = 2**31 - 1


@struct.dataclass
class Choice:
  """What was chosen, int32[...] each.

  Attributes:
    token: the id.
    rows: rows of weights that were read for it, both stages.
    certain: bool[...], of a trained head: no token of another cluster can be
      likelier.  Of `choose` False, where not all clusters were looked into.
  """

  token: jax.Array
  rows: jax.Array
  certain: jax.Array


class Comparison(NamedTuple):
  """Two-stage decoding against the full head, on some inputs.

  Attributes:
    positions: number of inputs (counted).
    same: how many of them have the same token (measured).
    rows: rows read for all of them (counted).
    full: rows that the full head reads for all of them (counted).
  """

  positions: int
  same: int
  rows: int
  full: int

  @property
  def agreement(self) -> float:
    """Share of inputs with the same token."""
    return self.same / self.positions


# --- heads


def head_rows(config: Any, params: Any) -> tuple[jax.Array, jax.Array | None]:
  """Rows of a model's head: (float[V, D], bias float[V] or None).

  Args:
    config: of one of `jaxnmc.models.families`.
    params: its float parameters; a ternary head gives scale * codes.
  """
  if getattr(config, "tie_word_embeddings", False):
    return params["embed"]["weight"], None
  head = params["head"]
  plain = isinstance(config, Transformer) and not config.ternary
  weight = head["weight"] if plain else ternary_values(head["weight"])
  return weight, head.get("bias")


def head_input(config: Any, params: Any) -> tuple[Any, Any]:
  """A model whose "logits" are what the head of another reads: [T, ..., D].

  Args:
    config: of one of `jaxnmc.models.families`.
    params: its float parameters.

  Returns:
    (config, params), whose head is the identity.

  Raises:
    ConfigError: a ternary model whose head is its embedding.
  """
  one = np.eye(config.hidden_size, dtype=np.float32)
  codes = Ternary(jnp.asarray(one, jnp.int8), jnp.float32(1))
  if not isinstance(config, Transformer):
    return config, {**params, "head": {**params["head"], "weight": codes}}
  if config.ternary and config.tie_word_embeddings:
    raise ConfigError(
      "two-stage head: config fields 'ternary' and 'tie_word_embeddings' are"
      " both on, so the head reads what no head of its own could; allowed is"
      " one of them"
    )
  fields: dict[str, Any] = {"tie_word_embeddings": False, "head_bias": False}
  head: dict[str, Any] = {"weight": jnp.asarray(one)}
  if config.ternary:
    head = {**params["head"], "weight": codes}
  return dataclasses.replace(config, **fields), {**params, "head": head}


def convert(clusters: Clusters, weight: Any, bias: Any = None) -> dict:
  """The arrays of both stages from the rows of a plain head.

  Args:
    clusters: of its tokens.
    weight: float[V, D].
    bias: float[V], or None.

  Returns:
    {"clusters": {"weight" [C, D], "bias" [C]}, "words": {"weight" [C, M, D],
    "bias" [C, M]}}; centres are means of words; rows of nobody are 0.

  Raises:
    ConfigError: rows or biases of another number of tokens.
  """
  members = np.asarray(clusters.members)
  size = clusters.cluster.shape[0]
  weight = np.asarray(weight)
  bias = np.zeros(size, weight.dtype) if bias is None else np.asarray(bias)
  if weight.ndim != 2 or weight.shape[0] != size or bias.shape != (size,):
    raise ConfigError(
      f"two-stage head: found rows {list(weight.shape)} and biases"
      f" {list(bias.shape)}, the clusters are of {size} tokens; give the head"
      " that they were made for"
    )
  there = members < size
  many = np.maximum(there.sum(1), 1)
  stages: dict[str, dict] = {"clusters": {}, "words": {}}
  for name, rows in (("weight", weight), ("bias", bias)):
    mine = np.concatenate([rows, np.zeros_like(rows[:1])])[members]
    share = many.reshape(-1, *(1,) * (mine.ndim - 2))
    mean = (mine.sum(1, dtype=np.float64) / share).astype(rows.dtype)
    stages["words"][name] = jnp.asarray(mine)
    stages["clusters"][name] = jnp.asarray(mean)
  return stages


def quantize(head: dict, most: int, step: float = 1.0, bits: int = 8) -> dict:
  """The two stages in integers, one step for each of them.

  Args:
    head: as of `convert`.
    most: the largest |x| of the integer inputs.
    step: what an input of 1 stands for.
    bits: of weights, 2 to 8, symmetric.

  Returns:
    The same arrays: weights int8, biases int32 (in products of both steps).

  Raises:
    ConfigError: other bits, or values that are not finite.
    FormatError: a sum could leave 32 bits.
  """
  if bits not in range(2, 9):
    raise ConfigError(
      f"two-stage head: found {bits!r} bits, allowed are whole numbers 2 to 8"
    )
  top = 2 ** (bits - 1) - 1
  found = {}
  for stage, arrays in head.items():
    weight, bias = (
      np.asarray(arrays[name], np.float64) for name in ("weight", "bias")
    )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
      raise ConfigError(
        f"two-stage head: {stage} have values that are not finite; allowed are"
        " those of a trained head"
      )
    unit = (np.abs(weight).max() or 1.0) / top
    codes = np.round(weight / unit).astype(np.int64)
    whole = np.round(bias / (unit * step))
    bound = np.abs(codes).sum(-1) * most + np.abs(whole)
    if bound.max() > _WORD:
      raise FormatError(
        f"two-stage head: {stage} can add up to {bound.max():.0f}, which is"
        f" over {_WORD}, the most of 32 bits; use fewer bits or smaller inputs"
      )
    found[stage] = {
      "weight": jnp.asarray(codes, jnp.int8),
      "bias": jnp.asarray(whole, jnp.int32),
    }
  return found


def _products(weight: jax.Array, x: jax.Array, bias: jax.Array) -> jax.Array:
  """weight[..., n, D] x[..., D] + bias; int32 for integers."""
  if jnp.issubdtype(x.dtype, jnp.integer):
    wide = weight.astype(jnp.int32)
    return jnp.einsum("...nd,...d->...n", wide, x.astype(jnp.int32)) + bias
  return jnp.einsum("...nd,...d->...n", weight, x) + bias


def _look(clusters: Clusters, head: dict, x: jax.Array, scores, best: int):
  """The best clusters: (their numbers [..., c], words' scores [..., c, M])."""
  size = clusters.members.shape[0]
  if not isinstance(best, int) or not 1 <= best <= size:
    raise ConfigError(
      f"two-stage head: found {best!r} clusters to look into, allowed are 1 to"
      f" {size}"
    )
  # Stable: of equal ones the smallest number.
  chosen = jnp.argsort(-scores, axis=-1, stable=True)[..., :best]
  words = head["words"]
  inside = _products(
    words["weight"][chosen], x[..., None, :], words["bias"][chosen]
  )
  return chosen.astype(jnp.int32), inside


def _largest(clusters: Clusters, chosen, inside):
  """(largest score, smallest of its ids, rows read in stage 2), each [...]."""
  size = clusters.cluster.shape[0]
  ids = clusters.members[chosen]
  there = ids < size
  whole = jnp.issubdtype(inside.dtype, jnp.integer)
  none = jnp.iinfo(inside.dtype).min if whole else -jnp.inf
  inside = jnp.where(there, inside, none)
  top = inside.max((-2, -1), keepdims=True)
  token = jnp.where(there & (inside == top), ids, size).min((-2, -1))
  return top[..., 0, 0], token, there.sum((-2, -1), dtype=jnp.int32)


def choose(clusters: Clusters, head: dict, x: jax.Array, best: int) -> Choice:
  """The largest word score of the best clusters; of a converted head.

  Args:
    clusters: of the tokens.
    head: of `convert` and float x, or of `quantize` and integer x.
    x: [..., D], what the head reads; integers within `most` of `quantize`.
    best: clusters to look into, c.

  Returns:
    `Choice` [...].

  Raises:
    ConfigError: an impossible number of clusters.
  """
  stage = head["clusters"]
  scores = _products(stage["weight"], x, stage["bias"])
  chosen, inside = _look(clusters, head, x, scores, best)
  _, token, rows = _largest(clusters, chosen, inside)
  count = scores.shape[-1]
  return Choice(token, rows + count, jnp.full(token.shape, best == count))


# --- trained


def _softmax(scores: jax.Array, there: jax.Array) -> jax.Array:
  """ln p among those that are there."""
  # Finite where nobody is, so that no gradient is 0 * inf.
  none = jnp.finfo(scores.dtype).min
  return jax.nn.log_softmax(jnp.where(there, scores, none))


def _there(clusters: Clusters) -> jax.Array:
  """Where somebody is: bool[C, M]."""
  return clusters.members < clusters.cluster.shape[0]


def _outer(clusters: Clusters, head: dict, x: jax.Array) -> jax.Array:
  """ln p of clusters, float[..., C]; none for one of nobody."""
  stage = head["clusters"]
  scores = _products(stage["weight"], x, stage["bias"])
  return _softmax(scores, _there(clusters).any(-1))


def log_probs(clusters: Clusters, head: dict, x: jax.Array) -> jax.Array:
  """ln p of every token: float[..., V]; their exponentials add up to 1.

  Args:
    clusters: of the tokens.
    head: a trained two-level softmax, arrays as of `convert`.
    x: float[..., D].
  """
  words = head["words"]
  inner = _products(words["weight"], x[..., None, :], words["bias"])
  inner = _softmax(inner, _there(clusters))
  joint = _outer(clusters, head, x)[..., None] + inner
  return joint[..., clusters.cluster, clusters.slot]


def token_log_probs(
  clusters: Clusters, head: dict, x: jax.Array, targets: jax.Array
) -> jax.Array:
  """ln p of one token at each position, from its own cluster's rows only.

  It is what training needs: C + M rows, and a gradient.

  Args:
    clusters: of the tokens.
    head: as in `log_probs`.
    x: float[..., D].
    targets: int[...].

  Returns:
    float[...], that of `log_probs`.
  """
  words = head["words"]
  own = clusters.cluster[targets]
  inner = _products(words["weight"][own], x, words["bias"][own])
  inner = _softmax(inner, _there(clusters)[own])
  at = lambda a, index: jnp.take_along_axis(a, index[..., None], -1)[..., 0]
  return at(_outer(clusters, head, x), own) + at(inner, clusters.slot[targets])


def likeliest(
  clusters: Clusters, head: dict, x: jax.Array, best: int
) -> Choice:
  """The likeliest token of the best clusters; of a trained head.

  p(v) is at most that of its cluster, so the choice is `certain` where the best
  cluster that was not looked into is less likely than the token found.

  Args:
    clusters: of the tokens.
    head: as in `log_probs`.
    x: float[..., D].
    best: clusters to look into, c.

  Returns:
    `Choice` [...].

  Raises:
    ConfigError: an impossible number of clusters.
  """
  outer = _outer(clusters, head, x)
  chosen, inside = _look(clusters, head, x, outer, best)
  inner = _softmax(inside, _there(clusters)[chosen])
  joint = jnp.take_along_axis(outer, chosen, -1)[..., None] + inner
  top, token, rows = _largest(clusters, chosen, joint)
  ranked = -jnp.sort(-outer, axis=-1)
  last = best == outer.shape[-1]
  certain = jnp.ones(token.shape, bool) if last else ranked[..., best] < top
  return Choice(token, rows + outer.shape[-1], certain)


def flat(clusters: Clusters, head: dict) -> tuple[jax.Array, jax.Array]:
  """The plain head of the words: (rows [V, D], biases [V])."""
  at = clusters.cluster, clusters.slot
  return head["words"]["weight"][at], head["words"]["bias"][at]


def compare(
  clusters: Clusters, head: dict, full: tuple[Any, Any], x: Any, best: int
) -> Comparison:
  """A converted head against the one that it came from.

  Args:
    clusters: of the tokens.
    head: of `convert` or `quantize`.
    full: (rows [V, D], bias [V] or None) of the plain head, for floats; for
      integers `flat` of what `quantize` gave.
    x: [N, D], what the head reads.
    best: clusters to look into.

  Returns:
    `Comparison`.

  Raises:
    ConfigError: no inputs, or an impossible number of clusters.
  """
  x = jnp.asarray(x)
  if x.ndim != 2 or not len(x):
    raise ConfigError(
      f"two-stage head: found inputs {list(x.shape)}, allowed are [N, D] with N"
      " of 1 or more"
    )
  weight, bias = full
  bias = jnp.zeros((), x.dtype) if bias is None else bias
  same, rows = _compared(clusters, head, jnp.asarray(weight), bias, x, best)
  same, rows = np.asarray(same), np.asarray(rows)
  return Comparison(
    positions=len(x),
    same=int(same.sum()),
    rows=int(rows.sum(dtype=np.int64)),
    full=len(x) * clusters.cluster.shape[0],
  )


@functools.partial(jax.jit, static_argnames="best")
def _compared(clusters, head, weight, bias, x, best: int):
  """Whether both choose the same and rows read, of each input."""

  def one(row):
    found = choose(clusters, head, row, best)
    whole = jnp.argmax(_products(weight, row, bias))
    return found.token == whole, found.rows

  # One at a time: the rows of a few clusters each, not of all inputs at once.
  return jax.lax.map(one, x)
