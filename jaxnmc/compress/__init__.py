"""Smaller models: heads and units that go, weights that are zero.

Pure functions on configs and pytrees:

    heads.keep, units.keep      which heads and feed-forward units stay
    shrink.shrink               the smaller config and its parameters
    shrink.masked               the same parts as zeros, sizes as they were
    masks                       single weights that are zero, also in training
"""
