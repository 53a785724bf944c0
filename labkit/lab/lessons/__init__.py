"""Lessons: of every lab its questions, checks and explanations; a module a lab."""
