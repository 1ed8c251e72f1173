"""The one family of errors that a user can mend.

Every message names the file or flag at fault and the mend, in one line. The command line prints it and exits
with code 2; anything that is not a `ManyfillError` is a fault of ours and keeps its traceback.
"""


class ManyfillError(Exception):
    """Something the user can mend."""


class PictureError(ManyfillError):
    """A picture or mask file that cannot be used as it is."""


class DataError(ManyfillError):
    """A data set that cannot be read or is empty."""


class ModelError(ManyfillError):
    """A model directory that is missing, incomplete, altered or of another kind."""


class ConfigError(ManyfillError):
    """A setting that does not exist or has an impossible value."""


class OutputError(ManyfillError):
    """A result that cannot be written where it was asked for."""


class ElsewhereError(ManyfillError):
    """What went wrong in another process of the same run, which tells of it itself."""
