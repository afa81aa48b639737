"""GPT-2 and Llama in NumPy, from the names and layouts of Hugging Face files.

One sequence, float64, matrices as they are stored; nothing of jaxnmc.
"""

import math

import numpy as np


def _softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def _attend(q, k, v):
  """Causal attention of heads [H, T, h]."""
  t = q.shape[1]
  scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
  scores = np.where(np.tri(t, dtype=bool), scores, -np.inf)
  return np.concatenate(list(_softmax(scores) @ v), axis=-1)


def _heads(x, heads):
  return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def _gelu_new(x):
  inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
  return 0.5 * x * (1 + np.tanh(inner))


def _gelu(x):
  return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


ACTIVATIONS = {
  "gelu_new": _gelu_new,
  "gelu_pytorch_tanh": _gelu_new,
  "gelu": _gelu,
  "relu": lambda x: (abs(x) + x) / 2,
}


def gpt2(fields, tensors, ids, prefix="transformer."):
  """float64[T, V] of ids int[T]; `fields` is the whole config.json."""
  w = {k: np.asarray(v, np.float64) for k, v in tensors.items()}
  at = lambda name: w[prefix + name]

  def norm(name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(x.var(-1, keepdims=True) + fields["layer_norm_epsilon"])
    return x * at(name + ".weight") + at(name + ".bias")

  def conv1d(name, x):
    return x @ at(name + ".weight") + at(name + ".bias")

  act = ACTIVATIONS[fields["activation_function"]]
  r = at("wte.weight")[ids] + at("wpe.weight")[: len(ids)]
  for layer in range(fields["n_layer"]):
    h = f"h.{layer}."
    qkv = conv1d(h + "attn.c_attn", norm(h + "ln_1", r))
    parts = (_heads(x, fields["n_head"]) for x in np.split(qkv, 3, axis=-1))
    r = r + conv1d(h + "attn.c_proj", _attend(*parts))
    up = conv1d(h + "mlp.c_fc", norm(h + "ln_2", r))
    r = r + conv1d(h + "mlp.c_proj", act(up))
  tied = fields["tie_word_embeddings"]
  head = at("wte.weight") if tied else w["lm_head.weight"]
  return norm("ln_f", r) @ head.T


def llama(fields, tensors, ids):
  """float64[T, V] of ids int[T]."""
  w = {k: np.asarray(v, np.float64) for k, v in tensors.items()}
  heads, kv = fields["num_attention_heads"], fields["num_key_value_heads"]

  def norm(name, x):
    ms = (x**2).mean(-1, keepdims=True)
    return x / np.sqrt(ms + fields["rms_norm_eps"]) * w[name + ".weight"]

  def linear(name, x):
    return x @ w[name + ".weight"].T + w.get(name + ".bias", 0)

  def rotated(x):
    """x [H, T, h]: complex numbers of the first and the second half."""
    h = x.shape[-1]
    rates = fields["rope_theta"] ** (-np.arange(0, h, 2) / h)
    turn = np.exp(1j * np.arange(x.shape[1])[:, None] * rates)
    z = (x[..., : h // 2] + 1j * x[..., h // 2 :]) * turn
    return np.concatenate([z.real, z.imag], -1)

  r = w["model.embed_tokens.weight"][ids]
  for layer in range(fields["num_hidden_layers"]):
    at = f"model.layers.{layer}."
    x = norm(at + "input_layernorm", r)
    q = rotated(_heads(linear(at + "self_attn.q_proj", x), heads))
    k = rotated(_heads(linear(at + "self_attn.k_proj", x), kv))
    v = _heads(linear(at + "self_attn.v_proj", x), kv)
    k, v = (np.repeat(one, heads // kv, axis=0) for one in (k, v))
    r = r + linear(at + "self_attn.o_proj", _attend(q, k, v))
    x = norm(at + "post_attention_layernorm", r)
    gate = linear(at + "mlp.gate_proj", x)
    up = linear(at + "mlp.up_proj", x)
    r = r + linear(at + "mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
  tied = fields["tie_word_embeddings"]
  name = "model.embed_tokens.weight" if tied else "lm_head.weight"
  return norm("model.norm", r) @ w[name].T
