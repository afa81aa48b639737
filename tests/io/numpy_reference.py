"""The MatMul-free LM in NumPy, written from its specification alone.

It shares no code with jaxnmc: weights go by their Hugging Face names, the
ternary product is an integer sum with one rescale, and the straight-through
gradient comes from complex steps instead of differentiation rules.
"""

import numpy as np

EPS_BIT = 1e-6


def sizes(config):
  d = config["hidden_size"]
  inner = config.get("intermediate_size")
  if inner is None:
    inner = 256 * -(-int(d * config["hidden_ratio"] * 2 / 3) // 256)
  return d, int(d * config["expand_ratio"]), inner


def shapes(config):
  """Names and shapes of the state dict."""
  d, e, i = sizes(config)
  v, layers = config["vocab_size"], config["num_hidden_layers"]
  out = {"model.embeddings.weight": (v, d)}
  if config["use_lower_bound"]:
    out["model.lower_bounds"] = (layers, d)
  for n in range(layers):
    at = f"model.layers.{n}."
    out[at + "attn_norm.weight"] = (d,)
    for name in ("i", "f", "g"):
      out[at + f"attn.{name}_proj.weight"] = (e, d)
      out[at + f"attn.{name}_proj.norm.weight"] = (d,)
    out[at + "attn.g_norm.weight"] = (e,)
    out[at + "attn.o_proj.weight"] = (d, e)
    out[at + "attn.o_proj.norm.weight"] = (e,)
    out[at + "mlp_norm.weight"] = (d,)
    out[at + "mlp.gate_proj.weight"] = (2 * i, d)
    out[at + "mlp.gate_proj.norm.weight"] = (d,)
    out[at + "mlp.down_proj.weight"] = (d, i)
    out[at + "mlp.down_proj.norm.weight"] = (i,)
  out["model.norm.weight"] = (d,)
  out["lm_head.weight"] = (v, d)
  out["lm_head.norm.weight"] = (d,)
  return out


def rms(x, gain, eps):
  return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


class Net:
  """One set of weights.

  Args:
    config: fields of `config.json`.
    weights: name -> float64 (or complex) array.
    frozen: quantisation errors of an earlier run, by BitLinear; then both
      quantisers add these constants, which is the straight-through form.
  """

  def __init__(self, config, weights, frozen=None):
    self.config, self.w, self.frozen = config, weights, frozen
    self.errors = {}
    self.codes = {}
    self.margin = np.inf
    self.weight_margin = np.inf

  def bit(self, name, x):
    w = self.w[name + ".weight"]
    y = rms(x, self.w[name + ".norm.weight"], EPS_BIT)
    if self.frozen is not None:
      activation, weight = self.frozen[name]
      return (y + activation) @ (w + weight).T
    s = 127 / np.maximum(np.abs(y).max(-1, keepdims=True), 1e-5)
    raw = y * s
    q = np.clip(np.sign(raw) * np.floor(np.abs(raw) + 0.5), -128, 127)
    self.margin = min(self.margin, np.abs(raw % 1 - 0.5).min())
    c = max(np.abs(w).mean(), 1e-5)
    t = np.clip(np.rint(w / c), -1, 1)
    near = np.abs(np.abs(w / c) - 0.5).min()
    self.weight_margin = min(self.weight_margin, near)
    self.codes[name] = (q, s)
    self.errors[name] = (q / s - y, c * t - w)
    return (q.astype(np.int64) @ t.astype(np.int64).T) * (c / s)

  def bounds(self):
    p = self.w["model.lower_bounds"]
    p = np.exp(p - p.real.max(0, keepdims=True))
    p = p / p.sum(0, keepdims=True)
    return np.cumsum(p, 0) - p[:1]

  def mixer(self, n, x, h, mask):
    at = f"model.layers.{n}.attn."
    i = self.bit(at + "i_proj", x)
    f = sigmoid(self.bit(at + "f_proj", x))
    if self.config["use_lower_bound"] and n > 0:
      bound = self.bounds()[n]
      f = bound + (1 - bound) * f
    u = i * sigmoid(i) * (1 - f)
    if mask is not None:
      u = u * mask[:, :, None]
    states = []
    for t in range(x.shape[1]):
      h = f[:, t] * h + u[:, t]
      states.append(h)
    states = np.stack(states, 1)
    z = self.bit(at + "g_proj", x)
    gate = rms(z, self.w[at + "g_norm.weight"], self.config["rms_norm_eps"])
    return self.bit(at + "o_proj", gate * states * sigmoid(states)), h

  def forward(self, ids, mask=None, state=None):
    """(values by recorded name, state): ids [B, T]."""
    config, out = self.config, {}
    eps, (_, e, inner) = config["rms_norm_eps"], sizes(config)
    r = self.w["model.embeddings.weight"][ids]
    out["embed"] = r
    new = []
    for n in range(config["num_hidden_layers"]):
      at = f"model.layers.{n}."
      h = np.zeros((len(ids), e)) if state is None else state[n]
      x = rms(r, self.w[at + "attn_norm.weight"], eps)
      a, h = self.mixer(n, x, h, mask)
      r = r + a
      x = rms(r, self.w[at + "mlp_norm.weight"], eps)
      w = self.bit(at + "mlp.gate_proj", x)
      g, up = w[..., :inner], w[..., inner:]
      m = self.bit(at + "mlp.down_proj", g * sigmoid(g) * up)
      r = r + m
      new.append(h)
      out[f"attn_out_{n}"], out[f"mlp_out_{n}"] = a, m
      out[f"block_out_{n}"] = r
    x = out["final_norm"] = rms(r, self.w["model.norm.weight"], eps)
    out["logits"] = self.bit("lm_head", x)
    return out, new

  def loss(self, ids):
    """Mean next-token cross-entropy, nats."""
    logits = self.forward(ids)[0]["logits"][:, :-1]
    shifted = logits - logits.real.max(-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log, ids[:, 1:, None], -1).mean()


def states(prefix, state, heads):
  return {
    f"{prefix}state_{n}": h.reshape(len(h), heads, -1)
    for n, h in enumerate(state)
  }


def record(config, weights, ids, mask, prefill, steps):
  """Every recorded array but the gradients, float64; (arrays, net)."""
  heads = config["num_heads"]
  net = Net(config, weights)
  out, state = net.forward(ids, mask)
  found = {"masked_logits": out["logits"], **states("masked_", state, heads)}

  out, state = net.forward(ids[:, :prefill])
  greedy, start = [(out["logits"][:, -1], state)], state
  found["decode_prefill_logits"] = out["logits"]
  found |= states("decode_prefill_", state, heads)
  rows = []
  for t in range(prefill, ids.shape[1]):
    out, state = net.forward(ids[:, t : t + 1], state=state)
    rows.append(out["logits"])
  found["decode_logits"] = np.concatenate(rows, 1)
  found |= states("decode_", state, heads)

  logits, state = greedy[0][0], start
  chosen, rows = [], []
  for _ in range(steps):
    rows.append(logits)
    chosen.append(logits.argmax(-1))
    out, state = net.forward(chosen[-1][:, None], state=state)
    logits = out["logits"][:, 0]
  found["greedy_ids"] = np.stack(chosen, 1).astype(np.int32)
  found["greedy_logits"] = np.stack(rows, 1)
  top = np.sort(found["greedy_logits"], -1)
  found["greedy_min_top2_gap"] = (top[..., -1] - top[..., -2]).min()

  # Last, so that the net keeps the codes of the whole forward.
  out, state = net.forward(ids)
  found |= {**out, **states("", state, heads)}
  found["lower_bounds_effective"] = net.bounds()
  q, s = net.codes["model.layers.0.attn.i_proj"]
  found["act_codes_l0_i_proj"], found["act_scale_l0_i_proj"] = q, s
  return found, net


def gradients(config, weights, ids):
  """(loss, name -> straight-through gradient), by complex steps.

  With both quantisation errors held fixed the loss is analytic, and
  Im loss(w + ih) / h is its derivative to the last bit.
  """
  net = Net(config, weights)
  net.forward(ids)
  step, out = 1e-40, {}
  for name, w in weights.items():
    out[name] = np.zeros_like(w)
    for index in np.ndindex(w.shape):
      moved = w.astype(np.complex128)
      moved[index] += 1j * step
      run = Net(config, {**weights, name: moved}, net.errors)
      out[name][index] = run.loss(ids).imag / step
  return net.loss(ids), out
