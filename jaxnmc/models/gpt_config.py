"""Sizes and options of the decoder-only transformer."""

import dataclasses
from typing import Any

from jaxnmc.errors import ConfigError
from jaxnmc.models.spiking import NEURONS
from jaxnmc.ops.attention import PAIRINGS
from jaxnmc.spike.surrogates import KINDS

# Far beyond any model; a size above it is a damaged or invented config.
_MAX_SIZE = 1 << 30
_MAX_LAYERS = 1 << 14
_MLP_MULTIPLE = 32
CHOICES = {
  "norm": ("rms", "layer"),
  "mlp": ("swiglu", "gelu", "gelu_tanh", "relu"),
  "positions": ("rotary", "learned", "none"),
  "rotary_pairs": PAIRINGS,
  "attention": ("softmax", "ssa"),
  "neuron": NEURONS,
  "surrogate": tuple(KINDS),
}
MAX_TICKS = 64
Windows = tuple[int | None, ...]
_FLAGS = (
  "signed",
  "block_norms",
  "bias",
  "head_bias",
  "tie_word_embeddings",
  "ternary",
)


def _whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Configuration; names follow the Hugging Face `config.json` where it can.

  The defaults are those of the Llama family; `PRESETS` has those of GPT-2.

  Attributes:
    vocab_size: number of tokens V.
    hidden_size: width of the residual stream D.
    num_layers: number of blocks L.
    num_heads: query heads H.
    num_kv_heads: heads of keys and values, or None for H.
    head_dim: width of a head h, or None for D / H.
    intermediate_size: width I of the channel mixer, or None for the multiple
      of 32 at or above 8 D / 3 (SwiGLU) or 4 D (else, about as many weights).
    heads_per_layer: query heads of each layer, at most H, where a pruned model
      has fewer in some; each head of keys and values that is left has as many
      query heads as before.  None: H everywhere.
    intermediate_per_layer: width of each channel mixer of a pruned model.
      None: I everywhere.
    max_position_embeddings: most tokens of a sequence C; the size of the
      memory of keys and values.
    norm: "rms" (RMSNorm) or "layer" (LayerNorm).
    block_norms: a norm in front of each mixer; without them (and with
      `ternary`) those inside the BitLinears are the only ones, but for the
      last, in front of the head.
    mlp: "swiglu", "gelu" (exact), "gelu_tanh" (as GPT-2) or "relu".
    positions: "rotary", "learned" or "none".
    rope_theta: base of the rotary frequencies.
    rotary_pairs: "halves" (as Hugging Face) or "neighbours" (as llama2.c).
    attention: "softmax", or "ssa" (causal spiking self-attention without
      softmax; `jaxnmc.models.spiking`).
    ticks: of the neurons of "ssa".
    neuron: of "ssa": "lif" or "if".
    signed: its spikes are -1, 0 and 1; else 0 and 1.
    surrogate: the slope of its spikes in training (`spike.surrogates`).
    windows: how many of the last tokens each of its heads remembers, null for
      all; or such a list for each layer; None: all remember all.
    mlp_ticks: ticks of spiking feed-forward blocks; None: they do not spike.
    bias: projections have biases.
    head_bias: a head of its own has one, too.
    tie_word_embeddings: the head is the embedding table.
    ternary: projections (and a head of its own) are BitLinear, as in the
      MatMul-free model: norm, 8-bit activations, ternary weights.
    norm_eps: eps of block norms and final norm.
    bitlinear_eps: eps of the norm inside a BitLinear.
    initializer_range: standard deviation of the normal initialisers.
    bos_token_id: begin-of-text token, or None.
    eos_token_id: end-of-text token, or None.
    pad_token_id: padding token, or None.

  Raises:
    ConfigError: a size that is no positive integer, a choice that there is
      not, an eps outside of (0, 1), or fields that do not go together.
  """

  vocab_size: int = 32000
  hidden_size: int = 768
  num_layers: int = 12
  num_heads: int = 12
  num_kv_heads: int | None = None
  head_dim: int | None = None
  intermediate_size: int | None = None
  heads_per_layer: tuple[int, ...] | None = None
  intermediate_per_layer: tuple[int, ...] | None = None
  max_position_embeddings: int = 1024
  norm: str = "rms"
  block_norms: bool = True
  mlp: str = "swiglu"
  positions: str = "rotary"
  rope_theta: float = 10000.0
  rotary_pairs: str = "halves"
  attention: str = "softmax"
  ticks: int = 4
  neuron: str = "lif"
  signed: bool = False
  surrogate: str = "atan"
  windows: Windows | tuple[Windows, ...] | None = None
  mlp_ticks: int | None = None
  bias: bool = False
  head_bias: bool = False
  tie_word_embeddings: bool = True
  ternary: bool = False
  norm_eps: float = 1e-5
  bitlinear_eps: float = 1e-6
  initializer_range: float = 0.02
  bos_token_id: int | None = 1
  eos_token_id: int | None = 2
  pad_token_id: int | None = None

  def __post_init__(self):
    for field in ("vocab_size", "hidden_size", "num_layers", "num_heads"):
      self._size(field)
    self._size("max_position_embeddings")
    for field in ("num_kv_heads", "head_dim", "intermediate_size"):
      if getattr(self, field) is not None:
        self._size(field, " or null")
    for field, allowed in CHOICES.items():
      value = getattr(self, field)
      if value not in allowed:
        raise ConfigError(
          f"config field {field!r} must be one of {', '.join(allowed)}; found"
          f" {value!r}"
        )
    for field in ("ticks", "mlp_ticks"):
      self._ticks(field)
    for field in _FLAGS:
      value = getattr(self, field)
      if not isinstance(value, bool):
        raise ConfigError(
          f"config field {field!r} must be true or false; found {value!r}"
        )
    for field in ("norm_eps", "bitlinear_eps"):
      value = getattr(self, field)
      if not 0 < value < 1:
        raise ConfigError(
          f"config field {field!r} must lie between 0 and 1; found {value!r}"
        )
    if not 1 < self.rope_theta <= _MAX_SIZE:  # also refuses NaN
      raise ConfigError(
        "config field 'rope_theta' must be above 1 and at most"
        f" {_MAX_SIZE}; found {self.rope_theta!r}"
      )
    self._together()
    self._per_layer()
    if self.windows is not None:
      self._windows()

  def _size(self, field: str, more: str = "") -> None:
    value = getattr(self, field)
    if not _whole(value) or value < 1:
      raise ConfigError(
        f"config field {field!r} must be a positive integer{more}; found"
        f" {value!r}"
      )
    top = _MAX_LAYERS if field == "num_layers" else _MAX_SIZE
    if value > top:
      raise ConfigError(
        f"config field {field!r} must be at most {top}; found {value}"
      )

  def _ticks(self, field: str) -> None:
    value = getattr(self, field)
    if field == "mlp_ticks" and value is None:
      return
    if not _whole(value) or not 1 <= value <= MAX_TICKS:
      raise ConfigError(
        f"config field {field!r} must be a whole number from 1 to {MAX_TICKS};"
        f" found {value!r}"
      )

  def _per_layer(self) -> None:
    """Heads and widths of the layers of a pruned model."""
    group = self.num_heads // self.kv_heads
    for field, usual, top, step in (
      ("heads_per_layer", self.num_heads, self.num_heads, group),
      ("intermediate_per_layer", self.mlp_size, _MAX_SIZE, 1),
    ):
      found = getattr(self, field)
      if found is None:
        continue
      rows = list(found) if isinstance(found, list | tuple) else []
      if len(rows) != self.num_layers or not all(
        _whole(n) and step <= n <= top and n % step == 0 for n in rows
      ):
        what = "whole numbers" if step == 1 else f"multiples of {step}"
        raise ConfigError(
          f"config field {field!r} must be null or a list of {self.num_layers}"
          f" ('num_layers') {what} from {step} to {top}; found {found!r}"
        )
      # JSON has lists; a config is hashable.
      same = all(n == usual for n in rows)
      object.__setattr__(self, field, None if same else tuple(rows))
    if self.heads_per_layer is not None and self.head_dim is None:
      raise ConfigError(
        "config field 'head_dim' must be given when 'heads_per_layer' is: heads"
        " that are left do not fill 'hidden_size'; found null"
      )

  def _windows(self) -> None:
    """Of each head, or of each head of each layer."""
    found, heads = self.windows, self._heads
    nested = isinstance(found, list | tuple) and any(
      isinstance(row, list | tuple) for row in found
    )
    if not nested and self.heads_per_layer is not None:
      raise ConfigError(
        "config field 'windows' must be null or a list of"
        f" {self.num_layers} ('num_layers') lists, one per layer, when"
        f" 'heads_per_layer' is given; found {found!r}"
      )
    rows: list[Any] = list(found or ()) if nested else [found] * len(heads)
    size = self.max_position_embeddings
    fits = lambda w: w is None or (_whole(w) and 1 <= w <= size)
    if len(rows) != len(heads) or not all(
      isinstance(row, list | tuple) and len(row) == n and all(map(fits, row))
      for row, n in zip(rows, heads)
    ):
      counts = self.heads_per_layer or self.num_heads
      name = "heads_per_layer" if self.heads_per_layer else "num_heads"
      many = f"{len(heads)} lists of " if nested else ""
      raise ConfigError(
        f"config field 'windows' must be null or a list of {many}{counts}"
        f" ({name!r}) whole numbers from 1 to {size}, or nulls; found"
        f" {found!r}"
      )
    table = tuple(tuple(row) for row in rows)
    same = all(row == table[0] for row in table)
    kept = table[0] if same and self.heads_per_layer is None else table
    whole = all(w is None for row in table for w in row)
    object.__setattr__(self, "windows", None if whole else kept)

  def _together(self) -> None:
    """Fields that depend on each other."""
    if self.head_dim is None and self.hidden_size % self.num_heads:
      raise ConfigError(
        f"config field 'hidden_size' ({self.hidden_size}) must be divisible"
        f" by 'num_heads' ({self.num_heads}), or give 'head_dim'"
      )
    if self.num_heads % self.kv_heads:
      raise ConfigError(
        f"config field 'num_heads' ({self.num_heads}) must be divisible by"
        f" 'num_kv_heads' ({self.kv_heads})"
      )
    if self.positions == "rotary" and self.head_size % 2:
      raise ConfigError(
        "rotary positions turn pairs of features, so a head needs an even"
        f" width; found {self.head_size}; change 'num_heads' or 'head_dim'"
      )
    if self.attention == "ssa" and self.kv_heads != self.num_heads:
      raise ConfigError(
        f"config field 'num_kv_heads' ({self.num_kv_heads}) must be 'num_heads'"
        f" ({self.num_heads}) when 'attention' is \"ssa\": every head has a"
        " memory of its own"
      )
    for field in ("bias", "head_bias"):
      if self.ternary and getattr(self, field):
        raise ConfigError(
          f"config field {field!r} must be false when 'ternary' is on: a"
          " BitLinear has no bias"
        )
    if self.head_bias and self.tie_word_embeddings:
      raise ConfigError(
        "config field 'head_bias' must be false when 'tie_word_embeddings' is"
        " on: the embedding table has no bias"
      )
    if not (self.block_norms or self.ternary):
      raise ConfigError(
        "config field 'block_norms' may be false only when 'ternary' is on:"
        " dense projections have no norms of their own"
      )

  def layer(self, index: int) -> "Config":
    """What a model has whose layers are all like this one.

    Args:
      index: of the layer, from 0.

    Returns:
      A config without fields per layer; this one, where it has none.
    """
    windows = self.windows
    nested = windows is not None and isinstance(windows[0], tuple)
    if nested:
      windows = windows[index]  # type: ignore[index, assignment]
    elif self.heads_per_layer is self.intermediate_per_layer is None:
      return self
    heads, kv = self._heads[index], self.num_kv_heads
    if kv is not None:
      kv = heads * kv // self.num_heads
    width = self.intermediate_per_layer
    return dataclasses.replace(
      self,
      num_heads=heads,
      num_kv_heads=kv,
      head_dim=self.head_size,
      intermediate_size=self.mlp_size if width is None else width[index],
      heads_per_layer=None,
      intermediate_per_layer=None,
      windows=windows,
    )

  @property
  def layers(self) -> tuple["Config", ...]:
    """`layer` of each layer."""
    return tuple(self.layer(index) for index in range(self.num_layers))

  @property
  def _heads(self) -> tuple[int, ...]:
    """Query heads of each layer."""
    return self.heads_per_layer or (self.num_heads,) * self.num_layers

  @property
  def kv_heads(self) -> int:
    """Heads of keys and values (of a layer that is not pruned)."""
    return self.num_kv_heads or self.num_heads

  @property
  def head_size(self) -> int:
    """Width of a head h."""
    return self.head_dim or self.hidden_size // self.num_heads

  @property
  def mlp_size(self) -> int:
    """Width of the channel mixer I (of a layer that is not pruned)."""
    if self.intermediate_size is not None:
      return self.intermediate_size
    if self.mlp != "swiglu":
      return 4 * self.hidden_size
    return _MLP_MULTIPLE * -(-8 * self.hidden_size // (3 * _MLP_MULTIPLE))

  @property
  def context(self) -> int:
    """Most tokens of a sequence C."""
    return self.max_position_embeddings

  @property
  def num_params(self) -> int:
    """Number of parameters, embedding, head and gains included."""
    d, v = self.hidden_size, self.vocab_size
    norm = d if self.norm == "rms" else 2 * d
    head = 0 if self.tie_word_embeddings else v * d + d * self.ternary
    head += v * self.head_bias
    learned = self.context * d if self.positions == "learned" else 0
    blocks = sum(
      layer._block_params + 2 * norm * self.block_norms for layer in self.layers
    )
    return v * d + learned + blocks + norm + head

  @property
  def _block_params(self) -> int:
    """Number of parameters of one layer, without its norms."""
    d, i = self.hidden_size, self.mlp_size
    q, kv = self.num_heads * self.head_size, self.kv_heads * self.head_size
    shapes = [(q, d), (kv, d), (kv, d), (d, q), (i, d), (d, i)]
    if self.mlp == "swiglu":
      shapes.append((i, d))
    block = sum(out * inp for out, inp in shapes)
    if self.bias:
      block += sum(out for out, _ in shapes)
    if self.ternary:
      block += sum(inp for _, inp in shapes)
    if self.attention == "ssa":
      block += 4 * q
    if self.mlp_ticks is not None:
      block += self.mlp_ticks * i
    return block


GPT2 = Config(
  vocab_size=50257,
  norm="layer",
  mlp="gelu_tanh",
  positions="learned",
  bias=True,
  bos_token_id=50256,
  eos_token_id=50256,
)
# The sizes of Radford et al. 2019; names as on the Hugging Face hub.
PRESETS = {
  "gpt2": GPT2,
  "gpt2-medium": dataclasses.replace(
    GPT2, hidden_size=1024, num_layers=24, num_heads=16
  ),
  "gpt2-large": dataclasses.replace(
    GPT2, hidden_size=1280, num_layers=36, num_heads=20
  ),
}
