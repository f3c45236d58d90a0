"""All tests.

`unit/` mirrors the packages; `integration/` uses the real broker and database; `e2e/`, `api/` and `browser/` the whole
system; `containers/` runs the image; `security/`, `fuzz/` and `chaos/` attack it; `bench/` and `operations/` measure
and demonstrate it. `support/` is shared by all; `published/` is the published contract.
"""
