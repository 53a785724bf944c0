"""Make ``fluent_emoji.zip``, its ``NOTICE`` and ``tokenizer.json`` from two npm packages.

    python -m labkit.assets.make

Needs ``npm`` and the npm registry. The packages are pinned by version and SHA-512, and the zip is
written with fixed time stamps, so the same Pillow version writes the same bytes.

The zip has the layout of a Hugging Face image folder: ``metadata.jsonl`` (file_name, text, group) beside the
images, and the licence notices of both sources.
"""

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
IMAGE_PX = 64
WEBP_QUALITY = 80
VOCABULARY = 1000

# npm's own integrity values of the two releases
PACKAGES = {
    "@lobehub/fluent-emoji-3d@1.1.0": "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",  # noqa: E501
    "unicode-emoji-json@0.9.0": "sha512-HdrQW/7SdbXUsTd8uTATv7LvQJkCSgbAgRCDCtOhQ6xn3EAx+xZHQtRniOXWJK3ywIqPegkNhP4U4EbuFsiQng==",  # noqa: E501
}

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
NOTICE = f"""Images: Fluent Emoji (3D), from the npm package @lobehub/fluent-emoji-3d 1.1.0, scaled to {IMAGE_PX} px.

MIT License

Copyright (c) Microsoft Corporation.

{MIT}
Names and groups: the npm package unicode-emoji-json 0.9.0.

The MIT License (MIT)

Copyright (c) 2019 Mu-An Chiou

{MIT}"""


def unpack(package: str, integrity: str, into: Path) -> Path:
    """Fetch one npm package and unpack it; ``ValueError`` when its SHA-512 is not the pinned one."""
    packed = subprocess.run(["npm", "pack", "--silent", package], cwd=into, check=True, capture_output=True, text=True)
    archive = into / packed.stdout.strip().splitlines()[-1]
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != integrity:
        raise ValueError(f"{package}: SHA-512 is {found}, expected {integrity}")
    target = archive.with_suffix("")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "package"


def samples(images: Path, names: Path) -> list[tuple[str, dict[str, str], bytes]]:
    """(file name, metadata, WebP bytes) of every named emoji that has a picture, in Unicode's order."""
    found = []
    for emoji, entry in json.loads((names / "data-by-emoji.json").read_text()).items():
        code = "-".join(f"{ord(character):04x}" for character in emoji)
        picture = images / "assets" / f"{code}.webp"
        if not picture.exists():
            continue
        with Image.open(picture) as image:
            rgba = image.convert("RGBA").resize((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS)
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        buffer = io.BytesIO()
        white.save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
        text = f"a 3d render of {entry['name'].lower()}"
        meta = {"file_name": f"images/{code}.webp", "text": text, "group": entry["group"]}
        found.append((meta["file_name"], meta, buffer.getvalue()))
    return found


def write_zip(target: Path, rows: list[tuple[str, dict[str, str], bytes]]) -> None:
    metadata = "".join(json.dumps(meta, ensure_ascii=False) + "\n" for _, meta, _ in rows)
    members = [("LICENSE", NOTICE.encode()), ("metadata.jsonl", metadata.encode())]
    members += [(name, data) for name, _, data in rows]
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members:
            # images are compressed already; a fixed date keeps the file the same from run to run
            kind = zipfile.ZIP_STORED if name.endswith(".webp") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, kind)


def write_tokenizer(target: Path, captions: list[str]) -> None:
    """A byte-level BPE whose first ids are the special tokens; any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>", "<s>", "<unk>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.save(str(target))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images, names = (unpack(package, integrity, Path(folder)) for package, integrity in PACKAGES.items())
        rows = samples(images, names)
    write_zip(HERE / "fluent_emoji.zip", rows)
    (HERE / "NOTICE").write_text(NOTICE, encoding="utf-8")
    write_tokenizer(HERE / "tokenizer.json", [meta["text"] for _, meta, _ in rows])
    print(f"{len(rows)} images, {(HERE / 'fluent_emoji.zip').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
