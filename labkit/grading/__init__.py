"""Handing in: one archive for each student, graded without executing, extracting or trusting anything in it."""
