"""Driver: Spyx, a recurrent layer (`RLIF`, float32) without leak, unrolled."""

import frame


def build(load, variant):
  import haiku as hk
  import jax
  from jax import numpy as jnp
  from spyx import nn

  def unroll(inputs, state):
    core = nn.RLIF((load.n,), beta=1.0)
    return hk.dynamic_unroll(core, inputs, state, unroll=32)

  network = hk.without_apply_rng(hk.transform(unroll))
  drive = jnp.asarray(load.drive / load.threshold, jnp.float32)[None]
  state = [jnp.zeros((1, load.n), jnp.float32)]
  params = network.init(jax.random.key(0), drive[None], state[0])
  recurrent = jnp.asarray(load.weights.T / load.threshold, jnp.float32)
  name = next(iter(params))
  params = {name: {**params[name], "w": recurrent}}

  def run(params, state, steps):
    inputs = jnp.broadcast_to(drive, (steps, 1, load.n))
    spikes, state = network.apply(params, inputs, state)
    return jnp.sum(spikes.astype(jnp.int32)), state

  run = jax.jit(run, static_argnames="steps")

  def stretch(steps):
    count, state[0] = run(params, state[0], steps=steps)
    return int(count)

  return stretch


if __name__ == "__main__":
  frame.main(build, "spyx")
