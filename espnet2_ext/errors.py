"""Errors that a user can mend; entry points print their text without a traceback."""


class DataError(ValueError):
    """Bad input: the message names the file, line or key, and says what was expected."""


class BundleError(DataError):
    """A model bundle or checkpoint that does not fit what is asked of it."""


class PluginError(DataError):
    """A package that a model needs and that is not installed, or that the user does not allow."""
