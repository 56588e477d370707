"""Every error of this project, drawn once.

TradentError
├── SettingsError        the settings are wrong; the process must not start, or go on (exit 78)
├── FeedError            a feed cannot be read or cannot go on
│   └── UnreadableFile   a file's columns, order or timestamps are not understood
├── IndicatorError       an indicator's name or parameters are not known
├── StrategyError        a strategy's name or parameters are not known
├── JournalFull          the local journal has met its bound; nothing more is accepted
└── StorageError         the database cannot be used as it stands
    └── BackupFileError  the file that was named cannot be written, or is no backup (exit 1)

Errors of model calls hang below TradentError too, in `llm_integration.errors`.
Every message says what is wrong and what to do about it.
"""


class TradentError(Exception):
    """Something this project understands went wrong; the message is meant for a person."""


class SettingsError(TradentError):
    """One or more settings are wrong; `mistakes` holds one line per mistake."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class FeedError(TradentError):
    """A feed cannot be read or cannot go on."""


class UnreadableFile(FeedError):
    """A file's columns, order or timestamps are not understood."""


class IndicatorError(TradentError):
    """An indicator's name or parameters are not known."""


class StrategyError(TradentError):
    """A strategy's name or parameters are not known."""


class JournalFull(TradentError):
    """The local journal has met its bound; nothing more is accepted until it is shipped."""


class StorageError(TradentError):
    """The database cannot be used as it stands."""


class BackupFileError(StorageError):
    """The file that was named cannot be written, or is no backup; the database is as it was."""
