"""A student's public key, as it is handed in: one line, one key, nothing that sshd would obey."""

import base64
import binascii

from provisioning.errors import UsageError

TYPES = (
    "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip
LONGEST = 8192
"""Characters; RSA with 16384 bits has 2,800."""


def read(text: str, where: str) -> str:
    """The key without blanks around it; ``UsageError`` with ``where`` for anything but one key.

    It becomes a line of ``authorized_keys``, where a second line is a second key, and what stands before a key are
    options: commands that run, ports that open.
    """
    key = text.strip()
    words = key.split()

    def refused(why: str) -> UsageError:
        return UsageError(f"{where} {why}. Give the one line of the student's .pub file, like 'ssh-ed25519 AAAA'.")

    if "PRIVATE KEY" in key or key.startswith("PuTTY-User-Key-File"):
        raise refused("is a private key. Anyone who has seen it can log in as the student: have a new pair made")
    if len(key.splitlines()) > 1:
        raise refused(f"has {len(key.splitlines())} lines, and a key has one")
    if not key.isprintable() or len(key) > LONGEST:
        raise refused("is not a public key: it has characters that cannot be printed, or too many")
    if not words or words[0] not in TYPES:
        if any(word in TYPES for word in words):
            raise refused("has options before the key, which are not taken")
        raise refused("is not a public key")
    if len(words) < 2 or not _is_of(words[0], words[1]):
        raise refused(f"is not a public key: what follows {words[0]} is not such a key")
    if any(word in TYPES or word.startswith("AAAA") for word in words[2:]):
        raise refused("has two keys, and a student has one")
    return key


def _is_of(kind: str, body: str) -> bool:
    """Whether the body names its own kind, as every key does."""
    try:
        raw = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return False
    return raw.startswith(len(kind).to_bytes(4, "big") + kind.encode())
