r"""Credentials: what looks like one in text, by its own form or by the name before it.

It needs no other package, and is for every event and error; ``detectors`` knows the forms of more services.
Text comes as people have it: Python, shell, YAML, JSON within JSON (``\"``), HTML (``&quot;``), coloured tracebacks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

HIDDEN = "[redacted]"


@dataclass(frozen=True, order=True)
class Span:
    """Where a credential stands in a text, and what kind it is."""

    start: int
    end: int
    kind: str


_STRONG = (
    r"pass(?:word|wd|phrase|code)|passwort|(?<![A-Za-z])pwd?(?![a-z])|secret|credential|"
    r"(?:api|access|auth|private|priv|client|account|service|db|database|signing|encryption|subscription|license|"
    r"deploy|master)[_-]?key|apikey|(?:api|access|auth|refresh|bearer|session|private|personal|bot|id)[_-]?token|"
    r"(?:db|database|key|smtp|mysql|pg)[_-]?pass|contrase[nñ]a"
)
"""Names of what is always one."""
_GAP = r"(?:\s|\\+[nrt]|(?:\x1b|\\+u001b|\\+x1b)\[[0-9;]*m|</?[a-z]\w*(?:\s[^<>\n]{0,80})?>)*"
"""Blanks, also as escapes, colours and tags."""
_BLANK = r"(?:[ \t]|(?:\x1b|\\+u001b|\\+x1b)\[[0-9;]*m)*"
_QUOTE = r"""(?:"{3}|'{3}|\\*["'`]|&quot;|&\#34;|&\#39;|&\#x27;|&apos;)"""
_QUOTED = rf"[rbfuRBFU]{{0,2}}(?P<q>{_QUOTE})(?P<v>(?:(?!(?P=q))(?:\\.|[^\n\\])){{1,4000}})(?P=q)"
_PLAIN = r"[^\s\"'`,;&<>(){}\[\]\\]"
_BARE = rf"(?P<u>{_PLAIN}{{1,200}})"
_MORE = re.compile(rf"{_PLAIN}*")
_TYPE = rf"(?:{_GAP}:{_GAP}[A-Za-z_][\w.\[\]| ]{{0,30}}?(?={_GAP}=))?"
_START = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))"
"""Where a word begins, also after an escape: ``\\n`` in JSON within JSON."""
_HINTS = ("key", "token", "pass", "pw", "secret", "credential", "contrase", "pat")
"""What every name has in it: most text has none of them, and needs no further look."""
_NAME = re.compile(
    rf"(?i:{_STRONG})\w{{0,40}}|{_START}(?:[A-Z][A-Z0-9_]{{0,60}}_)?(?:TOKEN|KEY|PASS|PAT)\b|"
    rf"{_START}\w{{0,40}}?(?i:token|key)\b"
)
_LONGEST_NAME = 64
_VALUE = re.compile(
    rf"(?:{_QUOTE}|\])*"
    rf"(?:{_TYPE}{_GAP}(?P<op>:=|={{1,3}}>?|!==?|:|,|\(){_GAP}{_QUOTED}|(?P<tight>{_BLANK}[=:]{_BLANK}|[ \t]+){_BARE})"
)
_CALL = re.compile(r"(?:login|log_in|authenticate|set_api_key|set_token|BasicAuth)\s*\([^()]{0,500}")
_ARGUMENT = re.compile(
    rf"(?:[(,]{_GAP}|\b(?:\w{{0,40}}?(?:key|token|pass\w{{0,10}}|secret)){_GAP}={_GAP}){_QUOTED}", re.IGNORECASE
)
_PAIR = re.compile(rf"{_START}auth{_GAP}=>?{_GAP}[(\[]{_GAP}{_QUOTE}[^\"'\n]{{0,200}}{_QUOTE}{_GAP},{_GAP}{_QUOTED}")

_KEY_BODY = r"[A-Za-z0-9+/=\s\\\"',:.()-]{0,20000}"
_BETWEEN = r"(?:\s|\\+[nrt]|[\",])+"
"""Words of a .netrc file, also where its lines are a list of JSON."""
_FORMS: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    ("Hugging Face token", ("hf_",), re.compile(r"hf_[A-Za-z0-9]{20,}")),
    (
        "GitHub token", ("gh", "github_pat_"),
        re.compile(r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}"),
    ),
    (
        "API key", ("sk-",),
        re.compile(r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))sk-(?=[\w-]*\d)(?=[\w-]*[A-Z]|[\w-]*[A-Za-z0-9]{20})[\w-]{16,}"),
    ),
    (
        "API key", ("aiza", "ya29.", "gsk_", "r8_", "nvapi-", "wandb_v"),
        re.compile(rf"{_START}(?:AIza[\w-]{{30,}}|ya29\.[\w-]{{20,}}|gsk_\w{{20,}}|r8_\w{{20,}}|nvapi-[\w-]{{20,}}|wandb_v\d_\w{{20,}})"),
    ),
    (
        "private key", ("private key",),
        re.compile(rf"-----BEGIN (?P<of>[A-Z0-9 ]{{0,30}}PRIVATE KEY[A-Z ]{{0,10}})-----"
                   rf"(?:(?:(?!-----(?:BEGIN|END))[\s\S]){{0,20000}}-----END (?P=of)-----|{_KEY_BODY})"),
    ),
    (
        "private key", ("private key",),
        re.compile(rf"\A{_KEY_BODY}-----END [A-Z0-9 ]{{0,30}}PRIVATE KEY[A-Z ]{{0,10}}-----"),
    ),
    (
        "private key", ("putty-user-key-file",),
        re.compile(r"PuTTY-User-Key-File-\d[\s\S]{0,20000}?(?:Private-MAC\S*\s*\S*|\Z)"),
    ),
    ("password in a URL", ("://",), re.compile(r"(?<=://)[^/\s\"'<>`\\]+(?=@[\w\[.-])")),
    (
        "bearer token", ("bearer",),
        re.compile(r"(?i)Bearer\s+(?!\[redacted)(?![a-z]{1,15}(?![\w.~+/=-]))(?P<v>[\w.~+/=-]{8,})"),
    ),
    (
        "authorization header", ("authorization",),
        re.compile(rf"(?i)Authorization{_QUOTE}?{_GAP}[:=]{_GAP}{_QUOTE}?"
                   r"(?:(?:Basic|Digest|token|ApiKey|Negotiate)\s+)?(?!Bearer\b)(?P<v>[\w.~+/=-]{8,})"),
    ),
    (
        "netrc password", ("password",),
        re.compile(
            rf"(?:machine{_BETWEEN}[^\s\"'\\]+|default)(?:{_BETWEEN}(?:login|account){_BETWEEN}[^\s\"'\\]+)*"
            rf"{_BETWEEN}password{_BETWEEN}(?P<v>[^\s\"'\\]+)"),
    ),
    (
        "key of wandb login", ("wandb",),
        re.compile(r"wandb\s+login\s+(?:--?[\w-]+(?:[= ]https?://\S+)?\s+)*(?P<v>[\w-]{20,})"),
    ),
    (
        "password of curl", ("curl", "wget"),
        re.compile(r"(?:curl|wget)\b[^\n]{0,300}?\s(?:-u|--user|--proxy-user)[ =]*[\"']?"
                   r"[^\s:\"']{1,100}:(?P<v>[^\s\"']+)"),
    ),
    (
        "option", ("--", "-p"),
        re.compile(r"(?i)(?:(?<![\w-])--?(?:[\w.-]{0,40}[.-])?(?:token|password|passwd|api-?key|secret)[ =]+|"
                   r"sshpass\s+-p\s*)(?![-\[$<{])[\"']?(?P<v>[^\s\"'\\]+)"),
    ),
    (
        "setting of a variable", ("env",),
        re.compile(r"%(?:set_)?env[ \t]+\w{0,60}(?:TOKEN|KEY|SECRET|PASS\w{0,10}|CREDENTIAL\w{0,2})[ =][ \t]*"
                   r"(?![$<{])(?P<v>\S+)"),
    ),
    (
        "part of a URL", ("?", "&"),
        re.compile(r"(?i)[?&](?:access_token|token|key|api_?key|sig|signature|x-amz-signature|"
                   r"x-amz-security-token|x-amz-credential)=(?!\[redacted)(?P<v>[^\s&#\"'<>\\,;)]+)"),
    ),
)  # fmt: skip
"""Kinds by their own form, each with words of which the text must have one. Where a pattern has a group ``v`` this is
the credential, else all of it."""

_CODE = re.compile(
    r"(?:None|True|False|null|nil|true|false|undefined|str|bytes|int|SecretStr|[$<{*].*|%(?:\(.*|[a-z]|\w+%)|\.{3}.*|"
    r"[a-z_]+(?:\.[a-z_]+)+|(?:os|self|args|cfg|config|settings|userdata|st)\.[\w.]+)"
)
_PATH = re.compile(r"(?:~|\.{1,2})?/[\w.@/-]*")
_WORD = re.compile(r"[\w.~+/=:@!$%^*#?-]+")


def spans(text: str) -> list[Span]:
    """What looks like a credential in ``text``; some may overlap."""
    low = _lower(text)
    found = [
        Span(*match.span("v" if "v" in pattern.groupindex else 0), kind)
        for kind, words, pattern in _FORMS
        if any(word in low for word in words)
        for match in pattern.finditer(text)
    ]
    found += _named(text, low)
    for call in _CALL.finditer(text) if "(" in low and ("log" in low or "auth" in low or "set_" in low) else ():
        found += [
            Span(*match.span("v"), "argument of a login")
            for match in _ARGUMENT.finditer(text, call.start(), min(len(text), call.end() + 1))
            if not match["v"].startswith(("http:", "https:"))
        ]
    if "auth" in low:
        found += [Span(*match.span("v"), "password") for match in _PAIR.finditer(text)]
    return visible(text, found)


def is_named(name: str, value: str) -> bool:
    """Whether ``value`` is a credential by the ``name`` that data have for it."""
    match = _NAME.fullmatch(name) or _NAME.search(name)
    return match is not None and match.end() == len(name) and _is_one(match[0], value, quoted=True)


def visible(text: str, found: list[Span]) -> list[Span]:
    """Those that were not taken out before."""
    return [span for span in found if HIDDEN not in text[span.start : span.end + 1]]


def _lower(text: str) -> str:
    low = text.lower()
    # a few letters become two, and places would no longer be those of the text
    return low if len(low) == len(text) else "".join(c.lower() if c.isascii() else c for c in text)


def _named(text: str, low: str) -> Iterator[Span]:
    at = 0
    for hint in _hints(low):
        at = max(at, hint - _LONGEST_NAME)
        while at <= hint and (name := _NAME.search(text, at, min(len(text), hint + _LONGEST_NAME))):
            at = name.end()
            match = _VALUE.match(text, at)
            if match is None:
                continue
            group = "u" if match["v"] is None else "v"
            if _fits(name[0], match) if group == "v" else _is_bare(text, name[0], match):
                at = match.end(group) if group == "v" else end_of(_MORE, text, match.end(group))
                yield Span(match.start(group), at, f"value of {name[0][:40]}")


def end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where what ``pattern`` finds at ``start`` ends; ``start`` itself where there is nothing."""
    found = pattern.match(text, start)
    return start if found is None else found.end()


def _hints(low: str) -> list[int]:
    found = []
    for hint in _HINTS:
        at = low.find(hint)
        while at >= 0:
            found.append(at)
            at = low.find(hint, at + len(hint))
    return sorted(found)


def _fits(name: str, match: re.Match[str]) -> bool:
    # a list of names and a call are not an assignment, unless what follows can be nothing else
    value = match["v"]
    return _is_one(name, value, quoted=True) and (match["op"] not in ",(" or _is_random(value) or _is_variable(name))


def _is_bare(text: str, name: str, match: re.Match[str]) -> bool:
    """Whether a value without quotes is a credential, and no piece of a program or of a sentence."""
    value = match["u"]
    if text[match.end("u") : match.end("u") + 1] in ("(", "[") or _CODE.fullmatch(value):
        return False
    tight = match["tight"]
    if tight == "=":
        word = value.isidentifier() and not any(map(str.isdigit, value))
        if word and text[match.end("u") : match.end("u") + 1] in (")", ","):
            return False  # handed on under its name
        return _is_one(name, value, quoted=name.lower() in _ANY_VALUE or _is_variable(name))
    if not tight.strip():
        return False  # a sentence
    return _is_random(value) and _is_one(name, value, quoted=False)


_ANY_VALUE = ("token", "access_token", "api_key", "apikey", "password", "secret")


def _is_one(name: str, value: str, quoted: bool) -> bool:
    low = name.lower()
    if _CODE.fullmatch(value) or not value.strip("*.x- "):
        return False
    if re.search(rf"(?i){_STRONG}", name):
        of_a_file = "pw" in low or ("key" in low and "secret" not in low)
        return not of_a_file or not _PATH.fullmatch(value)
    if _PATH.fullmatch(value) or not _WORD.fullmatch(value):
        return False
    if _is_variable(name):
        return len(value) >= 6 and (any(map(str.isdigit, value)) or len(value) >= 12)
    if low.endswith("key"):
        return len(value) >= 20 and value.isalnum() and _is_random(value)
    return low == "token" and not quoted or _is_random(value)


def _is_variable(name: str) -> bool:
    """Whether it is written as environment variables are."""
    return name.isupper() and "_" in name


def _is_random(value: str) -> bool:
    """Letters and digits mixed, or too long for a word."""
    if len(value) < 6 or not _WORD.fullmatch(value):
        return False
    digits, letters = any(map(str.isdigit, value)), any(map(str.isalpha, value))
    return (digits and letters) or (len(value) >= 24 and letters and "_" not in value)
