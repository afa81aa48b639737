"""Float parameters -> integers, once, on the host."""

import hashlib
import math
from typing import Any

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.numerics.float_formats import Float
from jaxnmc.numerics.formats import SYNAPSE_BITS, Format, mantissa, round_to
from jaxnmc.numerics.packed import Packed
from jaxnmc.numerics.ternary import Ternary, host_ternary
from jaxnmc.numerics.weights import QDense, QMatrix, QVector
from jaxnmc.ops.constants import constant
from jaxnmc.ops.observe import Role, path_name
from jaxnmc.quantize.plan import Plan


@struct.dataclass
class QParams:
  """Integer parameters of a model under a plan.

  Attributes:
    tree: as the float params, leaves `QMatrix`, `QDense` and
      `QVector`.
    plan: fingerprint of the plan.
    weights: fingerprint of the integers.
  """

  tree: Any
  plan: str = struct.field(pytree_node=False)
  weights: str = struct.field(pytree_node=False)

  def check(self, plan: Plan) -> None:
    """Refuses a plan these parameters were not made with.

    Raises:
      PlanError: the fingerprints differ.
    """
    if self.plan != plan.fingerprint:
      raise PlanError(
        f"qparams were made with plan {self.plan[:12]}, not with"
        f" {plan.name!r} ({plan.fingerprint[:12]}); run quantize_params again"
      )


# A table's rows are messages of two 8-bit digits; gains multiply such.
_MOST_BITS = {
  "table": (16, "a message"),
  "gain": (16, "a neuron"),
  "dense": (SYNAPSE_BITS, "a synapse"),
}
_BLOCK = 1 << 20  # numbers that are rounded at once


def _codes(x: np.ndarray, fmt: Format, dtype) -> np.ndarray:
  q = np.empty(np.shape(x), dtype)
  # By blocks: rounding takes several times the memory of a table.
  to, given = q.reshape(-1), np.reshape(x, -1)
  for first in range(0, q.size, _BLOCK):
    block = slice(first, first + _BLOCK)
    to[block] = round_to(given[block], fmt).astype(dtype)
  return q


def _vector(q: np.ndarray, fmt: Format, l1: int | None = None) -> QVector:
  return QVector(q, frac=fmt.frac, low=fmt.low, high=fmt.high, l1=l1)


def _l1(codes: np.ndarray) -> int:
  """Largest row L1 norm of int[out, in]."""
  norms = np.abs(codes.astype(np.int32)).sum(axis=1, dtype=np.int64)
  return int(norms.max(initial=0))


def matrix(leaf) -> QMatrix:
  """Latent float[out, in] or `Ternary` -> integer matrix (docs/numerics.md, 4).

  Args:
    leaf: a latent matrix (ternarised here, ties to even) or a `Ternary`.

  Returns:
    `QMatrix` of int8[out, in] codes (`Packed` if those of the `Ternary` are)
    with its scale as a 16-bit mantissa.

  Raises:
    FormatError: the scale is not positive and finite.
  """
  codes, scale = host_ternary(leaf)
  mult, exp = mantissa(scale)
  # Packed codes stay packed: they were unpacked only to be summed up.
  packed = isinstance(leaf, Ternary) and isinstance(leaf.codes, Packed)
  kept = leaf.codes if packed else codes
  return QMatrix(kept, np.asarray(mult, np.int32), exp=exp, l1=_l1(codes))


def _leaf(path: str, leaf, role: Role, plan: Plan):
  if tuple(leaf.shape) != role.shape:
    raise PlanError(
      f"parameter {path} has shape {list(leaf.shape)}, the plan was made for"
      f" {list(role.shape)}; calibrate this model"
    )
  numbers = leaf.scale if isinstance(leaf, Ternary) else leaf
  if not np.isfinite(np.asarray(numbers).astype(np.float64)).all():
    raise PlanError(
      f"parameter {path} holds values that are not finite; the training or the"
      " file that it came from is broken"
    )
  if role.kind == "matrix":
    return matrix(leaf)
  fmt = plan.format(role.site)
  if role.kind == "const":
    # Host arithmetic in float64, so that the flag x64 changes nothing.
    with jax.enable_x64(True):
      value = constant(role.transform)(jnp.asarray(leaf, jnp.float64))
      return _vector(_codes(np.asarray(value), fmt, np.int32), fmt)
  most, why = _MOST_BITS[role.kind]
  if fmt.bits > most:
    raise PlanError(
      f"parameter {path}: plan {plan.name!r} gives a {role.kind} {fmt.bits}"
      f" bits, but {why} has at most {most}; give it fewer"
    )
  small = fmt.bits <= SYNAPSE_BITS
  narrow = small and role.kind != "table"
  codes = _codes(np.asarray(leaf), fmt, np.int8 if narrow else np.int16)
  if role.kind == "dense":
    return QDense(codes, frac=fmt.frac, l1=_l1(codes))
  # A table of few bits may be a head's matrix, too.
  l1 = _l1(codes) if small and role.kind == "table" else None
  return _vector(codes, fmt, l1)


def _digest(tree) -> str:
  sha = hashlib.sha256()
  is_leaf = lambda x: isinstance(x, Packed)
  for path, x in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf):
    sha.update(path_name(path).encode())
    sha.update(str((x.shape, x.dtype.name)).encode())
    sha.update(np.ascontiguousarray(x).tobytes())
  # The exponent of a matrix's scale is static, so it is no leaf of the tree.
  is_matrix = lambda x: isinstance(x, QMatrix)
  for x in jax.tree.leaves(tree, is_leaf=is_matrix):
    sha.update(str(x.exp).encode() if is_matrix(x) else b"-")
  return sha.hexdigest()


def quantize_params(params, plan: Plan) -> QParams:
  """Rounds every parameter into the plan's formats (docs/numerics.md, 4 and 5).

  Args:
    params: float parameters of any float type (latent matrices [out, in] or
      `Ternary`).
    plan: the plan of this model.

  Returns:
    `QParams`, on the default device.

  Raises:
    PlanError: parameters are missing, unknown, of another shape or not finite,
      or the plan is not integers everywhere.
  """
  plan.need_integers("quantize_params")
  found = set()

  def convert(key, leaf):
    path = path_name(key)
    found.add(path)
    if path not in plan.roles:
      raise PlanError(
        f"parameter {path} is unknown to plan {plan.name!r}; it was made for"
        " another model: calibrate this one"
      )
    return _leaf(path, leaf, plan.roles[path], plan)

  is_leaf = lambda x: isinstance(x, Ternary)
  tree = jax.tree_util.tree_map_with_path(convert, params, is_leaf=is_leaf)
  missing = sorted(set(plan.roles) - found)
  if missing:
    raise PlanError(
      f"plan {plan.name!r} needs {len(missing)} parameters that are not there,"
      f" first {missing[0]}; it was made for another model"
    )
  digest = _digest(tree)
  return QParams(jax.device_put(tree), plan.fingerprint, digest)


def with_dense(qparams: QParams, name: str, codes, bias=None) -> QParams:
  """The same parameters with other integers in one dense layer.

  Args:
    qparams: integer parameters; the layer is a name of their tree.
    name: of the layer.
    codes: int8[out, in], in the layer's format.
    bias: int32[out], in that of its bias; None: the bias stays as it is.

  Returns:
    `QParams` of the same plan with a fingerprint of their own.
  """
  layer = dict(qparams.tree[name])
  codes = np.asarray(codes, np.int8)
  layer["weight"] = layer["weight"].replace(codes=codes, l1=_l1(codes))
  if bias is not None:
    layer["bias"] = layer["bias"].replace(q=np.asarray(bias, np.int32))
  tree = {**qparams.tree, name: layer}
  return QParams(jax.device_put(tree), qparams.plan, _digest(tree))


def memory_bytes(qparams: QParams) -> dict[str, int]:
  """Bytes of the integers, as `ternary_packed` and `other`.

  Ternary codes take 2 bits, rows padded to whole bytes; the rest is as stored.
  """
  ternary = other = 0
  is_leaf = lambda x: isinstance(x, QMatrix | QDense | QVector)
  for leaf in jax.tree.leaves(qparams.tree, is_leaf=is_leaf):
    if isinstance(leaf, QMatrix):
      out, width = leaf.shape
      ternary += out * math.ceil(width / 4)
    else:
      stored = leaf.codes if isinstance(leaf, QDense) else leaf.q
      other += stored.nbytes
  return {"ternary_packed": ternary, "other": other}


def plan_bytes(plan: Plan) -> int:
  """Bytes of a model's parameters in the formats of a plan.

  Ternary codes take 2 bits, rows padded to whole bytes, in any plan; the rest
  as many bits as its format, 32 in float and 16 where the plan stores halves.
  Scales are left out: one number per matrix or site.
  """
  bits = 0
  for role in plan.roles.values():
    if role.kind == "matrix":
      out, width = role.shape
      bits += 8 * out * math.ceil(width / 4)
      continue
    fmt = plan.site(role.site)
    plain = 16 if plan.dtype else 32
    each = plain if isinstance(fmt, Float) else fmt.bits
    bits += math.prod(role.shape) * each
  return math.ceil(bits / 8)
