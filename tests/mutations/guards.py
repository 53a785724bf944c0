"""All guards, which ``mutate.py`` takes out one by one.

One more: a name, why it is there, the file, a snippet that occurs in it once, what is left without the guard, and the
fastest tests that should notice.
"""

import guards_class
import guards_lab
import guards_nodes
import guards_runs
import guards_train
from guard import ROOT, Guard

__all__ = ["GUARDS", "ROOT", "Guard"]

GUARDS = (*guards_lab.GUARDS, *guards_train.GUARDS, *guards_runs.GUARDS, *guards_nodes.GUARDS, *guards_class.GUARDS)
