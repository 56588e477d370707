"""One file per feed; the file's name is the feed's `type`.

A feed's file has `Options`, a frozen pydantic model of its settings with `type: Literal["<its name>"]`, and `Feed`,
built as `Feed(options, clock)` and satisfying `trading.feeds.base.Feed`.
"""
