"""The one exception that stands for a mistake the user can mend."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one clear sentence that says what is wrong and what to do about it; command lines
    print it without a traceback and end with exit code 2, the page shows it as it is.
    """
