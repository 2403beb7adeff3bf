"""What can go wrong for reasons a user can mend. Each message says what, where and how to mend it."""


class PromptCBLUEError(ValueError):
    """Base of every error raised on purpose; the commands print it as one line and exit with 1."""


class UnknownTaskError(PromptCBLUEError):
    """A task name that is neither a config nor an alias of one."""


class SeparatorError(PromptCBLUEError):
    """An answer part that the released dialect cannot write, since it holds one of its separators."""


class RowError(PromptCBLUEError):
    """A row of a file that cannot be used.

    Args:
        path: the file, as the user named it.
        line: 1-based line number in it.
        field: the field at fault, or None when the whole row is.
        message: what was expected and what stands there.
    """

    def __init__(self, path: str, line: int, field: str | None, message: str) -> None:
        self.path, self.line, self.field, self.message = path, line, field, message
        where = f"{path}:{line}: " + (f"field '{field}': " if field else "")
        super().__init__(where + message)
