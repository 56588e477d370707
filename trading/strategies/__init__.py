"""One file per strategy; the file's name is the strategy's `type`.

A strategy's file has `Options`, a frozen pydantic model of its settings with `type: Literal["<its name>"]`, and
`Strategy`, built as `Strategy(options)` and satisfying `trading.strategies.base.Strategy`.
"""
