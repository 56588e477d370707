"""How files of bars are read: containers, rows, columns, numbers, times; each step in its own file.

`reading.read_file` does all of it. A step that does not understand what it sees raises UnreadableFile, which names
the file, the reason, and the option that would tell it.
"""
