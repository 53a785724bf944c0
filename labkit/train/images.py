"""Images from files that a user names; a file that is not an image is refused before a model is loaded."""

from pathlib import Path

from PIL import Image

from labkit.train.errors import DataError


def open_image(path: Path) -> Image.Image:
    """The picture in a file, in RGB; ``DataError`` for what is not a file, or not a picture."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path} cannot be read as an image (it is {_kind(path)}); name a picture file.")
        with Image.open(path) as image:
            return image.convert("RGB")
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{path} cannot be read as an image ({_why(error)}); name a picture file.") from None


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "no regular file"


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or ("it is none" if isinstance(error, OSError) else str(error))
