"""Button: handing in from a notebook, with one field for the name."""

from html import escape
from pathlib import Path
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.extras import missing
from labkit.config.workspace import Workspace
from labkit.lab.download import link
from labkit.lab.processes import submitted
from labkit.lab.unanswered import unanswered
from labkit.lab.views import Lines
from labkit.ledger.view import View

COMMAND = "labkit submit --name YOUR-NETID"


class Packed(Lines):
    """An archive that was made: where it is, a link to it, and what to know of it."""

    def __init__(self, path: Path, size: str, lines: list[str]) -> None:
        super().__init__(f"{path}: {size}", ["hand this file in", *lines], mark="packed")
        self.path = path

    def _html(self) -> str:
        to = link(self.path)
        gets = f"download {to}" if to else f"too large for a link here; fetch {escape(str(self.path))} with 'scp', say"
        return f"{super()._html()}<div>{gets}</div>"


class Button(View):
    """A field for the name and a button; packs when it is pressed, and only then. Where no widget can be shown it is
    the command line to type. What has no answer yet is said before and after."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def pack(self, name: str) -> View:
        """Pack and say where the archive is, or why there is none."""
        try:
            archive, *lines = submitted(self.workspace, name)
        except ConfigError as error:
            return Lines(str(error), mark="not done")
        path, _, size = archive.rpartition(": ")
        return Packed(Path(path), size, lines)

    def _text(self) -> str:
        return self._lines(f"to hand in, save all notebooks and type in a terminal: {COMMAND}").text()

    def _html(self) -> str:
        return self._lines(f"to hand in, save all notebooks and type in a terminal: {COMMAND}").html()

    def _lines(self, headline: str) -> Lines:
        return Lines(headline, unanswered(self.workspace))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The widget, for a page that shows widgets; the rest for those that do not."""
        plain = {"text/plain": self.text(), "text/html": self.html()}  # which says how to do it without a button
        return plain if missing("ipywidgets") else self._widget()._repr_mimebundle_() | plain

    def _widget(self) -> Any:
        from ipywidgets import HTML, Button, HBox, Text, VBox

        name, said = Text(placeholder="your netID", description="Name"), HTML()
        button = Button(description="Pack to hand in", tooltip="save all notebooks first")

        def press(pressed: Any) -> None:
            button.disabled = True
            try:
                said.value = self.pack(name.value).html()
            finally:
                button.disabled = False

        button.on_click(press)
        first = self._lines("Save all notebooks first: they are packed as they are on disk.")
        return VBox([HTML(first.html()), HBox([name, button]), said])
