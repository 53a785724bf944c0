"""Catalogue: facts of models and their families. Imports nothing heavy."""
