"""Spiking neurons, surrogate gradients, spike codes and spiking attention."""
