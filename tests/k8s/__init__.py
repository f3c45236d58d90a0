"""Both overlays on a real Kubernetes API server: `make k8s-check`.

`server/` pins the Go modules of the API server and etcd, `api_server` builds and runs them, `operator_kinds` describes
the kinds of operators, and `test_apply` applies the overlays.
"""
