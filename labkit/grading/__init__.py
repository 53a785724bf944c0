"""Handing in: one archive a student, graded without executing, extracting or believing anything in it."""
