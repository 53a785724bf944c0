"""Button: handing in from a notebook, with one field for the name."""

from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.extras import missing
from labkit.config.workspace import Workspace
from labkit.lab.processes import submitted
from labkit.lab.views import Lines
from labkit.ledger.view import View

COMMAND = "labkit submit --name YOUR-NETID"


class Button(View):
    """A field for the name and a button; packs when it is pressed, and only then. Where no widget can be shown it is
    the command line to type."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def pack(self, name: str) -> View:
        """Pack and say where the archive is, or why there is none."""
        try:
            archive, *lines = submitted(self.workspace, name)
        except ConfigError as error:
            return Lines(str(error), mark="not done")
        return Lines(archive, ["hand this file in", *lines], mark="packed")

    def _text(self) -> str:
        return f"to hand in, save all notebooks and type in a terminal: {COMMAND}"

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
        return VBox(
            [HTML("Save all notebooks first: they are packed as they are on disk."), HBox([name, button]), said]
        )
