"""The exception for errors that a user can correct."""


class UserError(Exception):
    """A request cannot be met; the message says what was requested, what was found and what to do.

    Entry points print the message without a traceback and exit with status 2.
    """
