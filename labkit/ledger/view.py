"""View: something that is shown, as HTML in a notebook or on a page and as text everywhere else."""

from html import escape


class View:
    """Something that a cell shows. Subclasses give ``_text``, and ``_html`` where it is more than that."""

    def text(self) -> str:
        """Plain text."""
        return self._text()

    def html(self) -> str:
        """The same as HTML."""
        return self._html()

    def _text(self) -> str:
        raise NotImplementedError

    def _html(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"

    def __repr__(self) -> str:
        return self._text()

    def _repr_html_(self) -> str:
        return self._html()
