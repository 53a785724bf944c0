"""Private names of other libraries, each behind a public one: one module for each library, or for a part that loads
separately.

A private name may change in any release. No other room uses it. So when a release changes a name,
``tests/borrowed/test_fences.py`` notices in seconds and names the place. A docstring says why the name is needed, and
the module's the release in which it was read. Imports nothing of labkit.
"""
