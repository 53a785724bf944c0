"""From a reservation on Chameleon to a Jupyter link, and back to nothing.

Notebooks import ``provisioning.chameleon``; ``python -m provisioning`` is the same as a command.
"""
