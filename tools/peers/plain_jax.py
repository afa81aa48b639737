"""Driver: the plainest JAX, a jitted scan over a dense matrix.

`--variant float32` multiplies by the matrix, `int32` adds up its elements;
both are exact here, and fire as Lava's LIF does.
"""

import frame


def build(load, variant):
  import jax
  from jax import lax
  from jax import numpy as jnp

  dtype = {"float32": jnp.float32, "int32": jnp.int32}[variant]
  weights = jnp.asarray(load.weights, dtype)
  drive = jnp.asarray(load.drive, dtype)

  def sums(weights, s):
    if variant == "float32":
      return weights @ s
    return jnp.sum(weights * s, 1)

  def run(weights, state, steps):
    def step(state, _):
      v, s, count = state
      v = v + sums(weights, s) + drive
      fired = v > load.threshold
      s = fired.astype(dtype)
      return (jnp.where(fired, 0, v), s, count + jnp.sum(fired)), None

    return lax.scan(step, state, length=steps)[0]

  run = jax.jit(run, static_argnames="steps")
  zeros = jnp.zeros(load.n, dtype)
  last = [(zeros, zeros)]

  def stretch(steps):
    v, s, count = run(weights, (*last[0], jnp.int32(0)), steps=steps)
    last[0] = v, s
    return int(count)

  return stretch


if __name__ == "__main__":
  frame.main(build, "jax")
