"""Everything that runs the system.

`local/` runs it on one machine (`make run`); `container/`, `k8s/`, `haproxy/`, `rabbitmq/` and `mongodb/` deploy it;
`prometheus/` and `grafana/` monitor it; `tools/` generates and audits files; `bootstrap.py` prepares a bare machine.
"""
