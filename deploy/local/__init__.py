"""`make run`: the whole system on one machine, supervised.

Reading order: `__main__` (commands), `settings`, `plan` (which programs run), `supervisor` (start, restart, stop),
`process` and `program` (one supervised program), `command` (what a child executes). Then `broker`, `amqp_probe` and
`database` (the private servers), `ports`, `claim` and `leftovers` (exclusive use and clean-up), `console` and
`output_lines` (output), `run_file`, `private_file` and `token` (files that other programs read).
"""
