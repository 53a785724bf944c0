"""Small files the package ships: the emoji data set and the tokenizer, and the script that makes them."""

from pathlib import Path

FLUENT_EMOJI = Path(__file__).with_name("fluent_emoji.zip")
TOKENIZER = Path(__file__).with_name("tokenizer.json")
BASE = Path(__file__).with_name("base")
