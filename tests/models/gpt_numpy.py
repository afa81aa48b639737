"""A transformer in NumPy, written from the equations: one token at a time.

Plain loops over tokens and heads, every key kept in a list: nothing of the
masks, slots and memories that `jaxnmc.models.gpt` computes with.
"""

import math

import numpy as np


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def rms(x, gain, eps):
  return x / np.sqrt((x**2).mean() + eps) * gain


def norm(c, p, x):
  if c.norm == "rms":
    return rms(x, p["gain"], c.norm_eps)
  centred = x - x.mean()
  return centred / np.sqrt(x.var() + c.norm_eps) * p["gain"] + p["bias"]


def activation(x, form):
  if form == "relu":
    return np.where(x > 0, x, 0)
  if form == "gelu":
    return x * np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
  inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
  return x * 0.5 * (1 + np.tanh(inner))


def silu(x):
  return x / (1 + np.exp(-x))


def bit_linear(p, x, eps):
  x = rms(x, p["norm"], eps)
  s = 127 / max(abs(x).max(), 1e-5)
  x = np.clip(np.sign(x) * np.floor(abs(x * s) + 0.5), -128, 127) / s
  w = p["weight"]
  scale = max(abs(w).mean(), 1e-5)
  return scale * np.clip(np.round(w / scale), -1, 1) @ x


def project(c, p, x):
  if c.ternary:
    return bit_linear(p, x, c.bitlinear_eps)
  return p["weight"] @ x + p.get("bias", 0)


def turned(c, x, position):
  """One head's rotary positions."""
  h, out = len(x), np.array(x)
  for i in range(h // 2):
    t = position * c.rope_theta ** (-2 * i / h)
    a, b = (i, i + h // 2)
    if c.rotary_pairs == "neighbours":
      a, b = 2 * i, 2 * i + 1
    out[a] = x[a] * np.cos(t) - x[b] * np.sin(t)
    out[b] = x[a] * np.sin(t) + x[b] * np.cos(t)
  return out


def logits(c, params, ids):
  """float64[T, V] of ids int[T]."""
  groups = c.num_heads // c.kv_heads
  keys = [[] for _ in params["layers"]]
  values = [[] for _ in params["layers"]]
  rows = []
  for position, token in enumerate(ids):
    r = params["embed"]["weight"][token]
    if c.positions == "learned":
      r = r + params["positions"]["weight"][position]
    for index, p in enumerate(params["layers"]):
      x, attn = norm(c, p["attn_norm"], r) if c.block_norms else r, p["attn"]
      q = project(c, attn["q"], x).reshape(c.num_heads, -1)
      k = project(c, attn["k"], x).reshape(c.kv_heads, -1)
      v = project(c, attn["v"], x).reshape(c.kv_heads, -1)
      if c.positions == "rotary":
        q = np.stack([turned(c, head, position) for head in q])
        k = np.stack([turned(c, head, position) for head in k])
      keys[index].append(k)
      values[index].append(v)
      heads = []
      for j in range(c.num_heads):
        ks = np.stack([past[j // groups] for past in keys[index]])
        vs = np.stack([past[j // groups] for past in values[index]])
        heads.append(softmax(ks @ q[j] / math.sqrt(c.head_size)) @ vs)
      r = r + project(c, attn["o"], np.concatenate(heads))
      x, mlp = norm(c, p["mlp_norm"], r) if c.block_norms else r, p["mlp"]
      up = project(c, mlp["up"], x)
      if c.mlp == "swiglu":
        hidden = silu(project(c, mlp["gate"], x)) * up
      else:
        hidden = activation(up, c.mlp)
      r = r + project(c, mlp["down"], hidden)
    x = norm(c, params["norm"], r)
    if c.tie_word_embeddings:
      rows.append(params["embed"]["weight"] @ x)
    else:
      rows.append(project(c, params["head"], x))
  return np.stack(rows)
