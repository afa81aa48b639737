"""Kernels written in Pallas for NVIDIA GPUs: when they run, and how.

They are lowered through Triton, one launch each.  XLA's formulation stays
beside every one of them and computes the same integers: it runs on all other
devices, and where a kernel does not compile.  `JAXNMC_PALLAS=0` in the
environment leaves the kernels alone, `JAXNMC_PALLAS=interpret` runs them in
the interpreter of Pallas on any device, which is for tests: it is slow.

A decoded token is about a hundred small launches, one after the other, so that
what counts is their number and what each costs.  By its default options XLA
records runs of at least five fusions, cuBLAS and custom calls as a CUDA graph
(a command buffer) and replays them.  Loops are not in its defaults: the body
of a scan over layers is recorded, the loop itself runs on the host.  A graph
is updated when buffers move, so donated states, which stay in their place,
are what helps; nothing here sets a flag.  `tools/gpu_check.py` measures a call
per token beside many tokens in one call.
"""

import os
import warnings
from collections.abc import Callable, Sequence

import jax
from jax import lax

from jaxnmc import _compat

VARIABLE = "JAXNMC_PALLAS"


def interpreted() -> bool:
  """Whether kernels run in the interpreter of Pallas."""
  return os.environ.get(VARIABLE) == "interpret"


def wanted() -> bool:
  """Whether programs traced now take the kernels where they can."""
  if os.environ.get(VARIABLE) == "0":
    return False
  return interpreted() or jax.default_backend() == "gpu"


def launch(
  kernel: Callable,
  grid: tuple[int, ...],
  in_specs: Sequence,
  out_specs: Sequence,
  out_shape: Sequence[jax.ShapeDtypeStruct],
  warps: int,
):
  """A `pallas_call` for Triton; arguments as there.

  Args:
    kernel: function of references.
    grid: number of blocks on each axis.
    in_specs: blocks of the operands; None: the operand is not cut.
    out_specs: blocks of the results.
    out_shape: results.
    warps: warps of 32 threads per block.

  Returns:
    The function of arrays.
  """
  pl, triton = _compat.pallas()
  whole = lambda spec: (
    pl.BlockSpec(memory_space=pl.ANY) if spec is None else spec
  )
  return pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=[whole(spec) for spec in in_specs],
    out_specs=list(out_specs),
    out_shape=list(out_shape),
    compiler_params=triton.CompilerParams(num_warps=warps),
    interpret=interpreted(),
  )


def compiles(name: str, run: Callable, *like) -> bool:
  """Whether this machine can compile a kernel; says so once where not.

  Args:
    name: of the kernel, for the warning.
    run: function that launches it.
    *like: its arguments, by shape and type.

  Returns:
    True in the interpreter, which compiles nothing.
  """
  if interpreted():
    return True
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like]
  try:
    jax.jit(run).lower(*shapes).compile()
  # Whatever Pallas, Triton or the driver throws, XLA computes the same.
  except Exception as error:
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(
      f"jaxnmc: the {name} kernel does not compile here, XLA's form is used:"
      f" {words}",
      RuntimeWarning,
      stacklevel=2,
    )
    return False
  return True


def choose(kernel: Callable, plain: Callable, *args):
  """kernel(*args) on an NVIDIA GPU (or interpreted), else plain(*args).

  The device is known when the program is lowered, not when it is traced: a
  process with a GPU may also compute on its CPU.
  """
  if interpreted():
    return kernel(*args)
  return lax.platform_dependent(*args, cuda=kernel, default=plain)
