"""What every interpreter of a model shares: names, the tape, the trace guard.

A model is `fn(ops, params, inputs, state) -> (outputs, state)`.  `ops` names
each intermediate value by a path (`layers.0.attn.h`), and measurements leave
through a tape: a mutable dict that lives only while the function is traced.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
from jax import numpy as jnp

from jaxnmc import _compat
from jaxnmc.errors import TransformError
from jaxnmc.kernels import pallas_recurrence

# How a value measured in each step of a scan becomes one measurement.
Reduce = Literal["max", "sum", "stack"]
_REDUCERS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "max": lambda x: jnp.max(x, axis=0),
  "sum": lambda x: jnp.sum(x, axis=0, dtype=x.dtype),
  "stack": lambda x: x,
}


class Tape:
  """Measurements by path; `kinds` says how a scan over steps folds each."""

  def __init__(self) -> None:
    self.values: dict[str, Any] = {}
    self.kinds: dict[str, Reduce] = {}


class Ops:
  """Base of all interpreters: paths, measurements and the trace guard."""

  def __init__(self) -> None:
    self._path: tuple[str, ...] = ()
    self.tape = Tape()
    self._trace = _compat.trace_state()

  # --- names

  @contextlib.contextmanager
  def at(self, *names: str) -> Iterator[None]:
    """Scopes names: inside `at("attn")`, site "h" is "attn.h"."""
    outer = self._path
    self._path = (*outer, *names)
    try:
      yield
    finally:
      self._path = outer

  def layer(self, index: int):
    """Scopes one layer; the default place where the network is cut."""
    return self.at("layers", str(index))

  def path(self, name: str) -> str:
    """The full path of a name in the present scope."""
    return ".".join((*self._path, name))

  # --- how it is compiled

  def settle(self, x, const):
    """x; as an instruction to compute it once and keep it, where there is one.

    Args:
      x: a value.
      const: any constant of the model.
    """
    del const
    return x

  # --- the host's count

  def positions(self, ids, mask=None, before=None):
    """How many tokens stand before each one; the host counts them.

    Args:
      ids: int32[T, ...], tokens.
      mask: the same shape, 1 for tokens and 0 for padding; None: no padding.
      before: int32[...], tokens of the calls before; None: there are none.

    Returns:
      (int32[T, ...], which `embed` takes in place of ids; int32[...] after the
      last token, a part of the state).
    """
    real = jnp.ones(ids.shape, jnp.int32)
    if mask is not None:
      real = jnp.asarray(mask).astype(jnp.int32)
    count = jnp.cumsum(real, axis=0, dtype=jnp.int32)
    after = count if before is None else before + count
    return after - real, after[-1]

  # --- measurements

  def emit(self, path: str, value: Any, how: Reduce) -> None:
    """Puts a measurement on the tape.

    Raises:
      TransformError: called inside a raw JAX transform, where the
        measurement could not leave.
    """
    self.guard(path)
    self.tape.values[path] = value
    self.tape.kinds[path] = how

  def guard(self, path: str) -> None:
    """Refuses to go on inside a JAX transform that `ops` does not know of.

    Raises:
      TransformError: names the path and says what to use instead.
    """
    if _compat.trace_state() != self._trace:
      raise TransformError(
        f"{path}: used inside a raw JAX transform (jit, vmap, grad, lax.scan"
        " or lax.cond) that the interpreter cannot see; use ops.scan, ops.vmap"
        " or apply the transform outside, to the whole function"
      )

  def fresh(self) -> "Ops":
    """A copy with an empty tape, for the body of a scan or vmap."""
    child = object.__new__(type(self))
    child.__dict__.update(self.__dict__)
    child.tape = Tape()
    child._trace = _compat.trace_state()
    return child

  def absorb(self, values: dict[str, Any], kinds: dict[str, Reduce]) -> None:
    """Takes over a child's measurements, stacked on axis 0, and folds them."""
    for path, value in values.items():
      fold = _REDUCERS[kinds[path]]
      self.emit(path, jax.tree.map(fold, value), kinds[path])

  # --- control

  def scan(self, name: str, body, init, xs):
    """Runs `body(ops, carry, x) -> (carry, y)` over axis 0 of `xs`.

    Args:
      name: scope of everything the body names.
      body: one step; its `ops` is a child of this interpreter.
      init: the first carry.
      xs: pytree of [T, ...] values.

    Returns:
      (last carry, ys stacked on axis 0).

    Raises:
      TransformError: called inside a raw JAX transform.
    """
    self.guard(self.path(name))
    kinds: dict[str, Reduce] = {}

    def step(carry, x):
      child = self.fresh()
      with child.at(name):
        carry, y = body(child, carry, x)
      kinds.update(child.tape.kinds)
      return carry, (y, child.tape.values)

    carry, (ys, values) = pallas_recurrence.scan(step, init, xs)
    self.absorb(values, kinds)
    return carry, ys

  def vmap(self, name: str, body, *args, in_axes=0, out_axes=0):
    """Runs `body(ops, *args)` over a mapped axis (heads, say).

    Args:
      name: scope of everything the body names.
      body: function of one element; its `ops` is a child.
      *args: pytrees with the mapped axis.
      in_axes: as in `jax.vmap`.
      out_axes: as in `jax.vmap`.

    Returns:
      The stacked result of the body.

    Raises:
      TransformError: called inside a raw JAX transform.
    """
    self.guard(self.path(name))
    kinds: dict[str, Reduce] = {}

    def one(*element):
      child = self.fresh()
      with child.at(name):
        out = body(child, *element)
      kinds.update(child.tape.kinds)
      return out, child.tape.values

    out, values = jax.vmap(one, in_axes, (out_axes, 0))(*args)
    self.absorb(values, kinds)
    return out
