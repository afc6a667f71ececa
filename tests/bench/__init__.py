"""The benchmark: this relay and others on the same work, in one run, on one machine (`scripts/bench`).

    servers    each contestant in a fresh directory: started, asked for its queue, ended
    load       who submits and who receives: Postfix's smtp-source and smtp-sink, and a client that logs in
    costs      what a server's processes used: processor time, memory, system calls
    works      the works to be measured, each a function from a contestant to a rate
    growth     the same figures as the queue and the number of clients grow
    limits     what this disk and this loopback can do without any relay
    report     medians with their spread, ratios, Markdown and JSON

Absolute figures move from machine to machine, and with whatever else runs on it; contestants take turns, so
the ratios hold. Nothing here is a test: no time is asserted.
"""
