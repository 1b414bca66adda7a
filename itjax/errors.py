"""The one error type that means "your input, your disk or your settings": its message is for the user.

The command lines print the message alone, without a traceback, and leave with exit status 2 (or 3 where frames already
made were kept). Everything else that is raised is a defect of ours, and keeps its traceback.
"""


class UserError(Exception):
    """Something that the user can put right. The message names the file, key or flag, what is wrong, and what to do."""


class OutputError(UserError):
    """The result could not be written (full disk, lost permission). What was finished before it is kept on disk."""
