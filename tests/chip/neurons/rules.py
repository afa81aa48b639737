"""docs/neurons.md in Python's own integers, one neuron at a time.

No numpy, no jax, no bounds: the rules as they are written, on `int`.  Each
function takes the parameters as keywords and returns (state, message), state
a tuple in the order of the fields of the state it stands for.
"""

TOP = 2**23 - 1


def tz(x: int, k: int) -> int:
  return (1 if x >= 0 else -1) * (abs(x) >> k)


def clip(x: int, low: int, high: int) -> int:
  return low if x < low else high if x > high else x


# --- neurons


def leak(u, v, a, *, du, dv, bias_mant, bias_exp):
  b = bias_mant << bias_exp if bias_exp >= 0 else bias_mant >> -bias_exp
  w = tz(u * (4096 - (du + 1)), 12) + a * 64
  if w > 2**23:
    w -= 2**24
  elif w <= -(2**23):
    w += 2**24
  return w, clip(tz(v * (4096 - dv), 12) + w + b, -TOP, TOP)


def lif(state, inputs, *, vth, **leaky):
  u, v = leak(*state, *inputs, **leaky)
  s = int(v > vth * 64)
  return (u, 0 if s else v), s


def integrator(state, inputs, **leaky):
  u, v = leak(*state, *inputs, **leaky)
  return (u, v), v


def threshold(state, inputs, *, vth):
  return state, int(inputs[0] > vth)


def ternary_lif(state, inputs, *, vth_hi, vth_lo, **leaky):
  u, v = leak(*state, *inputs, **leaky)
  s = 1 if v > vth_hi * 64 else -1 if v < vth_lo * 64 else 0
  return (u, 0 if s else v), s


def lif_reset(state, inputs, *, reset_interval, reset_offset, **rest):
  """The third state is t modulo the interval, t = 1 in the first step."""
  u, v, phase = state
  if phase == reset_offset % reset_interval:
    u = v = 0
  (u, v), s = lif((u, v), inputs, **rest)
  return (u, v, (phase + 1) % reset_interval), s


def turn(state, inputs, *, sin_decay, cos_decay, state_exp, decay_bits):
  re, im = state
  xr, xi = inputs
  times = lambda f, x: tz(f * x, decay_bits)
  real = times(cos_decay, re) - times(sin_decay, im) + (xr << state_exp)
  imag = times(sin_decay, re) + times(cos_decay, im) + (xi << state_exp)
  return clip(real, -TOP, TOP), clip(imag, -TOP, TOP)


def rf(state, inputs, *, vth, **turning):
  real, imag = turn(state, inputs, **turning)
  high = real >= vth << turning["state_exp"]
  return (real, imag), int(high and imag >= 0 and state[1] < 0)


def rf_izhikevich(state, inputs, *, vth, **turning):
  real, imag = turn(state, inputs, **turning)
  scaled = vth << turning["state_exp"]
  if imag >= scaled:
    return (0, scaled - 1), 1
  return (real, imag), 0


def graded(state, inputs, *, vth):
  (a,) = inputs
  return (), a if abs(a) > vth else 0


def graded_relu(state, inputs, *, vth):
  (a,) = inputs
  return (), a if a > vth else 0


def norm_vec_delay(state, inputs, *, vth, delay):
  a1, a2 = inputs
  out = state[delay - 1] * a2
  return (a1, *state[:-1]), (out if abs(out) > vth else 0, a1 * a1)


SEEDS = (
  *(146, 206, 292, 412, 584, 826, 1168, 1652, 2336, 3304, 4674, 6610, 9350),
  *(13222, 18700, 26446, 37402, 52894, 74804, 105788, 149608, 211578, 299218),
  423158,
)


def inv_sqrt(state, inputs):
  (x,) = inputs
  if x <= 0:
    return (), 0
  x = min(x, 2**24 - 1)
  seed = SEEDS[24 - x.bit_length()]
  b, y = x, seed // 2
  for _ in range(5):
    b = ((b * seed >> 13) * seed) >> 13
    seed = (3 << 12) - b
    y = y * seed >> 13
  return (), y


def product(state, inputs, *, vth, exp):
  x1, x2 = inputs
  out = (x1 * x2) >> exp
  return (), out if abs(out) > vth else 0


def tell(a, act, res, err, *, vth, cum_error, spike_exp, state_exp):
  th = vth << (spike_exp + state_exp)
  d = a - act + res
  if cum_error:
    err += d
    o = d if abs(err) >= th else 0
    if o:
      err = 0
  else:
    o = d if abs(d) >= th else 0
  return (a, d - o, err), o >> state_exp


def delta(state, inputs, **rest):
  (x,) = inputs
  return tell(x << (rest["spike_exp"] + rest["state_exp"]), *state, **rest)


def sigma_delta(state, inputs, *, bias, activation, **rest):
  (a,) = inputs
  sigma = state[0] + a
  act = sigma + (bias << (rest["spike_exp"] + rest["state_exp"]))
  if activation == "relu":
    act = max(act, 0)
  new, sent = tell(act, *state[1:], **rest)
  return (sigma, *new), sent


# --- synapses


def weights(matrix, num_weight_bits, mode=None):
  """int[out][in] as the chip keeps them."""
  flat = [w for row in matrix for w in row]
  if mode is None:
    mode = "mixed"
    if min(flat) >= 0:
      mode = "excitatory"
    elif max(flat) <= 0:
      mode = "inhibitory"
  m = mode == "mixed"
  sign = -1 if mode == "inhibitory" else 1
  k = 8 - num_weight_bits + m
  kept = lambda w: sign * ((clip(sign * w, -256 * m, 255) >> k) << k)
  return [[kept(w) for w in row] for row in matrix]


def shifted(a: int, exp: int) -> int:
  return a << exp if exp > 0 else a >> -exp


def activations(matrix, delays, messages, *, exp, binary):
  """What arrives in every step, int[T][out]; delays may be None."""
  steps = range(len(messages))
  out = [[0] * len(matrix) for _ in steps]
  for t, sent in enumerate(messages):
    s = [int(x != 0) for x in sent] if binary else sent
    for target, row in enumerate(matrix):
      sums: dict[int, int] = {}
      for source, w in enumerate(row):
        d = delays[target][source] if delays else 0
        sums[d] = sums.get(d, 0) + w * s[source]
      for d, a in sums.items():
        if t + 1 + d in steps:
          out[t + 1 + d][target] += shifted(a, exp)
  return out
