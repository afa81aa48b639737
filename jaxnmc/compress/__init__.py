"""Smaller models: heads and units that go, weights that are zero, vocabularies.

Pure functions on configs, pytrees and plain tables:

    heads.keep, units.keep      which heads and feed-forward units stay
    shrink.shrink               the smaller config and its parameters
    shrink.masked               the same parts as zeros, sizes as they were
    masks                       single weights that are zero, also in training
    vocabulary                  the tokens that a text needs most
"""
