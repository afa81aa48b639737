"""Which neuron lies on which core: tiles, packing, storage, presets."""
