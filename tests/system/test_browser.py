"""JupyterLab as a student has it: ``make lab`` in a real headless Chromium, cell by cell.

Screenshots go to the folder that ``LABKIT_SCREENSHOTS`` names, else to pytest's own.
"""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import nbformat
import pytest
from conftest import serving
from support.wait import wait_for
from support.walk import solve

from labkit.grading.archive import read_archive

ROOT = Path(__file__).parents[2]
TOKEN = "only-for-this-test"
WAIT_MS = 90_000
SETUP = 'from labkit.lab import Lab\nlab = Lab("02_batch_and_accumulation")\nlab'
IDLE = ".jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status=idle]"
JUPYTERLABS = ("Canceled future for",)
"""What JupyterLab itself calls an error when a kernel that works is restarted."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where notebooks, workspace and runs lie."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def jupyter(root):
    """``make lab`` on a copy of notebooks and workspace, so that nothing in the repository gets outputs."""
    shutil.copytree(
        ROOT / "workspace", root / "workspace", ignore=shutil.ignore_patterns("runs", "data", "submission*")
    )
    shutil.copytree(ROOT / "labs", root / "labs")
    own = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SETUP)])
    own.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name in ("form", "panel"):  # a widget is gone with its kernel, which JupyterLab calls an error
        nbformat.write(own, root / "labs" / f"{name}.ipynb")
    filled = solve().solved(root / "labs" / "02_batch_and_accumulation.ipynb")
    nbformat.write(filled, root / "labs" / "02_filled_in.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "LABKIT_RUNS": str(root / "runs"), "LABKIT_WORKSPACE": str(root / "workspace"),
        "JUPYTER_CONFIG_DIR": str(root / "config"),
    }  # fmt: skip
    arguments = (
        f"--no-browser --ip=127.0.0.1 --port={port} --ServerApp.port_retries=0 --IdentityProvider.token={TOKEN} "
        f"--ServerApp.root_dir={root}"
    )
    # where nothing is installed yet it installs
    with serving(["make", "--silent", "lab", f"ARGS={arguments}"], port, env, root / "server.log", 600) as url:
        yield url


class Notebook:
    """One notebook in a page. ``errors`` are what the browser's console called one."""

    def __init__(self, page, url, shots):
        self.page, self.url, self.shots = page, url, shots
        self.errors = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: self._hear(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._hear(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())

    def _hear(self, text):
        if not any(known in text for known in JUPYTERLABS):
            self.errors.append(text)

    def open(self, path):
        self.page.goto(f"{self.url}{path}?reset&token={TOKEN}")  # else what was open before is too
        self.ready()

    def ready(self):
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.idle()

    def idle(self):
        """Wait for the kernel: what is executed before it is there is lost."""
        self.page.wait_for_selector(IDLE)
        self.page.locator(".jp-StatusBar-TextItem", has_text="| Idle").first.wait_for()
        self.page.wait_for_timeout(1000)

    def first_cell(self):
        self.page.locator(".jp-Notebook .jp-Cell").first.click()
        self.page.keyboard.press("Escape")

    def step(self):
        """Execute the selected cell and go to the next; wait for its end."""
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_timeout(300)
        self.wait()

    def wait(self):
        self.page.wait_for_function(
            "!Array.from(document.querySelectorAll('.jp-InputPrompt')).some(e => e.textContent.includes('*'))"
        )

    def select_last(self):
        """Select the last cell, whatever has the keyboard; beside what it shows, for a form takes what is typed."""
        self.page.locator(".jp-Notebook .jp-Cell").last.locator(".cm-content").first.click()
        self.page.keyboard.press("Escape")

    def add(self, code, wait=True):
        """A new cell at the end, executed; its output area."""
        self.select_last()
        self.page.keyboard.press("b")
        self.page.keyboard.press("Enter")
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Control+Enter")
        self.page.keyboard.press("Escape")
        if wait:
            self.page.wait_for_timeout(300)
            self.wait()
        return self.page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-OutputArea")

    def theme(self, name):
        """JupyterLab's theme from the next loading of the page on."""
        path = f"{self.url}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
        answer = self.page.request.put(path, data={"raw": json.dumps({"theme": name})})
        assert answer.ok, answer.text()

    def saved(self):
        """Wait until JupyterLab has saved by itself."""
        self.page.wait_for_selector(".jp-NotebookPanel", state="attached")
        self.page.wait_for_function("!document.querySelector('.lm-DockPanel-tabBar .jp-mod-dirty')")

    def shot(self, name):
        self.page.screenshot(path=self.shots / f"{name}.png")


@pytest.fixture(scope="module")
def notebook(chromium, jupyter, tmp_path_factory):
    from playwright.sync_api import sync_playwright

    named = os.environ.get("LABKIT_SCREENSHOTS")
    shots = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # it runs as root
        yield Notebook(browser.new_page(viewport={"width": 1400, "height": 1000}), jupyter, shots)
        browser.close()


def panel_of(output):
    return output.locator("iframe").content_frame


def step_of(panel):
    said = panel.locator("#step").inner_text()
    found = re.match(r"step (\d+) of", said)
    return int(found[1]) if found else -1


def test_make_lab_opens_the_first_notebook(notebook):
    notebook.page.goto(f"{notebook.url}/?token={TOKEN}")
    notebook.ready()
    assert "00_setup.ipynb" in notebook.page.url
    notebook.shot("00-opened")


def test_a_terminal_has_the_command(notebook):
    page = notebook.page
    page.goto(f"{notebook.url}/lab?reset&token={TOKEN}")
    page.locator(".jp-LauncherCard", has_text="Terminal").click()
    page.locator(".jp-Terminal .xterm").click()
    page.wait_for_timeout(2000)
    page.keyboard.type("labkit --help > $JUPYTER_SERVER_ROOT/said.txt 2>&1\n")
    said = f"{notebook.url}/api/contents/said.txt?token={TOKEN}"
    wait_for(lambda: (found := page.request.get(said)).ok and "usage: labkit" in found.json()["content"])
    notebook.shot("terminal")


def test_lab_02_is_run_cell_by_cell(notebook):
    notebook.open("/lab/tree/labs/02_filled_in.ipynb")
    cells = len(json.loads((ROOT / "labs" / "02_batch_and_accumulation.ipynb").read_text())["cells"])
    notebook.first_cell()
    for number in range(cells):
        notebook.step()
        notebook.shot(f"02-{number:02d}")
    outputs = " ".join(notebook.page.locator(".jp-OutputArea-output").all_inner_texts())
    assert "Traceback" not in outputs and "Error" not in outputs
    assert outputs.count("passed") >= 2
    assert notebook.page.locator(".jp-OutputArea-output img").count() >= 2
    assert notebook.errors == []


def test_the_form_says_what_is_predicted_and_what_is_wrong(notebook):
    notebook.open("/lab/tree/labs/form.ipynb")
    notebook.first_cell()
    notebook.step()
    output = notebook.add('lab.form("reduced_batch")')
    said, line = output.locator(".labkit-form-said"), output.locator(".labkit-form-line")
    wait_for(lambda: "fits (predicted)" in said.inner_text())
    field = output.locator(".labkit-form-batch_size input")
    notebook.shot("form-fits")
    field.fill("64")
    wait_for(lambda: "out of memory (predicted)" in said.inner_text())
    assert line.locator("code").inner_text() == "labkit run reduced_batch batch_size=64 --profile tiny"
    notebook.shot("form-out-of-memory")
    field.fill("many")
    for key in ("use_lora", "use_qlora"):
        output.locator(f".labkit-form-{key} input").check()
    errors = output.locator(".labkit-form-error:visible")
    wait_for(lambda: errors.count() == 3)
    assert "batch_size is a whole number" in errors.first.inner_text()
    for key, is_wrong in (("batch_size", True), ("use_qlora", True), ("lora_r", False)):
        around = output.locator(f".labkit-form-{key} input").evaluate("it => getComputedStyle(it).boxShadow")
        assert ("rgb(179, 38, 30)" in around) == is_wrong
    assert output.locator(".labkit-form-run").is_disabled()
    notebook.shot("form-wrong")
    output.locator(".labkit-form-reset").click()
    wait_for(lambda: "fits (predicted)" in said.inner_text())
    assert errors.count() == 0 and field.input_value() == "16"
    assert notebook.errors == []


def test_the_form_copies_its_line_and_says_where_the_browser_does_not(notebook):
    page, line = notebook.page, notebook.page.locator(".labkit-form-line")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    line.locator("button").click()
    line.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "labkit run reduced_batch --profile tiny"
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    line.locator("button").click()
    line.get_by_text("does not let this page copy").wait_for()
    assert page.evaluate("getSelection().toString()") == "labkit run reduced_batch --profile tiny"
    page.evaluate("() => { Object.defineProperty(navigator, 'clipboard', { value: undefined }); }")
    page.locator(".labkit-form-batch_size input").fill("4")
    line.get_by_text("batch_size=4").wait_for()
    line.locator("button").click()
    line.get_by_text("does not let this page copy").wait_for()
    notebook.shot("form-not-copied")
    page.context.clear_permissions()
    assert notebook.errors == []


def test_the_form_runs_and_the_panel_in_its_place_stops_the_run(notebook, root):
    page = notebook.page
    output = page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-OutputArea")
    output.get_by_text("all other keys").click()
    output.locator(".labkit-form-max_epochs input").fill("2000")
    output.locator(".labkit-form-report_every input").fill("5")
    output.locator(".labkit-form-run").click()
    panel = panel_of(output)
    wait_for(lambda: step_of(panel) > 3)
    assert output.locator(".labkit-form-batch_size").count() == 0
    output.scroll_into_view_if_needed()
    notebook.shot("form-runs")
    panel.locator("#stop").click()  # and the dialog that asks is accepted
    output.locator(".labkit-form-back").wait_for()
    assert "stopped because a stop was requested" in output.inner_text()
    newest = max(root.glob("runs/tiny/reduced_batch/*/record.json"), key=lambda path: path.stat().st_mtime)
    record = json.loads(newest.read_text())
    assert (record["status"], record["overrides"]["max_epochs"]) == ("killed", 2000)
    assert "a stop was requested" in record["reason"]
    notebook.shot("form-stopped")
    output.locator(".labkit-form-back").click()
    output.locator(".labkit-form-batch_size input").wait_for()
    output = notebook.add("lab.watch()")
    panel = panel_of(output)
    wait_for(lambda: panel.locator("#status").inner_text() == "killed")
    assert panel.locator("#stop").is_hidden()
    assert notebook.errors == []


def test_the_panel_moves_and_is_there_again_after_a_reload_and_a_restart(notebook):
    page = notebook.page
    notebook.open("/lab/tree/labs/panel.ipynb")
    notebook.first_cell()
    notebook.step()
    output = notebook.add('lab.run("reduced_batch", max_epochs=200, report_every=5)', wait=False)
    panel = panel_of(output)
    wait_for(lambda: step_of(panel) > 3)
    seen = step_of(panel)
    wait_for(lambda: step_of(panel) > seen)
    assert panel.locator("#status").inner_text() == "running"
    assert panel.locator("#memory rect").count() > 4
    assert "capacity" in panel.locator("#memory").text_content()
    assert panel.locator("#loss polyline").count() == 1
    output.scroll_into_view_if_needed()
    notebook.shot("panel-running")
    page.set_viewport_size({"width": 700, "height": 1000})
    page.wait_for_timeout(1500)
    output.scroll_into_view_if_needed()
    notebook.shot("panel-half-width")
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert panel.locator("body").evaluate(f"() => {wide}")
    page.set_viewport_size({"width": 1400, "height": 1000})
    notebook.saved()
    seen = step_of(panel)
    notebook.theme("JupyterLab Dark")
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    output = page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-OutputArea")
    panel = panel_of(output)
    wait_for(lambda: step_of(panel) > seen)
    seen = step_of(panel)
    wait_for(lambda: step_of(panel) > seen)
    output.scroll_into_view_if_needed()
    assert panel.locator("html").get_attribute("class") == "dark"
    notebook.shot("panel-after-reload-dark")

    notebook.select_last()
    page.keyboard.press("0")
    page.keyboard.press("0")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    wait_for(lambda: panel.locator("#status").inner_text() == "killed")
    # JupyterLab interrupts a kernel before it ends it; either way the record says so
    assert re.search("Ctrl-C|was killed", panel.locator("#reason").inner_text())
    notebook.idle()
    output = notebook.add(f"{SETUP}.watch()")
    panel = panel_of(output)
    wait_for(lambda: panel.locator("#status").inner_text() == "killed")
    assert step_of(panel) >= seen
    output.scroll_into_view_if_needed()
    notebook.shot("panel-after-restart-dark")
    notebook.theme("JupyterLab Light")
    assert notebook.errors == []


def test_the_button_packs_what_is_handed_in(notebook, root):
    output = notebook.add("lab.submit()")
    output.locator("input").fill("student1")
    notebook.shot("submit")
    assert output.get_by_text("packed", exact=True).count() == 0
    output.locator("button").click()
    output.get_by_text("packed", exact=True).wait_for()
    assert "student1" in output.inner_text()
    assert output.get_by_text("nothing was answered or done in labs").count() == 2  # before and after
    output.scroll_into_view_if_needed()
    notebook.shot("submit-packed")
    with notebook.page.expect_download() as download:
        output.get_by_role("link").click()
    assert "/files/workspace/submission-student1.tar.gz" in download.value.url
    assert download.value.suggested_filename == "submission-student1.tar.gz"
    assert Path(download.value.path()).read_bytes() == (root / "workspace/submission-student1.tar.gz").read_bytes()


def test_an_archive_outside_of_the_servers_root_is_in_the_link(notebook, tmp_path):
    shown = "import os; os.environ['LABKIT_FILES_ROOT'] = '/nowhere'\nlab.submit()"
    output = notebook.add(shown)
    output.locator("input").fill("student2")
    output.locator("button").click()
    output.get_by_role("link").wait_for()
    with notebook.page.expect_download() as download:
        output.get_by_role("link").click()
    assert download.value.url.startswith("data:")
    assert read_archive(Path(download.value.path())).name == "student2"
    assert notebook.errors == []


def test_out_of_memory_is_seen_in_the_panel(notebook):
    # which answers a question of lab 02, and so is run after that
    output = notebook.add('lab.ask("activations_fall", "pass")\nlab.run("baseline")\nlab.watch()')
    panel = panel_of(output)
    wait_for(lambda: panel.locator("#status").inner_text() == "oom")
    assert "ran out" in panel.locator("#memory-title").inner_text()
    output.scroll_into_view_if_needed()
    notebook.shot("panel-out-of-memory")
    assert notebook.errors == []


def test_the_panel_of_the_newest_run_has_a_page_of_its_own(notebook):
    notebook.page.goto(f"{notebook.url}/labkit/panel?token={TOKEN}")
    wait_for(lambda: notebook.page.locator("#status").inner_text() == "oom")
    assert notebook.page.locator("#runs option").count() >= 2
    notebook.shot("panel-page")
    notebook.page.locator("#runs").select_option(index=1)
    wait_for(lambda: notebook.page.locator("#status").inner_text() == "killed")
    assert notebook.errors == []


HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def long_run(root):
    """A run of 200,000 losses, some no numbers and two spikes, whose texts are all what somebody hostile wrote."""
    source = next(root.glob("runs/tiny/baseline/*/config.json"))
    folder = source.parents[2] / "reduced_batch" / "29990101-000000-00000000"
    folder.mkdir(parents=True)
    config = json.loads(source.read_text())
    config["record"] |= {"id": HOSTILE, "experiment": HOSTILE, "profile": HOSTILE, "overrides": {HOSTILE: HOSTILE}}
    (folder / "config.json").write_text(json.dumps(config))
    events = [
        json.loads(line) for line in (source.parent / "events.jsonl").read_text().splitlines()
        if json.loads(line)["event"] in ("start", "phase")
    ]  # fmt: skip
    events[0] |= {"device": HOSTILE, "steps": 200_000}
    losses = [14.0 if at in (50_000, 120_000) else 2 + 5 * 0.99995**at + at % 7 / 10 for at in range(200_000)]
    losses[150_000:152_000] = [float("nan")] * 2000
    for at in range(0, 200_000, 200):
        values = {"step": at + 200, "losses": losses[at : at + 200], "samples": at, "train_seconds": at / 10}
        events.append({"event": "progress", "time": 1.0} | values)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    record = config["record"] | {"status": "failed", "reason": HOSTILE}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_two_hundred_thousand_losses_are_drawn_and_no_text_is_taken_for_html(notebook, root):
    folder, page = long_run(root), notebook.page
    page.route("**/labkit/panel/gpus", lambda route: route.fulfill(json=[{
        "index": HOSTILE, "name": HOSTILE, "busy_percent": 1.0, "used_mib": 1.0, "total_mib": 2.0,
    }]))  # fmt: skip
    page.goto(f"{notebook.url}/labkit/panel/{folder.relative_to(root / 'runs')}?token={TOKEN}")
    wait_for(lambda: page.locator("#step").inner_text().startswith("step 200000 of 200000, loss"))
    wait_for(lambda: HOSTILE in page.locator("#gpus").inner_text())
    for place in ("#title", "#where", "#reason"):
        assert HOSTILE in page.locator(place).inner_text()
    assert page.locator("img").count() == 0 and page.title() == "labkit: a run"
    assert page.locator("#loss polyline").count() == 2  # before and after what was not a number
    assert "2000 losses are not a number" in page.locator("#loss").text_content()
    band = " ".join(page.locator("#loss .band").nth(at).get_attribute("points") for at in range(2))
    tops = sorted(float(point.split(",")[1]) for point in band.split())
    assert tops[1] < tops[2] - 50  # both spikes are there, high above the rest
    notebook.shot("panel-long-run")
    page.set_viewport_size({"width": 700, "height": 700})
    page.wait_for_timeout(500)
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.locator("body").evaluate(f"() => {wide}")
    notebook.shot("panel-long-run-half-width")
    page.set_viewport_size({"width": 1400, "height": 1000})
    folder.rename(folder.with_name("29990101-000000-away"))
    wait_for(lambda: page.locator("#status").inner_text() == "gone")
    assert "deleted" in page.locator("#reason").inner_text()
    assert page.locator("#loss polyline").count() == 2  # what was seen stays
    folder.with_name("29990101-000000-away").rename(folder)
    wait_for(lambda: page.locator("#status").inner_text() == "failed")
    notebook.errors[:] = [said for said in notebook.errors if "404" not in said]  # the browser's word on the vanished
    assert notebook.errors == []


@pytest.mark.parametrize(
    ("steps", "losses", "capacity_bytes", "peak"),
    [(0, [], 0, 0), (1, [2.5], None, 1), (0, [0.0, 0.0], 0, 0), (3, [None], 1, 2**60), (2, [-1e300, 1e300], 5, 1),
     (9, [7.0] * 9, -1, 0), (2, [5e-324, None, 5e-324], 1, 1)],
)  # fmt: skip
def test_no_axis_of_the_panel_divides_by_nothing(notebook, root, steps, losses, capacity_bytes, peak):
    folder, page = next(root.glob("runs/tiny/reduced_batch/29990101-000000-00000000")), notebook.page
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()[:2]]
    lines[0] |= {"event": "start", "steps": steps, "capacity_bytes": capacity_bytes}
    lines[1] |= {"event": "phase", "peak": dict.fromkeys(lines[1]["peak"], peak)}
    progress = {"event": "progress", "step": len(losses), "losses": losses, "samples": 0, "train_seconds": 0.0}
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [*lines, progress]))
    page.goto(f"{notebook.url}/labkit/panel/{folder.relative_to(root / 'runs')}?token={TOKEN}")
    wait_for(lambda: page.locator("#step").inner_text().startswith(f"step {len(losses)} of {steps}"))
    for drawing in ("#memory", "#loss"):
        assert not re.search("NaN|Infinity|undefined", page.locator(drawing).evaluate("it => it.outerHTML"))
    assert notebook.errors == []
