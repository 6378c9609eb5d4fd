"""What can go wrong between a video and its file, camera or server.

Each message is one line that says what happened, with which input, and what to do; the command line prints
it and exits with code 2.
"""


class SourceError(OSError):
    """A video cannot be opened, or stops being readable."""


class SinkError(OSError):
    """A painted video cannot be written."""
