"""What the panel shows to whom. Every run that is asked for here exists, so that only the guard can refuse it."""

import contextlib
import http.client
import json
import re
import shutil
import urllib.parse

import pytest
from panel_runs import TOKEN, Runs, progress, start

from labkit.lab.panel import handlers
from labkit.ledger.lock import new_lock
from labkit.ledger.run_folder import RunFolder

BASE = "/user/someone/labkit/panel"
RUN = "/tiny/reduced_batch/guarded"
PLACES = ["", "/", "/list", "/gpus", RUN, RUN + "/feed"]


@pytest.fixture(scope="module")
def inside(server):
    """The ledger of the server, with one run that has a panel."""
    runs = Runs(server.runs)
    runs.add("guarded", start(), progress(1, 1234.5))
    return runs


@pytest.fixture(scope="module")
def asked(server, inside):
    """One request as it is, with nothing made better by a client: status, headers and what was said."""

    def ask(path, token=TOKEN, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path if path.startswith("/user") else BASE + path, skip_host="Host" in sent)
        for name, value in {**({"Authorization": f"token {token}"} if token else {}), **sent}.items():
            connection.putheader(name, value)
        connection.endheaders()
        with contextlib.closing(connection), connection.getresponse() as answer:
            return answer.status, answer.headers, answer.read().decode()

    return ask


@pytest.fixture(scope="module")
def cookie(asked):
    """What a browser has after the log-in."""
    _, headers, _ = asked(f"/user/someone/tree?token={TOKEN}", token=None)
    return "; ".join(value.split(";")[0] for value in headers.get_all("Set-Cookie"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], TOKEN + "x"])
def test_only_who_may_use_the_server_is_told_anything(asked, path, token):
    assert asked(path)[0] == 200
    status, headers, said = asked(path, token=token)
    assert status == (403 if path.endswith(("feed", "list", "gpus")) else 302)
    assert status == 403 or "/login" in headers["Location"]
    assert not any(told in said for told in ("guarded", "1234.5", "FACTS", "NVIDIA"))


ODD = (".hidden", "gu\u00e4rded", "\uff07uarded", "with space", "<img src=x onerror=alert(1)>", "%s%d", "guarded\n")
REFUSED = [
    "..%2foutside/reduced_batch/secret", "%2e%2e%2Foutside/reduced_batch/secret", "{absolute}/reduced_batch/secret",
    "tiny/..%2f..%2foutside%2freduced_batch/secret", "tiny/{absolute}%2freduced_batch/secret",
    "tiny/reduced_batch/..%2f..%2f..%2foutside%2freduced_batch%2fsecret",
    "tiny/.%2freduced_batch/guarded", "tiny/reduced_batch/guarded%00", "tiny%00/reduced_batch/guarded",
    "tiny/reduced_batch/linked", "linked/reduced_batch/secret", "tiny/reduced_batch/" + "x" * 300,
    *(f"tiny/reduced_batch/{urllib.parse.quote(name)}" for name in ODD),
]  # fmt: skip


@pytest.fixture(scope="module")
def beside(inside):
    """Runs beside the ledger or with a name that is none, each as whole as those that have a panel."""
    outside = inside.root.parent / "outside"
    inside.add("secret", start(), progress(1, 66.6), root=outside.parent, profile="outside")
    for name in ODD:
        inside.add(name, start(), progress(1, 66.6))
    (inside.root / "tiny" / "reduced_batch" / "linked").symlink_to(outside / "reduced_batch" / "secret")
    (inside.root / "linked").symlink_to(outside)
    return outside


@pytest.mark.slow
@pytest.mark.parametrize("place", ["", "/feed"])
@pytest.mark.parametrize("path", REFUSED)
def test_only_names_of_runs_in_the_ledger_have_a_panel(asked, beside, path, place):
    assert asked(f"{RUN}{place}")[0] == 200
    status, _, said = asked(f"/{path.format(absolute=urllib.parse.quote(str(beside), safe=''))}{place}")
    assert status == 404
    assert "66.6" not in said and "FACTS" not in said
    assert place == "/feed" or "<img src=x" not in said  # JSON is no page


@pytest.mark.slow
def test_the_list_has_just_the_runs_that_have_a_panel(asked, beside):
    assert [one["id"] for one in json.loads(asked("/list")[2])] == ["guarded"]


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["-1", "x", "1.5", "", "%3Cscript%3E", "%D9%A1", "9" * 16, "9" * 5000, "%00"])
def test_what_is_no_number_of_an_answer_is_refused(asked, seen):
    assert asked(f"{RUN}/feed?from=0")[0] == 200
    status, _, said = asked(f"{RUN}/feed?from={seen}")
    assert status == 400 and "<script>" not in said


@pytest.mark.slow
@pytest.mark.parametrize("path", PLACES)
def test_another_origin_is_told_nothing_with_the_browsers_cookie(asked, cookie, path, server):
    own = f"http://127.0.0.1:{server.port}"
    assert asked(path, token=None, Cookie=cookie, Origin=own)[0] == 200
    status, headers, _ = asked(path, token=None, Cookie=cookie, Origin="http://evil.example")
    # a page cannot be read from elsewhere, for nothing allows it, and it has nothing in it but a name
    assert status == (404 if path.endswith(("feed", "list", "gpus")) else 200)
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.slow
@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_there_is_nothing_to_change(asked, cookie, path, method):
    assert asked(path, method=method)[0] == 405
    assert asked(path, token=None, method=method, Cookie=cookie, Content_Length="0")[0] == 403


@pytest.fixture
def running(inside):
    """A run that this process watches, and that only a user of the server may stop."""
    folder = RunFolder(inside.root / RUN.lstrip("/"))
    with new_lock(folder.path):
        yield folder
    folder.stop.unlink(missing_ok=True)


def token_of(cookie):
    return re.search(r"_xsrf=([^;]+)", cookie)[1]


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], TOKEN + "x"])
def test_only_who_may_use_the_server_stops_a_run(asked, running, token):
    _, headers, _ = asked("/user/someone/login", token=None)  # which gives anybody a cookie and its token
    cookie = "; ".join(value.split(";")[0] for value in headers.get_all("Set-Cookie"))
    sent = {"Cookie": cookie, "X_XSRFToken": token_of(cookie), "Content_Length": "0"}
    assert asked(f"{RUN}/stop", token=token, method="POST", **sent)[0] == 403
    assert not running.stop_requested
    assert asked(f"{RUN}/stop", method="POST", Content_Length="0")[0] == 202
    assert running.stop_requested


@pytest.mark.slow
def test_no_page_of_another_origin_stops_a_run_with_the_browsers_cookie(asked, cookie, running, server):
    own, right = f"http://127.0.0.1:{server.port}", {"X_XSRFToken": token_of(cookie)}
    for origin, sent in (
        (own, {}), (own, {"X_XSRFToken": "2|0|0|0"}), ("http://evil.example", {}), ("http://evil.example", right),
    ):  # fmt: skip
        sent = {"Cookie": cookie, "Origin": origin, "Content_Length": "0"} | sent
        assert asked(f"{RUN}/stop", token=None, method="POST", **sent)[0] in (403, 404)
        assert not running.stop_requested
    sent = {"Cookie": cookie, "Origin": own, "Content_Length": "0"} | right
    assert asked(f"{RUN}/stop", token=None, method="POST", **sent)[0] == 202
    assert running.stop_requested


@pytest.mark.slow
def test_a_page_that_is_opened_alone_gets_what_a_stop_needs(asked):
    _, headers, _ = asked(RUN)
    assert any(value.startswith("_xsrf=") for value in headers.get_all("Set-Cookie"))


@pytest.mark.slow
@pytest.mark.parametrize("path", REFUSED)
def test_only_runs_of_the_ledger_are_stopped(asked, beside, running, path):
    folders = [found.parent for found in (*beside.rglob("config.json"), *running.path.parents[1].rglob("config.json"))]
    with contextlib.ExitStack() as locks:
        for folder in folders:
            if folder != running.path and not folder.is_symlink():
                locks.enter_context(new_lock(folder))
        found = path.format(absolute=urllib.parse.quote(str(beside), safe=""))
        assert asked(f"/{found}/stop", method="POST", Content_Length="0")[0] == 404
    assert not [folder for folder in folders if RunFolder(folder).stop_requested]


@pytest.mark.slow
def test_a_stop_is_a_post_of_a_run_that_runs(asked, running, inside):
    assert asked(f"{RUN}/stop")[0] == 405
    assert not running.stop_requested
    over = inside.add("over", start(), progress(1, 1.0))
    status, _, said = asked("/tiny/reduced_batch/over/stop", method="POST", Content_Length="0")
    assert status == 409 and "the run over is over; there is nothing to stop" in json.loads(said)["message"]
    assert not over.stop_requested
    shutil.rmtree(over.path)


@pytest.mark.slow
def test_a_stop_writes_through_no_link(asked, running, tmp_path):
    running.stop.symlink_to(tmp_path / "elsewhere")
    assert asked(f"{RUN}/stop", method="POST", Content_Length="0")[0] == 409
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize("path", PLACES)
def test_an_answer_is_what_it_says_and_no_one_keeps_or_frames_it(asked, path):
    _, headers, _ = asked(path)
    json_or_page = "application/json" if path.endswith(("feed", "list", "gpus")) else "text/html; charset=utf-8"
    assert headers["Content-Type"] == json_or_page
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    rules = headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in rules and "default-src 'none'" in rules


@pytest.mark.slow
@pytest.mark.parametrize("path", ["", RUN])
def test_just_the_pages_own_script_runs(asked, path):
    nonces = []
    for _ in range(2):
        _, headers, page = asked(path)
        rules = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
        nonces.append(rules["script-src"].removeprefix("'nonce-").removesuffix("'"))
        assert page.count("<script") == 1 and f'<script nonce="{nonces[-1]}">' in page
        assert rules["connect-src"] == "'self'" and rules["base-uri"] == rules["form-action"] == "'none'"
    assert len(set(nonces)) == 2 and all(len(nonce) >= 16 for nonce in nonces)


def test_no_name_ends_the_script():
    page = handlers.page("/</script><script>alert(1)//", "<!--<script>", "x")
    assert page.count("<script") == page.count("</script") == 1 and "<!--" not in page


@pytest.mark.slow
def test_a_panel_that_is_left_open_keeps_no_idle_server_alive(asked):
    before = json.loads(asked("/user/someone/api/status")[2])["last_activity"]
    activity = [json.loads(asked("/user/someone/api/status?no_track_activity=1")[2])["last_activity"]]
    for path in (f"{RUN}/feed", "/list", "/gpus"):
        asked(path)
        activity.append(json.loads(asked("/user/someone/api/status?no_track_activity=1")[2])["last_activity"])
    assert before and len(set(activity)) == 1
