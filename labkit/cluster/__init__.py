"""Slurm: batch scripts written and examined, jobs submitted and followed."""
