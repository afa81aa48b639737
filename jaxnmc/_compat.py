"""The only place that touches parts of JAX without a promise of stability.

`jax.extend` and `jax.experimental` may change between minor releases; no
other file of jaxnmc imports them (a test checks it).
"""

from collections.abc import Iterator

from jax.extend import core

ClosedJaxpr = core.ClosedJaxpr
Jaxpr = core.Jaxpr
JaxprEqn = core.JaxprEqn
Literal = core.Literal
jaxpr_as_fun = core.jaxpr_as_fun


def all_jaxprs(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> Iterator[core.Jaxpr]:
  """Yields a jaxpr and every jaxpr inside its equations, outer ones first.

  Args:
    jaxpr: what `jax.make_jaxpr(f)(*args)` returned, or its `.jaxpr`.

  Yields:
    The open jaxprs of loops, branches, calls and custom rules, each as often
    as it is written in the program.
  """
  inner = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
  yield inner
  for eqn in inner.eqns:
    for param in eqn.params.values():
      leaves = param if isinstance(param, (tuple, list)) else (param,)
      for leaf in leaves:
        if isinstance(leaf, (core.ClosedJaxpr, core.Jaxpr)):
          yield from all_jaxprs(leaf)


def trace_state():
  """An opaque token of the innermost JAX trace; equal inside the same trace."""
  return core.get_opaque_trace_state()


def pallas():
  """(Pallas, its Triton back end), imported when first asked for: slow.

  JAX 0.10 and 0.11 lower a `pallas_call` without compiler parameters to Mosaic
  GPU, which the kernels here are not written for; they pass Triton's. 0.11
  calls the Triton back end deprecated, but has it.
  """
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton

  return pl, triton
