"""Errors a user can act on: each message says what is wrong, where, and what mends it."""


class StkdError(Exception):
    """Base of every error this package raises on purpose; the command line prints it and exits 1."""


class InputError(StkdError):
    """A file, a column or a record cannot be read as asked."""


class WeightsError(StkdError):
    """A weights folder is missing, incomplete, altered, or does not fit the request."""


class TrainingError(StkdError):
    """Training cannot start or go on: bad targets, an incompatible checkpoint, a diverged loss."""


class SearchError(StkdError):
    """An index is missing, damaged or does not fit the request; or nothing can be searched for."""


class OutputError(StkdError):
    """An output file cannot be written."""


class StkdWarning(UserWarning):
    """What a user should know though the work goes on; the command line prints it in yellow."""


def first_line(error: object) -> str:
    """What another library says went wrong, in one line; the kind of error where it says nothing."""
    lines = (line.strip().rstrip(".") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
