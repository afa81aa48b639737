"""Plasticity by the time between two spikes, pair by pair.

    x' = x e^(-1/tau_plus) + pre        y' = y e^(-1/tau_minus) + post
    dW = A_plus x post - A_minus y pre

A synapse gets stronger when its input comes before the spike of its neuron,
and weaker when it comes after.  In integers it is a rule of two terms
(`three_factor`, docs/learning.md, 5).
"""

from jaxnmc.chip.learning.three_factor import Term, ThreeFactor, Trace


def pair(
  *,
  plus: int = 4,
  minus: int = 4,
  tau_plus: float = 20.0,
  tau_minus: float = 20.0,
  shift: int = 6,
  impulse: int = 64,
  top: int = 127,
  weight_bits: int = 8,
  rounding: str = "stochastic",
  seed: int = 0,
) -> ThreeFactor:
  """The rule for binary spikes.

  A pair of spikes d steps apart changes a weight by about plus * impulse *
  e^(-d / tau_plus) / 2^shift codes, or the negative with minus.  Spikes of the
  same step are no pair: traces are read before this step's spikes enter them.

  Args:
    plus: A_plus, a whole number.
    minus: A_minus.
    tau_plus: time constant of the trace of what arrives, in steps.
    tau_minus: that of what the neuron sends.
    shift: bits that a change loses, 0 to 30.
    impulse: what a spike adds to a trace.
    top: largest trace; 7 bits are what public models of the chip have.
    weight_bits: of a weight, 2 to 8.
    rounding: "stochastic" or "nearest".
    seed: of the random numbers.

  Returns:
    The rule; feed `three_factor.step` with spikes of 0 and 1 and r = 0.

  Raises:
    ConfigError: a parameter out of its range.
    FormatError: a change could leave 32 bits.
  """
  return ThreeFactor(
    terms=(Term(("x1", "y0"), plus), Term(("y1", "x0"), -minus)),
    shift=shift,
    pre=Trace.of_time(tau_plus, impulse, top),
    post=Trace.of_time(tau_minus, impulse, top),
    pre_top=1,
    post_top=1,
    third_top=0,
    weight_bits=weight_bits,
    rounding=rounding,
    seed=seed,
  )
