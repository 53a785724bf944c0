"""A login silences what python-chi prints, and no line of anybody else; python-chi is played."""

import sys
import threading
from types import ModuleType, SimpleNamespace

from provisioning import cloud

CONTEXT = """
import sys
region, during = "", None

def use_site(name):
    global region
    print("Now using", name)
    print("a warning", file=sys.stderr)
    during()
    region = name
"""


def test_what_another_thread_says_during_a_login_is_not_lost(monkeypatch, capsys):
    context = ModuleType("chi.context")
    exec(CONTEXT, vars(context))
    context._auth_plugin = "v3password"
    chi = SimpleNamespace(context=context, get=lambda _: context.region, use_site=lambda name: context.use_site(name))
    monkeypatch.setitem(sys.modules, "chi", chi)

    def another():
        thread = threading.Thread(target=print, args=("ok     rotc",))
        thread.start()
        thread.join()

    context.during = another
    cloud._choose(SimpleNamespace(name="CHI@UC"))
    assert capsys.readouterr() == ("ok     rotc\n", "")
    assert "print" not in vars(context)  # a notebook of the user's own may use it, and sees what it says
