"""Smaller models: vocabularies that are cut.

Pure functions on configs, parameters and plain tables.
"""
