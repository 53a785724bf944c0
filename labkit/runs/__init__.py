"""Runs: the ledger, the child process and its watcher, and what is read from them."""
