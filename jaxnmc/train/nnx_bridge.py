"""Any model function as a `flax.nnx` module, so that flax users can train it.

The module is a thin view: its parameters are `nnx.Param` leaves under their
dotted paths ("layers.0.attn.i.weight"), and `params` gives the plain pytree
back, which is what every transform of jaxnmc takes.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp

from jaxnmc.ops.observe import path_name
from jaxnmc.ops.transform import fake_quant, reference
from jaxnmc.quantize.plan import Plan


class Frozen(nnx.Variable):
  """A leaf without gradient: the codes of a matrix that is already ternary."""


class NnxModel(nnx.Module):
  """`fn` with its parameters.

  Attributes:
    fn: model function `fn(ops, params, inputs, state)`.
    plan: number formats for training with them, or None for plain float.
    leaves: path -> `nnx.Param` (`Frozen` for integers).
  """

  def __init__(
    self, fn: Callable[..., Any], params: Any, plan: Plan | None = None
  ) -> None:
    """Copies no array: the leaves of `params` become variables.

    Args:
      fn: model function.
      params: pytree of arrays.
      plan: if given, calls compute `fake_quant(fn, plan)`, else `reference`.
    """
    self.fn = fn
    self.plan = plan
    with_paths, self._tree = jax.tree_util.tree_flatten_with_path(params)
    self.leaves = nnx.Dict(
      {path_name(path): _variable(x) for path, x in with_paths}
    )
    # Flax keeps attributes of a dict sorted; the tree has its own order.
    self._paths = tuple(path_name(path) for path, _ in with_paths)

  def __call__(self, inputs: Any, state: Any = None) -> tuple[Any, Any]:
    """Runs the model on ids [T] or [B, T].

    Args:
      inputs: as the model takes them, e.g. `{"ids": int32[B, T]}`.
      state: state of an earlier call, or None.

    Returns:
      (out, state); under a plan both hold `Fx` values (`.to_float()`).
    """
    transform = reference(self.fn)
    if self.plan is not None:
      transform = fake_quant(self.fn, self.plan)
    return transform(self.params, inputs, state)

  @property
  def params(self) -> Any:
    """The parameters as the plain pytree they came as."""
    values = [self.leaves[path][...] for path in self._paths]
    return jax.tree.unflatten(self._tree, values)


def _variable(x: Any) -> nnx.Variable:
  is_float = jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)
  return nnx.Param(jnp.asarray(x)) if is_float else Frozen(jnp.asarray(x))
