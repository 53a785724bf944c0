"""Form: the keys of a config as fields to fill in, with what is wrong and what is predicted next to them."""

import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.config.errors import ConfigError
from labkit.config.extras import missing
from labkit.config.layers import Resolved, resolve
from labkit.config.schema import RunConfig, coerce
from labkit.config.values import pairs
from labkit.ledger.errors import LedgerError
from labkit.ledger.parts import Predicted, Unpredicted
from labkit.ledger.view import View
from labkit.ledger.words import activity
from labkit.memory.units import human_bytes

if TYPE_CHECKING:
    from ipywidgets import VBox

    from labkit.lab.fields import Fields
    from labkit.lab.session import Session

PAUSE_S = 0.4
"""A prediction begins when nothing has been typed for this long."""

LOOK_AGAIN_S = 1.0
"""How often it is looked whether the question has an answer by now that withholds a prediction."""


class Form(View):
    """A config to edit: a field for each key, with its meaning and type from the config itself.

    ``values`` is what differs from the experiment, ``command`` the line that runs it, ``said`` what is wrong with it
    or what was predicted, ``errors`` what is wrong by key, and ``withheld`` whether a question has to be answered
    before the prediction is shown. Prediction runs in the background, and the newest values win.
    """

    def __init__(self, session: "Session", experiment: str, overrides: dict[str, Any]) -> None:
        self._session, self.experiment, self.profile = session, experiment, session.profile.name
        self.plain = resolve(session.workspace, experiment, {}, self.profile).config
        """The config of the experiment itself."""
        self.values = dict(overrides)
        self.said = ""
        self.errors: dict[str, list[str]] = {}
        self.withheld = False
        self._resolved: Resolved | None = None
        self._changed = threading.Event()
        self._fields: Fields | None = None
        self._check()

    @property
    def command(self) -> str:
        """The line that runs what the form says."""
        return " ".join(["labkit run", self.experiment, *pairs(self.values), "--profile", self.profile])

    @property
    def is_possible(self) -> bool:
        """Whether nothing is wrong with the values."""
        return self._resolved is not None

    def set(self, key: str, value: Any) -> None:
        """Set one key, as if it were typed into its field; a value as in the experiment is no difference."""
        self.values[key] = value
        if _same(key, value, self.plain):
            del self.values[key]
        self._check()
        self._show()
        self._changed.set()

    def reset(self) -> None:
        """Back to the values of the experiment."""
        self.values.clear()
        self._check()
        self._show()
        self._changed.set()

    def predict(self) -> str:
        """What is predicted of the values as they are now, in a line; what is wrong where they cannot work.

        What would answer an open question of the lab is not predicted, and what is predicted counts as told.
        """
        from labkit.ledger.run_folder import RunFolder
        from labkit.runs.prediction import Background

        resolved = self._resolved
        if resolved is None:
            return self.said
        withheld = self._session.withheld(resolved.config.hash)
        self.withheld = withheld is not None
        if withheld is not None:
            return withheld.text()
        with tempfile.TemporaryDirectory(prefix="labkit-form-") as folder:
            asked = {"config": resolved.config.to_dict()}
            (Path(folder) / "config.json").write_text(json.dumps(asked), encoding="utf-8")
            background = Background(RunFolder(Path(folder)), resolved.config)
            try:
                while not background.over(PAUSE_S):
                    if self._changed.is_set():  # other values were typed meanwhile
                        return self.said
                found = background.result()
            finally:
                background.stop()
        if isinstance(found, Predicted):
            self._session.tell(resolved.config.hash)
        return verdict(found)

    def run(self) -> View:
        """Run what the form says, as ``lab.run`` does."""
        return self._session.run(self.experiment, **self.values)

    def widget(self) -> "VBox":
        """The form as a widget; made once."""
        if self._fields is None:
            from labkit.lab.fields import Fields

            self._fields = Fields(self)
            threading.Thread(target=self._predict_again_and_again, daemon=True).start()
            self._changed.set()
        return self._fields.box

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
        """Find all that is wrong: values that cannot be read, then what cannot work of the others."""
        found, typed = [], {}
        for key, value in self.values.items():
            try:
                typed[key] = coerce(key, value)
            except ConfigError as error:
                found.append(error)
        unread = self.values.keys() - typed.keys()
        self._resolved = None
        try:
            resolved = resolve(self._session.workspace, self.experiment, typed, self.profile)
        except ConfigError as error:
            # in place of a value that cannot be read stands the experiment's, which is not to blame
            found += [one for one in (error, *error.others) if not unread & set(one.keys)]
        else:
            self._resolved = None if found else resolved
        self.errors = {}
        for error in found:
            for key in error.keys:
                self.errors.setdefault(key, []).append(str(error))
        self.withheld = False
        self.said = f"not possible: {' '.join(map(str, found))}" if found else "predicting ..."

    def _show(self) -> None:
        if self._fields is not None:
            self._fields.show()

    def _predict_again_and_again(self) -> None:
        while True:
            while not self._changed.wait(LOOK_AGAIN_S if self.withheld else None):
                if (resolved := self._resolved) and self._session.withheld(resolved.config.hash) is None:
                    break  # the question was answered meanwhile
            while self._changed.is_set():
                self._changed.clear()
                self._changed.wait(PAUSE_S)
            try:
                found = self.predict()
            except (OSError, ConfigError, LedgerError) as error:  # a full disk, a model's folder that is gone
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
    try:
        return coerce(key, value) == getattr(plain, key)
    except ConfigError:
        return False
