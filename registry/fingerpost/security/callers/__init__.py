"""Who asks: keys, certificates and tokens, and the policy that knows whose they are.

Nothing here is tied to HTTP: authenticators take the text of a header and the names in a verified
certificate, so other transports can use them. `fingerpost.registry.access` is the part for HTTP.
"""
