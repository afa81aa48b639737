"""Parts of neurtransformer.py: what is measured, energies, what is shown."""
