"""Time, power and energy of what was counted, from sourced constants."""
