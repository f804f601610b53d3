"""The command line: the program, the list of its commands, and what several of them do.

Each command is a file in `commands`.
"""

PUBLIC = ()
"""What other rooms may import."""
