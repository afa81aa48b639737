"""The format of a value that a scan carries from step to step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.fx import Fx, is_fx


def carry_formats(path: str, once: Callable, init, first):
  """`init` in the format that the body of a scan gives its carry.

  Args:
    path: the scan, for messages.
    once: one step, `once(carry, x) -> carry`; traced only.
    init: pytree of `Fx`, the first carry; zeros take any format.
    first: what the first step reads.

  Returns:
    `init` with the formats of the carry.

  Raises:
    PlanError: the state was made under another plan, or is no state of this
      model.
    FormatError: the carry gains range or fraction bits in every step.
  """
  _only_fixed_point(path, init)
  formats = _step(path, once, init, first)
  if _structure(init) != _structure(formats):
    raise PlanError(
      f"{path}: the state handed in is {_structure(init)}, the next one"
      f" {_structure(formats)}; it belongs to another model"
    )
  init = jax.tree.map(
    lambda value, like: as_carry(path, value, like),
    init,
    formats,
    is_leaf=is_fx,
  )
  after = jax.eval_shape(once, init, first)
  jax.tree.map(lambda a, b: _same(path, a, b), formats, after, is_leaf=is_fx)
  return init


def _step(path: str, once: Callable, init, first):
  try:
    return jax.eval_shape(once, init, first)
  except TypeError as error:
    shapes = [list(x.shape) for x in jax.tree.leaves(init, is_leaf=is_fx)]
    raise PlanError(
      f"{path}: a state of shape {', '.join(map(str, shapes))} does not fit the"
      f" body ({error}); it belongs to another model or batch"
    ) from error


def _structure(tree):
  return jax.tree.structure(jax.tree.map(lambda x: 0, tree, is_leaf=is_fx))


def _only_fixed_point(path: str, init) -> None:
  for value in jax.tree.leaves(init, is_leaf=is_fx):
    if not is_fx(value):
      raise PlanError(
        f"{path}: expected a fixed-point state, found"
        f" {type(value).__name__}; start from None (zeros) or from the state"
        " of an earlier call of the same transform"
      )


def _format(x: Fx) -> tuple:
  return x.frac, x.low, x.high, x.mult is None, x.exp


def _describe(x: Fx) -> str:
  return f"{x.frac} fraction bits in [{x.low}, {x.high}]"


def as_carry(path: str, value: Any, like: Fx) -> Fx:
  """`value` with the format of `like`, if that changes no number.

  Args:
    path: where, for messages.
    value: the state handed in; zeros (0 to 0) take any format.
    like: the state as this model and plan have it; its codes do not matter.

  Raises:
    PlanError: it is no fixed-point state, or one of another plan or model.
  """
  _only_fixed_point(path, value)
  formats = (
    (value.frac, value.low, value.high),
    (like.frac, like.low, like.high),
  )
  if not value.low == 0 == value.high and formats[0] != formats[1]:
    raise PlanError(
      f"{path}: the state has {_describe(value)}, the plan {_describe(like)};"
      " it was made under another plan"
    )
  if value.shape != like.shape:
    raise PlanError(
      f"{path}: the state has shape {list(value.shape)}, the model's"
      f" {list(like.shape)}; it belongs to another model or batch"
    )
  return dataclasses.replace(like, q=value.q)


def _same(path: str, before: Fx, after: Fx) -> None:
  if _format(before) != _format(after):
    raise FormatError(
      f"{path}: the state has {_describe(before)} after one step and"
      f" {_describe(after)} after the next; put ops.site(...) around what the"
      " body returns as its carry"
    )
