"""Errors a user can mend: shown as one line, exit status 2."""


class UserError(Exception):
    """What is wrong, where, both values, and the way out, in one line."""


class Conflict(UserError):
    """Something with this name exists already and is not the same."""
