"""Configuration: typed keys, layers, profiles, architectures. Imports nothing heavy."""
