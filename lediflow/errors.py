"""The error that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user asked for cannot be done: the message says what was asked, what was found and what to do.

    Entry points print the message without a traceback and exit with status 2.
    """
