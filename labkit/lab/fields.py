"""Fields: the form as widgets: a field for each key with what is wrong beneath it, and the buttons."""

from html import escape
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Accordion, Button, Checkbox, Dropdown, HBox, Layout, Text, VBox, Widget

from labkit.config.schema import key_choices, key_docs, key_type, keys
from labkit.lab.progress import shown_in
from labkit.ledger.view import View

if TYPE_CHECKING:
    from labkit.lab.form import Form

FIRST = (
    "model_name", "batch_size", "accumulate_grad_batches", "precision", "optim", "optim_impl", "act_ckpt", "strategy",
    "use_lora", "use_qlora", "lora_r", "lr", "max_length", "num_train_samples", "max_epochs", "freeze_vision",
)  # fmt: skip
"""Keys that are in sight at once; all others are below them."""

WRONG = {"light": "#b3261e", "dark": "#ff9d8f"}
"""What is wrong, on the ground of each theme."""

STYLE = f"""<style>
.labkit-form {{ --labkit-wrong: {WRONG["light"]}; }}
[data-jp-theme-light="false"] .labkit-form {{ --labkit-wrong: {WRONG["dark"]}; }}
.labkit-form-wrong input, .labkit-form-wrong select {{
  border-color: var(--labkit-wrong) !important; box-shadow: 0 0 0 1px var(--labkit-wrong) !important; }}
.labkit-form-error {{ padding: 0 2px 4px 203px; }}
.labkit-form-error .widget-html-content {{ color: var(--labkit-wrong); line-height: 1.35; }}
.labkit-form-line code {{ user-select: all; overflow-wrap: anywhere; }}
</style>"""

COPY = (
    "const said = this.nextElementSibling, line = this.parentElement.querySelector('code'); const no = () => {"
    "getSelection().selectAllChildren(line);"
    "said.textContent = 'The browser does not let this page copy. The line is selected: press Ctrl+C.'; };"
    "navigator.clipboard ? navigator.clipboard.writeText(line.textContent).then("
    "() => { said.textContent = 'Copied.'; }, no) : no();"
)
"""Runs in the browser, when the button is pressed: only then does a browser let a page copy."""


class Fields:
    """The widgets of a form; ``box`` holds them all, or what was run in their place."""

    def __init__(self, form: "Form") -> None:
        self._form = form
        self.fields = {key: self._field(key) for key in keys()}
        self.errors = {key: HTML() for key in keys()}
        for error in self.errors.values():
            error.add_class("labkit-form-error")
        grid = Layout(display="grid", grid_template_columns="repeat(auto-fill, minmax(340px, 1fr))", width="100%")
        first = VBox([self._cell(key) for key in FIRST], layout=grid)
        others = VBox([self._cell(key) for key in keys() if key not in FIRST], layout=grid)
        self._more = Accordion([others], titles=["all other keys"])
        self.said, self.line = HTML(), HTML(layout=Layout(width="98%"))
        self.said.add_class("labkit-form-said")
        self.line.add_class("labkit-form-line")
        self.run = Button(description="Run", button_style="primary", tooltip="run it here, as lab.run does")
        self.reset = Button(description="Reset", tooltip="back to the values of the experiment")
        self.back = Button(description="Back to the form")
        for name in ("run", "reset", "back"):
            button = getattr(self, name)
            button.add_class(f"labkit-form-{name}")
        self.run.on_click(self._press_run)
        self.reset.on_click(self._press_reset)
        self.back.on_click(self._press_back)
        self._all = (HTML(STYLE), first, self._more, self.said, HBox([self.run, self.reset]), self.line)
        self.box = VBox(self._all)
        self.box.add_class("labkit-form")
        self.show()

    def show(self) -> None:
        """Show what is said, what is wrong at each key, and the line to copy."""
        form = self._form
        for key, error in self.errors.items():
            found = "<br>".join(map(escape, form.errors.get(key, ())))
            if error.value != found:
                error.value = found
            error.layout.display = None if found else "none"
            (self.fields[key].add_class if found else self.fields[key].remove_class)("labkit-form-wrong")
        if form.errors.keys() - set(FIRST):
            self._more.selected_index = 0  # or what is wrong would be out of sight
        self.run.disabled = not form.is_possible
        said = f"not possible, see {', '.join(form.errors)}" if form.errors else form.said
        self.said.value = f"<b>{escape(said).replace(chr(10), '<br>')}</b>"
        button = f'<button type="button" class="jupyter-widgets jupyter-button widget-button" onclick="{COPY}">'
        self.line.value = (
            f'<code title="the line to copy into a terminal">{escape(form.command)}</code> {button}Copy</button> '
            '<span role="status"></span>'
        )

    def _cell(self, key: str) -> Widget:
        return VBox([self.fields[key], self.errors[key]])

    def _field(self, key: str) -> Widget:
        value = self._form.values.get(key, getattr(self._form.plain, key))
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
        field.observe(lambda change: self._form.set(key, change["new"]), "value")
        return field

    def _press_run(self, _: Button) -> None:
        place = HTML("starting ...", layout=Layout(width="100%"))
        self.box.children = (place,)
        try:
            with shown_in(_Place(place)):
                found = self._form.run()
            place.value = ("" if place.value == "starting ..." else place.value) + found.html()
        finally:  # after Ctrl-C too
            self.box.children = (place, self.back)

    def _press_reset(self, _: Button) -> None:
        for key in list(self._form.values):
            value = getattr(self._form.plain, key)
            self.fields[key].value = value if key_choices(key) or isinstance(value, bool) else _typed(value)
        self._form.reset()

    def _press_back(self, _: Button) -> None:
        self.box.children = self._all


class _Place:
    """Where the progress of a run is shown."""

    def __init__(self, widget: HTML) -> None:
        self._widget = widget

    def update(self, view: View) -> None:
        self._widget.value = view.html()


def _typed(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(value)
    return "" if value is None else str(value)
