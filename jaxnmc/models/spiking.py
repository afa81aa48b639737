"""Spiking parts of a transformer, as operations of any interpreter.

Neurons spike over ticks; each tick of a value is a value of its own here, so
ticks lie side by side in space, and tokens stay the axis of time.  What trains
in floats is the same spikes in integers: thresholds are compared, potentials
halved and subtracted, and nothing is rounded on the way.

Attention (`jaxnmc.spike.ssa` is the same on arrays), per tick t and head:

    q, k, v = LIF of W_q x, W_k x, W_v x      the same drive in every tick
    S_i = S_(i-1) + k_i^T v_i   Y_i = q_i S_i
    s = LIF of Y over the ticks, threshold n theta where a head remembers n
        tokens
    out = sum over the ticks of s

A neuron starts from rest for every token.  Neurons may be signed (spikes -1, 0
and 1), and a head may forget all but the last w tokens (a window).

Feed-forward blocks: a neuron with threshold t_k in tick k, t_1 < t_2 < ...,
sends as many spikes as there are thresholds at or below its value.  Which value
of the activation n spikes stand for is up to the thresholds and the weights
behind, so any growing function has its table (`jaxnmc.models.to_spikes`).
"""

import functools

from jaxnmc.spike import surrogates

NEURONS = ("lif", "if")
# Ticks after which a potential is computed once, without which the time of
# compilation grows with a power of the ticks (one token, 14 ticks: minutes).
_SETTLED = 2


def neuron(
  ops, kind: str, signed: bool, drives, theta, slope, const=None
) -> list:
  """Spikes of a neuron from rest, soft reset, no gradient through the reset.

  Args:
    ops: an interpreter.
    kind: "lif" (h = (v + x) / 2) or "if" (h = v + x).
    signed: it also fires -1, where -h reaches the threshold.
    drives: one value [T, ..., n] per tick.
    theta: threshold, [n] or [T, ..., n].
    slope: of the spike, for `ops.compare`.
    const: any constant, for `ops.settle`; None: theta is one.

  Returns:
    One value of 0 and 1 (signed: also -1) per tick.
  """
  spikes, v = [], None
  for tick, x in enumerate(drives, 1):
    h = x if v is None else ops.add(v, x)
    if kind == "lif":
      h = ops.shift(h, 1)
    if tick % _SETTLED == 0:
      h = ops.settle(h, theta if const is None else const)
    up = ops.compare(h, theta, slope)
    v = ops.select(up, ops.sub(h, theta), h)
    if not signed:
      spikes.append(up)
      continue
    down = ops.compare(negative(ops, h), theta, slope)
    v = ops.select(down, ops.add(h, theta), v)
    spikes.append(ops.sub(up, down))
  return spikes


def negative(ops, x):
  """-x, with the bounds of x in integers."""
  return ops.sub(ops.literal((0,) * x.shape[-1], x), x)


def seen(ops, config, like, mask, before):
  """How many tokens each head remembers, itself among them.

  One adder counts them, up to the window of a head.

  Args:
    ops: an interpreter.
    config: `gpt.Config`; its windows and context.
    like: [T, ..., heads d], any value of the tokens.
    mask: int[T, ...], 0 for padding, or None.
    before: [..., heads d], counts of the calls before; None for zeros.

  Returns:
    ([T, ..., heads d], the last of them).
  """
  size = config.context
  windows = config.windows or (None,) * config.num_heads
  limits = tuple(w or size for w in windows for _ in range(config.head_size))

  def body(ops, count, now):
    x, real = now
    count = ops.add(count, ops.keep(real, ops.compare(x, x)))
    if config.windows is not None:
      count = ops.min(count, ops.literal(limits, x))
    count = ops.site("count", count, whole=size)
    return count, count

  start = ops.zeros(like) if before is None else before
  last, counts = ops.scan("seen", body, start, (like, mask))
  return counts, last


def attend(ops, config, p, drives, mask, state):
  """Spiking attention: the spikes of each token, counted, and what it keeps.

  Args:
    ops: an interpreter.
    config: `gpt.Config`; its ticks, neuron, signs, heads, windows and context.
    p: thresholds as logarithms, {"q", "k", "v", "out"}: float[heads d].
    drives: {"q", "k", "v"}: [T, ..., heads d].
    mask: int[T, ...], 0 for padding, or None.
    state: of the tokens before; None for none.

  Returns:
    (spikes over all ticks [T, ..., heads d], state).
  """
  slope = _slope(config.surrogate)
  log = lambda name: ops.const(name, p[name], transform="positive")
  fires = functools.partial(neuron, ops, config.neuron, config.signed)
  ticks, size = range(config.ticks), config.context
  spikes = {}
  for name, drive in drives.items():
    fired = fires([drive] * config.ticks, log(name), slope)
    spikes[name] = [
      ops.site(f"{name}_spikes.{t}", ops.keep(mask, s), whole=1)
      for t, s in zip(ticks, fired)
    ]
  state = state or {"seen": None, "memory": [None] * config.ticks}
  order, last = seen(ops, config, drives["v"], mask, state["seen"])
  if mask is not None:
    # Padding before all tokens has seen none: a threshold of 0 has no slope.
    one = (1,) * (config.num_heads * config.head_size)
    order = ops.max(order, ops.literal(one, order))
  read, memory = [], []
  for t in ticks:
    y, after = ops.memory(
      f"memory.{t}",
      state["memory"][t],
      *(spikes[name][t] for name in "qkv"),
      config.num_heads,
      size,
      config.windows,
      mask,
    )
    read.append(ops.site(f"read.{t}", y, whole=size * config.head_size))
    memory.append(after)
  level = log("out")
  sent = fires(read, ops.mul(order, level), slope, level)
  total = functools.reduce(ops.add, sent)
  # Wo has the division by the ticks in its weights.
  out = ops.site("counts", ops.keep(mask, total), whole=config.ticks)
  return out, {"seen": last, "memory": memory}


def counts(ops, x, table, ticks: int, signed: bool):
  """Spikes of neurons whose threshold in tick k is row k of a table.

  Args:
    ops: an interpreter.
    x: [T, ..., n].
    table: thresholds above 0, float[ticks, n], growing with the tick.
    ticks: rows of the table.
    signed: also count down, where -x reaches a threshold.

  Returns:
    The site "counts": [T, ..., n], whole numbers of magnitude at most ticks.
  """
  rows = ops.const("fire", table)
  sides = [x]
  if signed:
    sides.append(negative(ops, x))
  totals = [
    functools.reduce(
      ops.add,
      [
        ops.compare(side, ops.index(rows, k), _step_slope(k))
        for k in range(ticks)
      ],
    )
    for side in sides
  ]
  total = ops.sub(*totals) if signed else totals[0]
  return ops.site("counts", total, whole=ticks)


@functools.cache
def _slope(kind: str):
  """Slope of a spike of attention, by the name of its surrogate."""
  shape = surrogates.surrogate(kind)
  return lambda h, theta: surrogates.fire(h, theta, shape)


@functools.cache
def _step_slope(k: int):
  """Slope of the threshold (k + 1/2) theta among evenly spaced ones.

  A box as wide as the step, so that all together have the slope of what they
  round.
  """
  width = 1 / (k + 0.5)
  box = surrogates.surrogate("boxcar", width=width, height=1 / width)
  return lambda x, theta: surrogates.fire(x, theta, box)
