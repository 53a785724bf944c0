"""Families: code for a family of models that needs torch. Facts that do not are in ``config.catalogue``."""
