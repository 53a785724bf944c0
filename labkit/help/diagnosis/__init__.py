"""Diagnosis: why a run died, by its record and its log, and what to do."""
