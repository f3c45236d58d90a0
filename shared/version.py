"""Version of the product: the one source for packages, metrics and documents. Pure."""

VERSION = "0.2.0"
