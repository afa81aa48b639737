"""Neurons in Python's own integers, written from the equations in the docs."""

import functools

import jax
import numpy as np

from jaxnmc.spike.neurons import trace

# One compiled program per neuron and shape.
compiled = functools.partial(jax.jit, static_argnames=("neuron", "charge"))(
  trace
)


def spikes(seed, *shape, rate=0.3, signed=False):
  """q, k and v: int32[*shape] each, of 0 and 1, or of both signs."""
  rng = np.random.default_rng(seed)
  fired = (rng.random((3, *shape)) < rate).astype(np.int32)
  if signed:
    fired = fired * rng.choice([-1, 1], fired.shape).astype(np.int32)
  return tuple(fired)


def tz(x, bits):
  """x / 2^bits, cut toward zero."""
  return x >> bits if x >= 0 else -(-x >> bits)


def integrate(xs, theta, v, reset="soft", rest=0, strict=False):
  """IF: (spikes, potentials)."""
  return _fire(xs, theta, v, lambda v, x: v + x, reset, rest, strict)


def leak(xs, theta, v, d, decay_input, reset="soft", rest=0, strict=False):
  """LIF with 1/tau = d / 4096: (spikes, potentials)."""

  def charge(v, x):
    if decay_input:
      return v + tz((x - (v - rest)) * d, 12)
    return rest + tz((v - rest) * (4096 - d), 12) + x

  return _fire(xs, theta, v, charge, reset, rest, strict)


def _fire(xs, theta, v, charge, reset, rest, strict):
  spikes, potentials = [], []
  for x in xs:
    v = charge(v, x)
    s = v > theta if strict else v >= theta
    if s:
      v = v - theta if reset == "soft" else rest
    spikes.append(int(s))
    potentials.append(v)
  return spikes, potentials


def signed(xs, theta, low, high):
  """ST-BIF: (spikes, count)."""
  v, count, spikes = theta // 2, 0, []
  for x in xs:
    v += x
    s = 0
    if v >= theta and count < high:
      s = 1
    elif v < 0 and count > low:
      s = -1
    count, v = count + s, v - theta * s
    spikes.append(s)
  return spikes, count


def cuba(xs, theta, du, dv):
  """CUBA: (spikes, currents, potentials)."""
  u = v = 0
  rows = []
  for x in xs:
    u = tz(u * (4096 - du), 12) + 64 * x
    v = tz(v * (4096 - dv), 12) + u
    s = int(v >= theta)
    v = 0 if s else v
    rows.append((s, u, v))
  return tuple(zip(*rows))


def columns(rule, xs, *arguments):
  """A rule per neuron: xs int[T, n], other arguments lists of n."""
  out = [rule(list(map(int, x)), *a) for x, *a in zip(xs.T, *arguments)]
  return [np.asarray(o).T for o in zip(*out)]
