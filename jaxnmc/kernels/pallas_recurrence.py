"""A recurrence in one launch: the loop over time runs inside the kernel.

`lax.scan` launches its kernels anew at every step, and a step of the MLGRU has
less work than a launch costs.  Its channels do not see each other, so that
blocks of them can go through the whole sequence alone, the state in registers:

    for t in 0 ... T - 1:   state = step(state, series[t]);   history[t] = ...

`scan` takes the place of `lax.scan` and computes the same integers.
"""

import jax
from jax import lax
from jax import numpy as jnp

from jaxnmc import _compat
from jaxnmc.kernels import pallas_launch

# One warp of one channel per thread: a step is a chain of dependent
# instructions, so spreading channels over processors is what helps.
CHANNELS = 32
WARPS = 1
# Steps whose inputs are read together, so that their latencies overlap.
TOGETHER = 16

# What acts on every channel alone, and has the same meaning on all devices.
_ELEMENTWISE = frozenset(
  "abs add and clamp convert_element_type eq ge gt integer_pow le lt max min"
  " mul ne neg not or select_n shift_left shift_right_arithmetic"
  " shift_right_logical square sub xor".split()
)
_CALLS = ("jit", "pjit", "closed_call")
_KINDS = (jnp.int32, jnp.uint32, jnp.bool_)


def scan(step, init, xs):
  """`lax.scan(step, init, xs)`, in one launch on an NVIDIA GPU.

  Where the step is not element-wise on int32, the sequence has less than two
  steps or the device is another one, it is `lax.scan` itself.

  Args:
    step: function (carry, x) -> (carry, y) of pytrees.
    init: the first carry, leaves int32[n].
    xs: pytree of int32[T, n].

  Returns:
    (last carry, ys of [T, n]).
  """
  if not pallas_launch.wanted():
    return lax.scan(step, init, xs)
  found = _prepare(step, init, xs)
  if found is None:
    return lax.scan(step, init, xs)
  body, trees = found
  carry, series = jax.tree.leaves(init), jax.tree.leaves(xs)

  def kernel(*args):
    return _launch(body, *_split(args, len(body.known), len(carry)))

  def plain(*args):
    known, carry, series = _split(args, len(body.known), len(body.carry))

    def again(carry, now):
      out = body.run(known, [*carry, *now], body.width)
      return out[: len(carry)], out[len(carry) :]

    return jax.tree.leaves(lax.scan(again, carry, series))

  args = (*body.known, *carry, *series)
  if not pallas_launch.compiles("recurrence", kernel, *args):
    return lax.scan(step, init, xs)
  out = pallas_launch.choose(kernel, plain, *args)
  return tuple(
    jax.tree.unflatten(tree, part)
    for tree, part in zip(
      trees, (out[: len(carry)], out[len(carry) :]), strict=True
    )
  )


def _split(args, known: int, carry: int) -> tuple[list, list, list]:
  """Flat arguments as (known, carry, series)."""
  cut = known + carry
  return list(args[:known]), list(args[known:cut]), list(args[cut:])


class _Body:
  """One step, cut in what is the same at all steps and what is not.

  Attributes:
    known: operands that do not depend on the step: int32 or uint32; [n], or []
      where all channels have the same.
    carry: variables of the carry.
    width: n.
  """

  def __init__(self, closed, carries: int, width: int) -> None:
    self.width = width
    self.carry = closed.jaxpr.invars[:carries]
    self._inputs = closed.jaxpr.invars
    self._outputs = closed.jaxpr.outvars
    found = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    self._rest = []
    for eqn in closed.jaxpr.eqns:
      if all(_is_literal(v) or v in found for v in eqn.invars):
        found.update(zip(eqn.outvars, self._once(eqn, found), strict=True))
      else:
        self._rest.append(eqn)
    read = [v for eqn in self._rest for v in eqn.invars] + self._outputs
    names = dict.fromkeys(v for v in read if not _is_literal(v) and v in found)
    number = lambda x: not jnp.shape(x) and not isinstance(x, jax.core.Tracer)
    self._numbers = {v: found[v].item() for v in names if number(found[v])}
    self._names = [v for v in names if v not in self._numbers]
    # A reference holds no bools.
    self.known = [
      x.astype(jnp.int32) if x.dtype == jnp.bool_ else x
      for x in (jnp.asarray(found[v]) for v in self._names)
    ]

  def _once(self, eqn, found) -> list:
    """Evaluates what is the same at all steps, numbers as numbers."""
    values = [_value(v, found) for v in eqn.invars]
    if any(map(jnp.shape, values)) or not _elementwise(eqn, self.width):
      return _bind(eqn, values)
    env = dict(found)
    if any(isinstance(x, jax.core.Tracer) for x in values):
      _evaluate([eqn], env, None)
    else:
      with jax.ensure_compile_time_eval():
        _evaluate([eqn], env, None)
    return [env[v] for v in eqn.outvars]

  @property
  def fits(self) -> bool:
    """Whether a kernel can do it: element-wise, and of one width."""
    return (
      all(_elementwise(eqn, self.width) for eqn in self._rest)
      and all(k.shape in ((), (self.width,)) for k in self.known)
      and all(
        v.aval.shape == (self.width,) and v.aval.dtype == jnp.int32
        for v in (*self._inputs, *self._outputs)
      )
    )

  def run(self, known, inputs, width: int) -> list[jax.Array]:
    """Outputs of a step for `width` channels."""
    env = {
      v: _shaped(v, jnp.asarray(x, v.aval.dtype), width)
      for v, x in (
        *self._numbers.items(),
        *zip(self._names, known, strict=True),
      )
    }
    env.update(zip(self._inputs, inputs, strict=True))
    _evaluate(self._rest, env, width)
    # An output may be a number.
    return [
      jnp.broadcast_to(jnp.asarray(_value(v, env), jnp.int32), (width,))
      for v in self._outputs
    ]


def _shaped(v, x, width: int):
  """A value of the shape that its variable has for `width` channels."""
  return jnp.broadcast_to(x, (width,)) if v.aval.shape else x


def _is_literal(v) -> bool:
  return isinstance(v, _compat.Literal)


def _value(v, env):
  return v.val if _is_literal(v) else env[v]


def _bind(eqn, values) -> list:
  """Evaluates one equation as it stands."""
  if eqn.primitive.name in _CALLS:
    return _compat.jaxpr_as_fun(_inner(eqn))(*values)
  out = eqn.primitive.bind(*values, **eqn.params)
  return list(out) if eqn.primitive.multiple_results else [out]


def _elementwise(eqn, width: int) -> bool:
  """Whether an equation acts on each of `width` channels alone."""
  name = eqn.primitive.name
  shapes = ((), (width,))
  if any(
    v.aval.shape not in shapes or v.aval.dtype not in _KINDS
    for v in (*eqn.invars, *eqn.outvars)
  ):
    return False
  if name in _CALLS:
    inner = _inner(eqn)
    return not inner.consts and all(
      _elementwise(e, width) for e in inner.jaxpr.eqns
    )
  if name == "broadcast_in_dim":
    # Of a number, or of what has the width already.
    return eqn.invars[0].aval.shape in ((), eqn.outvars[0].aval.shape)
  return name in _ELEMENTWISE


def _inner(eqn):
  """The program that a call calls."""
  return eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]


def _evaluate(eqns, env, width: int | None) -> None:
  """Evaluates element-wise equations on another number of channels.

  Args:
    eqns: the equations.
    env: values of variables; takes the results.
    width: channels; None: numbers that stand for all channels.
  """
  for eqn in eqns:
    values = [_value(v, env) for v in eqn.invars]
    if eqn.primitive.name in _CALLS:
      inner = _inner(eqn).jaxpr
      inside = dict(zip(inner.invars, values, strict=True))
      _evaluate(inner.eqns, inside, width)
      out = [_value(v, inside) for v in inner.outvars]
    elif eqn.primitive.name == "broadcast_in_dim":
      cast = width is not None and eqn.outvars[0].aval.shape
      out = [jnp.broadcast_to(values[0], (width,)) if cast else values[0]]
    else:
      out = _bind(eqn, values)
    env.update(zip(eqn.outvars, out, strict=True))


def _prepare(step, init, xs):
  """(body, trees of carry and ys), or None where no kernel can do it."""
  leaves, series = jax.tree.leaves(init), jax.tree.leaves(xs)
  shapes = {jnp.shape(x) for x in leaves}
  if len(shapes) != 1 or not series or any(x.ndim != 2 for x in series):
    return None
  (shape,) = shapes
  if len(shape) != 1 or not shape[0] or series[0].shape[0] < 2:
    return None
  first = jax.tree.map(lambda x: x[0], xs)
  closed, out = jax.make_jaxpr(step, return_shape=True)(init, first)
  body = _Body(closed, len(leaves), shape[0])
  if not body.fits:
    return None
  return body, tuple(jax.tree.structure(part) for part in out)


def _launch(body: _Body, known, carry, series) -> list[jax.Array]:
  """[*last carry, *histories]: int32[n] and int32[T, n]."""
  pl, _ = _compat.pallas()
  length, width = series[0].shape
  outputs = len(body._outputs)
  padded = width + -width % CHANNELS
  fill = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, padded - width)])

  def kernel(*given):
    refs = list(given)
    take = lambda n: [refs.pop(0) for _ in range(n)]
    numbers, starts, inputs = (
      take(n) for n in (len(known), len(carry), len(series))
    )
    lasts, histories = take(len(carry)), take(outputs - len(carry))
    fixed = [
      ref[0] if k.ndim == 0 else ref[...]
      for ref, k in zip(numbers, known, strict=True)
    ]

    def steps(start, count, state):
      rows = [[ref[start + i] for ref in inputs] for i in range(count)]
      for i, now in enumerate(rows):
        out = body.run(fixed, [*state, *now], CHANNELS)
        state = out[: len(carry)]
        for ref, value in zip(histories, out[len(carry) :], strict=True):
          ref[start + i] = value
      return state

    state = [ref[...] for ref in starts]
    many = length // TOGETHER
    chunk = lambda c, state: steps(c * TOGETHER, TOGETHER, state)
    state = lax.fori_loop(0, many, chunk, state)
    single = lambda t, state: steps(t, 1, state)
    state = lax.fori_loop(many * TOGETHER, length, single, state)
    for ref, value in zip(lasts, state, strict=True):
      ref[...] = value

  number = pl.BlockSpec((1,), lambda i: (0,))
  vector = pl.BlockSpec((CHANNELS,), lambda i: (i,))
  table = pl.BlockSpec((length, CHANNELS), lambda i: (0, i))
  shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.int32)
  histories = outputs - len(carry)
  call = pallas_launch.launch(
    kernel,
    (padded // CHANNELS,),
    [number if k.ndim == 0 else vector for k in known]
    + [vector] * len(carry)
    + [table] * len(series),
    [vector] * len(carry) + [table] * histories,
    [shape(padded)] * len(carry) + [shape(length, padded)] * histories,
    WARPS,
  )
  flat = [k.reshape(1) if k.ndim == 0 else fill(k) for k in known]
  out = call(*flat, *map(fill, carry), *map(fill, series))
  return [x[..., :width] for x in out]
