"""Run a service's WSGI application: ``serve.py ADDRESS MODULE [the service's own arguments]``."""

import importlib
import sys

import gunicorn.app.base

SETTINGS = {"workers": 1, "threads": 8, "worker_class": "gthread", "timeout": 120, "keepalive": 5}


class Server(gunicorn.app.base.BaseApplication):
    """One process with threads: what a test needs, and the least memory."""

    def load_config(self):
        for key, value in SETTINGS.items():
            self.cfg.set(key, value)
        self.cfg.set("bind", sys.argv[1])

    def load(self):
        module = sys.argv[2]
        sys.argv = [module, *sys.argv[3:]]  # the services read their own options from there
        return importlib.import_module(module).application


Server().run()
