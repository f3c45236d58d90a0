"""Load generators: `python -m tests.bench` measures the whole system over its real wire, and comparable servers too.

Reading order: `__main__` (scenarios and options), `scenarios/`, `jobs/` (what each process does), `fleet` and `worker`
(the processes), `crowd`, `client`, `dialects`, `wire` (the sockets), `marks`, `roomlog`, `counting`, `tally` (checks
and figures), `report`. `bench_market` and `history` are separate programs.
"""
