"""Form: the keys of a config as fields to fill in, with what is wrong and what is predicted next to them."""

import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.config.errors import ConfigError
from labkit.config.extras import missing
from labkit.config.layers import Resolved, resolve
from labkit.config.schema import RunConfig, key_choices, key_docs, key_type, keys
from labkit.config.values import pairs
from labkit.config.workspace import Workspace
from labkit.ledger.parts import Predicted, Unpredicted
from labkit.ledger.view import View
from labkit.ledger.words import activity
from labkit.memory.units import human_bytes

if TYPE_CHECKING:
    from ipywidgets import VBox, Widget

PAUSE_S = 0.4
"""A prediction begins when nothing has been typed for this long."""

FIRST = (
    "model_name", "batch_size", "accumulate_grad_batches", "precision", "optim", "optim_impl", "act_ckpt", "strategy",
    "use_lora", "use_qlora", "lora_r", "lr", "max_length", "num_train_samples", "max_epochs", "freeze_vision",
)  # fmt: skip
"""Keys that are in sight at once; all others are below them."""


class Form(View):
    """A config to edit: a field for each key, with its meaning and type from the config itself.

    ``values`` is what differs from the experiment, ``command`` the line that runs it, ``said`` what is wrong with it
    or what was predicted. Prediction runs in the background, and the newest values win.
    """

    def __init__(self, workspace: Workspace, experiment: str, profile: str, overrides: dict[str, Any]) -> None:
        self._workspace, self.experiment, self.profile = workspace, experiment, profile
        self._plain = resolve(workspace, experiment, {}, profile).config
        self.values = dict(overrides)
        self.said = ""
        self._resolved: Resolved | None = None
        self._changed = threading.Event()
        self._fields: dict[str, Widget] = {}
        self._shown: dict[str, Widget] = {}
        self._check()

    @property
    def command(self) -> str:
        """The line that runs what the form says."""
        return " ".join(["labkit run", self.experiment, *pairs(self.values), "--profile", self.profile])

    def set(self, key: str, value: Any) -> None:
        """Set one key, as if it were typed into its field; a value as in the experiment is no difference."""
        self.values[key] = value
        if _same(key, value, self._plain):
            del self.values[key]
        self._check()
        self._show()
        self._changed.set()

    def predict(self) -> str:
        """What is predicted of the values as they are now, in a line; what is wrong where they cannot work."""
        from labkit.ledger.run_folder import RunFolder
        from labkit.runs.prediction import Background

        resolved = self._resolved
        if resolved is None:
            return self.said
        with tempfile.TemporaryDirectory(prefix="labkit-form-") as folder:
            asked = {"config": resolved.config.to_dict()}
            (Path(folder) / "config.json").write_text(json.dumps(asked), encoding="utf-8")
            background = Background(RunFolder(Path(folder)), resolved.config)
            try:
                while not background.over(PAUSE_S):
                    if self._changed.is_set():  # other values were typed meanwhile
                        return self.said
                return verdict(background.result())
            finally:
                background.stop()

    def widget(self) -> "VBox":
        """The form as a widget; made once."""
        if not self._shown:
            self._build()
            self._show()
            threading.Thread(target=self._predict_again_and_again, daemon=True).start()
            self._changed.set()
        return self._shown["all"]  # type: ignore[return-value]

    def _ipython_display_(self) -> None:
        from IPython.display import display

        from labkit.lab.progress import in_notebook

        reason = missing("ipywidgets")
        if in_notebook() and reason is None:
            display(self.widget())
        else:
            print(self.text() if reason is None else f"{self.text()}\n  no fields to fill in: {reason}")

    def _text(self) -> str:
        return f"{self.command}\n  {self.said}"

    def _check(self) -> None:
        try:
            self._resolved = resolve(self._workspace, self.experiment, self.values, self.profile)
            self.said = "predicting ..."
        except ConfigError as error:
            self._resolved, self.said = None, f"not possible: {error}"

    def _build(self) -> None:
        from ipywidgets import HTML, Accordion, Layout, Textarea, VBox

        for key in keys():
            self._fields[key] = self._field(key)
        grid = Layout(display="grid", grid_template_columns="repeat(auto-fill, minmax(340px, 1fr))", width="100%")
        first = VBox([self._fields[key] for key in FIRST], layout=grid)
        others = VBox([self._fields[key] for key in keys() if key not in FIRST], layout=grid)
        more = Accordion([others], titles=["all other keys"])
        said, command = HTML(), Textarea(disabled=True, rows=2, layout=Layout(width="98%"))
        command.tooltip = "the line to copy into a terminal"
        for one in (said, command):
            one.add_class(f"labkit-form-{'said' if one is said else 'command'}")
        self._shown = {"said": said, "command": command, "all": VBox([first, more, said, command])}

    def _field(self, key: str) -> "Widget":
        from ipywidgets import Checkbox, Dropdown, Layout, Text

        value = self.values.get(key, getattr(self._plain, key))
        look = {
            "description": key, "style": {"description_width": "195px"}, "layout": Layout(width="98%"),
            "tooltip": f"{key_docs()[key]} ({key_type(key)})",
        }  # fmt: skip
        if choices := key_choices(key):
            field = Dropdown(options=list(choices), value=value, **look)
        elif isinstance(value, bool):
            field = Checkbox(value=value, indent=True, **look)
        else:
            # what is wrong is said for every character that is typed, in the words of the config
            field = Text(value=_typed(value), placeholder=key_type(key), continuous_update=True, **look)
        field.add_class(f"labkit-form-{key}")
        field.observe(lambda change: self.set(key, change["new"]), "value")
        return field

    def _show(self) -> None:
        from html import escape

        if self._shown:
            self._shown["said"].value = f"<b>{escape(self.said)}</b>"
            self._shown["command"].value = self.command

    def _predict_again_and_again(self) -> None:
        while True:
            self._changed.wait()
            while self._changed.is_set():
                self._changed.clear()
                self._changed.wait(PAUSE_S)
            try:
                found = self.predict()
            except (OSError, ConfigError) as error:  # a full disk, a model's folder that is gone
                found = f"cannot be predicted: {error}"
            if not self._changed.is_set():  # else it is of values that are old by now
                self.said = found
                self._show()


def verdict(prediction: Predicted | Unpredicted) -> str:
    """A prediction, as ``Background.result`` gives it, in a line."""
    if isinstance(prediction, Unpredicted):
        return f"cannot be predicted: {prediction.error}"
    of = f" of {human_bytes(prediction.capacity_bytes)}" if prediction.capacity_bytes else ""
    need = "would need" if prediction.died_in else "peak"
    words = f"{prediction.verdict} (predicted): {need} {human_bytes(prediction.peak_bytes)}{of}"
    if prediction.peak_phase is not None:
        words += f", in {activity(prediction.peak_phase.phase)}"
    if died := prediction.died_in:
        words += f"; dies in the {died.phase.replace('_', ' ')} of step {died.step}"
    return words


def _same(key: str, value: Any, plain: RunConfig) -> bool:
    from labkit.config.schema import coerce

    try:
        return coerce(key, value) == getattr(plain, key)
    except ConfigError:
        return False


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
