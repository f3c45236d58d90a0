"""Version of the product. Pure.

`VERSION` is the one source for the package, the image, `/healthz`, the metrics and the API documents. The packages of
the clients repeat it, and a test compares them.
"""

VERSION = "0.2.0"
