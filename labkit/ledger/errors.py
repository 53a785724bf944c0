"""What a ledger cannot do, in words for the user."""


class LedgerError(Exception):
    """The ledger cannot be written or a record cannot be read; the message says where and what to do."""


class NewerError(ValueError):
    """A record of a newer labkit."""
