"""Hugging Face folders of Llama: what they compute, and bad ones."""

import functools

import numpy as np
import pytest

from jaxnmc.errors import ConfigError
from jaxnmc.io.load import load
from tests.io import hf_gpt, hf_numpy


@pytest.fixture
def make(tmp_path):
  """make(fields, tensors, name="model") -> folder."""
  return functools.partial(hf_gpt.write, tmp_path)


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"tie_word_embeddings": True, "num_key_value_heads": 4},
    {"attention_bias": True, "mlp_bias": True},
    {
      "rope_theta": "absent",
      "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    },
  ],
  ids=["grouped", "tied", "biases", "newer names"],
)
def test_llama_computes_what_numpy_computes(make, changes):
  fields = hf_gpt.LLAMA | changes
  tensors = hf_gpt.llama_tensors(fields)
  model = load(make(fields, tensors))
  want = hf_numpy.llama(fields | {"rope_theta": 100.0}, tensors, hf_gpt.IDS)
  np.testing.assert_allclose(hf_gpt.logits_of(model), want, rtol=0, atol=1e-10)
  assert model.config.num_params == sum(t.size for t in tensors.values())


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"hidden_act": "gelu"}, ["'hidden_act'", "'silu'", "SwiGLU"]),
    ({"mlp_bias": True}, ["'mlp_bias' is True", "'attention_bias' is False"]),
    ({"rope_scaling": {"factor": 8.0}}, ["'rope_scaling'", "None"]),
    (
      {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
      ["rope_type", "'llama3'", "'default'"],
    ),
    ({"rope_parameters": {"factor": 2}}, ["'rope_parameters'", "factor"]),
    ({"rope_interleaved": True}, ["'rope_interleaved' is True", "halves"]),
    ({"rope_theta": 1}, ["'rope_theta'", "above 1"]),
    ({"num_key_value_heads": 3}, ["'num_key_value_heads' (3)", "divisible"]),
    ({"num_attention_heads": 3}, ["'num_attention_heads' (3)", "head_dim"]),
    ({"sliding_window": 4096}, ["unknown field 'sliding_window'"]),
  ],
)
def test_bad_llama_config(make, fields, words):
  folder = make(hf_gpt.LLAMA | fields, {})
  with pytest.raises(ConfigError) as caught:
    load(folder)
  for word in (str(folder / "config.json"), *words):
    assert word in str(caught.value)
