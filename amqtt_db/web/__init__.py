"""The page: what is stored, what waits and what is wrong, in a browser.

It runs in a process of its own and only reads: the database in read-only sessions, the journal, and the writer's
report.  It needs the extra ``web``.
"""
