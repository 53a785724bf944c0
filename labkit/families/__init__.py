"""Families: what needs torch of a family of models. Facts that need none are in ``config.catalogue``."""
