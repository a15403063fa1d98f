"""The web page: the whole job in a browser, for those without desktop Slicer. The only room that knows trame.

`gateway` is the front door (token, one address for everything); behind it each browser tab has a process of its own
(`sessions`, `worker`) with its own scene, so that tabs cannot disturb each other. In a session, `page` says what the page
looks like, `session_page` what its buttons do, and `viewer`, `drawing`, `scans`, `jobs` and `results` each one part of it.
"""
