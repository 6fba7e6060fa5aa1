"""A shop's support desk: one agent, seven tools, a real database. `make demo` tells its story.

Read `desk.py` first: it is all that an application has to write.
"""
