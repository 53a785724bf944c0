"""Private names of other libraries, each behind a public one: a module a library, or a part of it that loads apart.

A private name may change in any release. It is used in no other room, so that a release that changes one is noticed by
``tests/borrowed/test_fences.py`` in seconds, which names the place. A docstring says why the name is needed, and the
module's the release in which it was read. Imports nothing of labkit.
"""
