"""What is compared: other people's simulators, two plain JAX rows, ours."""

import dataclasses

SIZES = (1024, 4096)
STEPS, FEWER_STEPS = 1000, 5  # a fifth for more than 1,024 neurons


@dataclasses.dataclass(frozen=True)
class Peer:
  """One row per size and activity.

  Attributes:
    name: as in `--peers` and the table.
    driver: file beside this one, without `.py`.
    activities: thresholds of drive per step; near the share of firing neurons,
      which is less for large ones, as what is over the threshold is lost.
    variant: which row of a driver with several.
    requires: what pip installs; none runs in the tool's own Python.
    env: folder of the environment; peers that agree share one.
    python: version the environment needs, None for the tool's.
    steps: of a stretch of up to 1,024 neurons; less for slow ones.
  """

  name: str
  driver: str
  activities: tuple[float, ...]
  variant: str = ""
  requires: tuple[str, ...] = ()
  env: str = "numpy2"
  python: str | None = None
  steps: int = STEPS

  def stretch(self, n: int) -> int:
    """Steps of a stretch of n neurons."""
    return self.steps if n <= 1024 else self.steps // FEWER_STEPS


_OLD_NUMPY = "numpy<2"
_LAVA = ("lava-nc==0.10.0",)
PEERS = (
  Peer("spyx", "run_spyx", (0.06,), requires=("spyx==0.1.20",)),
  Peer(
    "brian2loihi",
    "run_brian2loihi",
    (0.97,),  # a neuron rests for a step after each spike
    requires=("brian2-loihi==0.5.2", _OLD_NUMPY),
    env="numpy1",
    steps=200,
  ),
  Peer(
    "lava-sparse",
    "run_lava",
    (0.12,),
    "sparse",
    _LAVA,
    "lava",
    "3.10",
    steps=200,
  ),
  Peer(
    "lava-dense",
    "run_lava",
    (0.12,),
    "dense",
    _LAVA,
    "lava",
    "3.10",
    steps=200,
  ),
  Peer("snntorch", "run_snntorch", (0.06,), requires=("snntorch==1.0.0",)),
  Peer("norse", "run_norse", (0.6,), requires=("norse==1.1.0",)),
  Peer(
    "nengo-loihi",
    "run_nengo_loihi",
    (0.08,),
    requires=("nengo-loihi==1.1.0", _OLD_NUMPY),
    env="numpy1",
  ),
  Peer(
    "sanafe",
    "run_sanafe",
    (0.06,),
    requires=("sanafe==2.2.9",),
    steps=200,
  ),
  Peer("jax-float32", "plain_jax", (0.06, 0.6), "float32"),
  Peer("jax-int32", "plain_jax", (0.12,), "int32", steps=200),
)
OURS = Peer("jaxnmc", "jaxnmc_circuit", ())
