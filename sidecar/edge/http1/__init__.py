"""HTTP/1.1 on both sides. Only this package reads and writes its bytes: heads, chunks, CRLF.

`downstream` is one client connection and `listener` what those of a worker share; `upstream` is one connection to an
upstream and `pool` all those to its addresses. `heads` reads and writes the bytes of heads and chunks. The gateway
exchanges heads, bodies, trailers and ends with them (`sidecar.ports`).
"""
