"""``postroom demo``: real servers, real outages, and a check that nothing was lost.

Needs the ``demo`` extra (aiosmtpd, httpx, rich). It talks to nothing but this machine. It begins in
:mod:`postroom.demo.show`.
"""
