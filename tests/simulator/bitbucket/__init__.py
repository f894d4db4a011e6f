"""Bitbucket Cloud as an OAuth 2.0 client meets it, simulated in memory.

The modules, from the bottom up; arrows point down only:

    exchange   what came in (Call) and what goes out (Answer)
    settings   the knobs tests turn, and the clock
    world      accounts, workspaces, memberships, repositories
    objects    the JSON Bitbucket makes of them
    query      pages, filters, sorting, trimming of lists
    pages      HTML for the browser
    oauth      consumers, codes, tokens; authorize and token endpoints
    browser    who is signed in at the simulator, sign-in and sign-out
    limits     requests per hour
    api        everything under /2.0
    faults     failures on demand
    calls      the log of what clients asked
    control    the JSON interface tests steer all this with
    server     one TCP port in front of it

Facts about Bitbucket carry their source: a page of the vendor's manual, a
CHANGE number of its changelog, or "seen" with the month of a live report.
What nobody has established says so.
"""
