"""Fingerpost's HTTP/1.1 server: llhttp reads requests, an aiohttp application answers them.

The worker, the proxy and the embedded registry use it. aiohttp's own server makes two tasks and a
request with all its parts for each image; here a request on a known path goes to its handler with
what was parsed, and only the others become requests of aiohttp.
"""
