"""Other people's trained transformers, as ours compute them."""

import jax
import numpy as np
import pytest

from jaxnmc.models import gpt
from jaxnmc.models.generate import generate
from jaxnmc.ops.transform import reference
from jaxnmc.train.data import read_documents
from tests.io import hf_numpy
from tests.models import gpt_numpy
from tools import gpt2basic, llama2c, mingpt


def test_gpt_nano_sorts(shared_dir):
  """Quoted: 200 of 200 random inputs, by an independent program in NumPy."""
  folder = shared_dir / "data" / "checkpoints" / "gpt-nano-sort"
  config, params = mingpt.read(folder / "gpt-nano-sort-model.json")
  # `wte`, `wpe` and the head's own matrix are counted, too.
  assert config.num_params == 85_728
  prompts = np.random.default_rng(0).integers(0, 3, (200, 6))
  run = reference(gpt.make(config))
  found = generate(run, params, list(prompts), 6, vocab_size=3)
  np.testing.assert_array_equal(np.stack(found.ids), np.sort(prompts, axis=1))


def test_a_llama_computes_what_numpy_computes(shared_dir):
  path = shared_dir / "data" / "checkpoints" / "stories260K"
  checkpoint = llama2c.read_checkpoint(str(path / "stories260K.bin"))
  config, params = llama2c.as_gpt(checkpoint)
  assert config.num_params == 260_032
  ids = np.array([1, 403, 407, 261, 378, 201, 14, 99], np.int32)
  with jax.enable_x64(True):
    params = jax.tree.map(np.float64, params)
    out, _ = jax.jit(reference(gpt.make(config)))(params, {"ids": ids})
  want = gpt_numpy.logits(config, params, ids)
  np.testing.assert_allclose(out.logits, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
  ("checkpoint", "perplexity"),
  [
    ("stories260K/stories260K.bin", 3.53),
    ("bitnet-tinystories/bit_model_1M.bin", 3.74),
    pytest.param(
      *("bitnet-tinystories/bit_model_3M.bin", 3.23), marks=pytest.mark.slow
    ),
  ],
)
def test_a_llama_on_stories(shared_dir, checkpoint, perplexity):
  """Quoted perplexity of the five stories, 400 ids each, BOS among them."""
  data = shared_dir / "data"
  pieces = llama2c.read_pieces(
    data / "tokenizers" / "tinystories512" / "tok512.bin"
  )
  text = data / "tinystories-sample" / "five_stories.txt"
  rows, sizes = llama2c.prefixes(read_documents([str(text)]), pieces, 400)
  rows = [llama2c.ids_of(row, pieces) for row in rows]
  path = data / "checkpoints" / checkpoint
  found = llama2c.score(str(path), rows, sum(sizes))
  assert found.perplexity == pytest.approx(perplexity, abs=0.005)


def _bitllama(shape, params, ids):
  """float64[T, vocab]: the ternary kind, written from its notes."""
  heads, size = shape.heads, shape.dim // shape.heads
  rates = 10000.0 ** (-np.arange(0, size, 2) / size)
  turn = np.exp(1j * np.arange(len(ids))[:, None, None] * rates)

  def linear(name, layer, x):
    w = params[name][layer]
    x = x / np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(x.shape[-1])
    s = 127 / np.abs(x).max(-1, keepdims=True)
    return np.clip(np.round(x * s), -128, 127) / s @ (w.codes.T * w.scale)

  def rotated(x):
    x = x.reshape(len(ids), -1, size)
    z = (x[..., ::2] + 1j * x[..., 1::2]) * turn
    return np.stack([z.real, z.imag], -1).reshape(x.shape)

  h = np.float64(params["embed"][ids])
  for layer in range(shape.layers):
    q, k = (rotated(linear(name, layer, h)) for name in ("wq", "wk"))
    v = linear("wv", layer, h).reshape(k.shape)
    mixed = np.zeros_like(q)
    for t in range(len(ids)):
      for head in range(heads):
        group = head * shape.kv_heads // heads
        weights = np.exp(k[: t + 1, group] @ q[t, head] / np.sqrt(size))
        mixed[t, head] = weights / weights.sum() @ v[: t + 1, group]
    h = h + linear("wo", layer, mixed.reshape(h.shape))
    gate = linear("w1", layer, h)
    hidden = gate / (1 + np.exp(-gate)) * linear("w3", layer, h)
    h = h + linear("w2", layer, hidden)
  ms = np.mean(h**2, axis=-1, keepdims=True)
  return h / np.sqrt(ms + 1e-5) * params["norm"] @ params["embed"].T


@pytest.mark.parametrize(
  ("size", "count"), [("1M", 1_245_312), ("3M", 3_277_056)]
)
def test_a_ternary_llama_computes_what_numpy_computes(shared_dir, size, count):
  path = shared_dir / "data" / "checkpoints" / "bitnet-tinystories"
  checkpoint = llama2c.read_checkpoint(str(path / f"bit_model_{size}.bin"))
  config, params = llama2c.as_gpt(checkpoint)
  # Gains inside the BitLinears are ours; theirs are 1.
  gains = 8 * (6 * config.hidden_size + config.mlp_size)
  assert config.num_params - gains == count
  ids = np.array([1, 403, 407, 261, 378, 201, 14, 99], np.int32)
  with jax.enable_x64(True):
    wide = lambda x: x if x.dtype == np.int8 else np.float64(x)
    params = jax.tree.map(wide, params)
    out, _ = jax.jit(reference(gpt.make(config)))(params, {"ids": ids})
  want = _bitllama(*checkpoint, ids)
  np.testing.assert_allclose(out.logits, want, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
  ("name", "count"), [("chat_l3_d64", 690_752), ("gold_l2_d48", 463_168)]
)
def test_gpt2_basic_computes_what_numpy_computes(shared_dir, name, count):
  path = shared_dir / "data" / "checkpoints" / "gpt2-basic" / f"{name}.npz"
  config, params = gpt2basic.read(path)
  assert config.num_params == count
  ids = np.array([7, 300, 41, 4095, 258, 0, 9], np.int32)
  with jax.enable_x64(True):
    wide = jax.tree.map(np.float64, params)
    out, _ = jax.jit(reference(gpt.make(config)))(wide, {"ids": ids})
  # The same arrays under the names and in the layout of Hugging Face.
  file = dict(np.load(path))
  names = {"tok_emb": "wte.weight", "pos_emb": "wpe.weight"}
  tensors = {names[key]: file[key] for key in names}
  kinds = {"w": "weight", "b": "bias"}
  for layer in range(config.num_layers):
    for kind, word in kinds.items():
      at = lambda part: file[f"h{layer}.{part}.{kind}"]  # noqa: B023
      qkv = np.concatenate([at(part) for part in "qkv"], axis=-1)
      tensors[f"h.{layer}.attn.c_attn.{word}"] = qkv
      for theirs, part in (
        ("attn.c_proj", "proj"),
        ("ln_1", "ln1"),
        ("ln_2", "ln2"),
        ("mlp.c_fc", "fc1"),
        ("mlp.c_proj", "fc2"),
      ):
        tensors[f"h.{layer}.{theirs}.{word}"] = at(part)
  tensors |= {f"ln_f.{kinds[k]}": file[f"ln_f.{k}"] for k in kinds}
  tensors["lm_head.weight"] = file["lm_head.w"].T
  fields = {
    "activation_function": "gelu",
    "layer_norm_epsilon": 1e-5,
    "n_head": 4,
    "n_layer": config.num_layers,
    "tie_word_embeddings": False,
  }
  want = hf_numpy.gpt2(fields, tensors, ids, prefix="") + file["lm_head.b"]
  np.testing.assert_allclose(out.logits, want, rtol=0, atol=1e-10)


def test_gpt2_basic_answers(shared_dir):
  """Quoted: "User: how are you Assistant:" -> "I answer in DOS. ..."."""
  folder = shared_dir / "data" / "checkpoints" / "gpt2-basic"
  config, params = gpt2basic.read(folder / "chat_l3_d64.npz")
  lexicon = gpt2basic.Lexicon(folder / "chat_vocab.json")
  prompts = ["User: how are you Assistant:", "User: Zebra! Assistant:"]
  ids = [lexicon.encode(prompt) for prompt in prompts]
  assert [lexicon.decode(row) for row in ids] == prompts
  # The first is words of the lexicon, the second has bytes.
  assert [len(row) for row in ids] == [5, 11]
  run = reference(gpt.make(config))
  found = generate(run, params, ids, 12, vocab_size=4096, eos_id=gpt2basic.END)
  answer = lexicon.decode(found.ids[0])
  assert answer.startswith(
    " I answer in DOS. It runs locally in this DOS demo."
  )
