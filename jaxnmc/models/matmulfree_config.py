"""Sizes and options of the MatMul-free language model."""

import dataclasses

from jaxnmc.errors import ConfigError

_MLP_MULTIPLE = 256
# Far beyond any model; a size above it is a damaged or invented config.
_MAX_SIZE = 1 << 30
_MAX_LAYERS = 1 << 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Configuration; names follow the Hugging Face `config.json` where it can.

  Attributes:
    vocab_size: number of tokens V.
    hidden_size: width of the residual stream D.
    num_layers: number of blocks L.
    num_heads: only reshapes the recurrent state; no numerical effect.
    expand_ratio: recurrent width E = int(D * expand_ratio).
    hidden_ratio: rule for the GLU width when `intermediate_size` is None.
    intermediate_size: GLU width I, or None for the rule
      256 * ceil(int(D * hidden_ratio * 2 / 3) / 256).
    rms_norm_eps: eps of block norms, gate norm and final norm.
    bitlinear_eps: eps of the norm inside every BitLinear (the reference has
      1e-6 as a constant; a model trained for the chip may state another).
    use_lower_bound: forget gates of layer l stay above a learned bound.
    norm: "double" (two norms in a row, as the reference) or "fused" (the same
      function in real numbers, one root; other integers).
    initializer_range: standard deviation of the normal initialisers.
    bos_token_id: begin-of-text token, or None.
    eos_token_id: end-of-text token, or None.
    pad_token_id: padding token, or None.

  Raises:
    ConfigError: a size that is no positive integer, an eps outside of (0, 1),
      another norm, or sizes that do not go together.
  """

  vocab_size: int = 32000
  hidden_size: int = 2048
  num_layers: int = 24
  num_heads: int = 1
  expand_ratio: float = 1
  hidden_ratio: float = 4
  intermediate_size: int | None = None
  rms_norm_eps: float = 1e-6
  bitlinear_eps: float = 1e-6
  use_lower_bound: bool = True
  norm: str = "double"
  initializer_range: float = 0.02
  bos_token_id: int | None = 1
  eos_token_id: int | None = 2
  pad_token_id: int | None = None

  def __post_init__(self):
    for field in ("vocab_size", "hidden_size", "num_layers", "num_heads"):
      value = getattr(self, field)
      if not isinstance(value, int) or value < 1:
        raise ConfigError(
          f"config field {field!r} must be a positive integer; found {value!r}"
        )
      top = _MAX_LAYERS if field == "num_layers" else _MAX_SIZE
      if value > top:
        raise ConfigError(
          f"config field {field!r} must be at most {top}; found {value}"
        )
    for field in ("expand_ratio", "hidden_ratio"):
      value = getattr(self, field)
      if not 0 < value <= _MAX_SIZE:  # also refuses NaN
        raise ConfigError(
          f"config field {field!r} must be positive and at most {_MAX_SIZE};"
          f" found {value!r}"
        )
    if self.norm not in ("double", "fused"):
      raise ConfigError(
        f"config field 'norm' must be 'double' or 'fused'; found {self.norm!r}"
      )
    if self.hidden_size % self.num_heads:
      raise ConfigError(
        f"config field 'hidden_size' ({self.hidden_size}) must be divisible"
        f" by 'num_heads' ({self.num_heads})"
      )
    if self.state_size < 1:
      raise ConfigError(
        f"config field 'expand_ratio' = {self.expand_ratio!r} leaves no state"
      )
    if self.use_lower_bound and self.state_size != self.hidden_size:
      raise ConfigError(
        "config field 'expand_ratio' must be 1 when 'use_lower_bound' is on"
        f" (the bounds are [L, D]); found {self.expand_ratio!r}; set"
        " use_lower_bound to false"
      )
    size = self.intermediate_size
    if size is not None and (not isinstance(size, int) or size < 1):
      raise ConfigError(
        "config field 'intermediate_size' must be a positive integer or null;"
        f" found {size!r}"
      )
    if self.mlp_size < 1:
      raise ConfigError(
        f"config field 'hidden_ratio' = {self.hidden_ratio!r} leaves no channel"
        " mixer; give a larger ratio or an intermediate_size"
      )
    for field in ("rms_norm_eps", "bitlinear_eps"):
      value = getattr(self, field)
      if not 0 < value < 1:
        raise ConfigError(
          f"config field {field!r} must lie between 0 and 1; found {value!r}"
        )

  @property
  def state_size(self) -> int:
    """Recurrent width E."""
    return int(self.hidden_size * self.expand_ratio)

  @property
  def mlp_size(self) -> int:
    """GLU width I."""
    if self.intermediate_size is not None:
      return self.intermediate_size
    base = int(self.hidden_size * self.hidden_ratio * 2 / 3)
    return _MLP_MULTIPLE * -(-base // _MLP_MULTIPLE)

  @property
  def num_params(self) -> int:
    """Number of parameters, embedding, head and gains included."""
    d, e, i, v = (
      self.hidden_size,
      self.state_size,
      self.mlp_size,
      self.vocab_size,
    )
    attn = 3 * (e * d + d) + d * e + e + e
    mlp = 2 * i * d + d + d * i + i
    block = attn + mlp + 2 * d
    bounds = self.num_layers * d if self.use_lower_bound else 0
    return v * d + self.num_layers * block + d + v * d + d + bounds


PRESETS = {
  "370M": Config(hidden_size=1024, num_layers=24),
  "1.3B": Config(hidden_size=2048, num_layers=24),
  "2.7B": Config(hidden_size=2560, num_layers=32),
}
