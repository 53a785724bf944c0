"""Ranks: the processes of one run on several devices."""
