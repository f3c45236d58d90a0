"""The kinds of the operators, reduced to the fields that the manifests use, after the operators' own definitions.

Each schema is strict: the API server refuses a field that it does not name. Real definitions have more fields.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
QUANTITY: Schema = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
# Checked as part of Kubernetes' own kinds by other tests, or free-form in the operator's definition too.
ANYTHING: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def record(*required: str, **fields: Schema) -> Schema:
    """Return the schema of an object with these fields."""
    schema: Schema = {"type": "object", "properties": fields}
    return schema | ({"required": [*required]} if required else {})


def array(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def one_of(*values: str, default: str | None = None) -> Schema:
    """Return the schema of a closed set of texts."""
    schema: Schema = {"type": "string", "enum": [*values]}
    return schema | ({"default": default} if default is not None else {})


NAME = record("name", name=TEXT)
KEY = record("key", name=TEXT, key=TEXT)
SELECTOR = record(matchLabels=LABELS)
RELABELINGS = array(
    record(
        sourceLabels=array(TEXT),
        targetLabel=TEXT,
        regex=TEXT,
        replacement=TEXT,
        action=one_of("replace", "keep", "drop", "labelmap", default="replace"),
    )
)
ENDPOINT = {"port": TEXT, "interval": TEXT, "relabelings": RELABELINGS}
CLUSTER_REFERENCE = record(name=TEXT, namespace=TEXT)

RABBITMQ_CLUSTER = record(
    replicas=NUMBER | {"default": 1},
    image=TEXT,
    resources=ANYTHING,
    affinity=ANYTHING,
    persistence=record(storageClassName=TEXT, storage=QUANTITY),
    rabbitmq=record(additionalConfig=TEXT, additionalPlugins=array(TEXT)),
    tls=record(secretName=TEXT, caSecretName=TEXT, disableNonTLSListeners=FLAG),
    terminationGracePeriodSeconds=NUMBER | {"default": 604800},
)
USER = record(
    "rabbitmqClusterReference",
    rabbitmqClusterReference=CLUSTER_REFERENCE,
    importCredentialsSecret=NAME,
    tags=array(one_of("management", "policymaker", "monitoring", "administrator")),
)
PERMISSION = record(
    "permissions",
    "rabbitmqClusterReference",
    "vhost",
    rabbitmqClusterReference=CLUSTER_REFERENCE,
    vhost=TEXT,
    user=TEXT,
    userReference=NAME,
    permissions=record(configure=TEXT, write=TEXT, read=TEXT),
)
EXCHANGE = record(
    "name",
    "rabbitmqClusterReference",
    rabbitmqClusterReference=CLUSTER_REFERENCE,
    name=TEXT,
    vhost=TEXT | {"default": "/"},
    type=TEXT | {"default": "direct"},
    durable=FLAG,
    autoDelete=FLAG,
    arguments=ANYTHING,
)
MONGODB_USER = record(
    "name",
    "passwordSecretRef",
    "roles",
    "scramCredentialsSecretName",
    name=TEXT,
    db=TEXT | {"default": "admin"},
    passwordSecretRef=record("name", name=TEXT, key=TEXT),
    scramCredentialsSecretName=TEXT,
    additionalConnectionStringConfig=ANYTHING,
    roles=array(record("db", "name", db=TEXT, name=TEXT)),
)
MONGODB = record(
    "security",
    "type",
    "users",
    "version",
    type=one_of("ReplicaSet"),
    members=NUMBER,
    version=TEXT,
    security=record(
        authentication=record("modes", modes=array(one_of("SCRAM", "SCRAM-SHA-256", "SCRAM-SHA-1", "X509"))),
        tls=record("enabled", enabled=FLAG, certificateKeySecretRef=NAME, caCertificateSecretRef=NAME),
    ),
    prometheus=record("passwordSecretRef", "username", username=TEXT, passwordSecretRef=NAME, port=NUMBER),
    users=array(MONGODB_USER),
    statefulSet=record("spec", spec=ANYTHING),
)
ISSUER = record(selfSigned=record(), ca=record("secretName", secretName=TEXT))
CERTIFICATE = record(
    "issuerRef",
    "secretName",
    secretName=TEXT,
    commonName=TEXT,
    dnsNames=array(TEXT),
    isCA=FLAG,
    duration=TEXT,
    privateKey=record(algorithm=one_of("RSA", "ECDSA", "Ed25519"), size=NUMBER),
    issuerRef=record("name", kind=TEXT, name=TEXT, group=TEXT),
)
POD_MONITOR = record("selector", selector=SELECTOR, podMetricsEndpoints=array(record(**ENDPOINT)))
SERVICE_MONITOR = record(
    "endpoints",
    "selector",
    selector=SELECTOR,
    endpoints=array(record(**ENDPOINT, basicAuth=record(username=KEY, password=KEY))),
)
RULE = record("expr", alert=TEXT, record=TEXT, expr=QUANTITY, labels=LABELS, annotations=LABELS, **{"for": TEXT})
PROMETHEUS_RULE = record(groups=array(record("name", name=TEXT, rules=array(RULE))))

KINDS: tuple[tuple[str, str, str, str, Schema], ...] = (
    ("rabbitmq.com", "v1beta1", "RabbitmqCluster", "rabbitmqclusters", RABBITMQ_CLUSTER),
    ("rabbitmq.com", "v1beta1", "User", "users", USER),
    ("rabbitmq.com", "v1beta1", "Permission", "permissions", PERMISSION),
    ("rabbitmq.com", "v1beta1", "Exchange", "exchanges", EXCHANGE),
    ("mongodbcommunity.mongodb.com", "v1", "MongoDBCommunity", "mongodbcommunity", MONGODB),
    ("cert-manager.io", "v1", "Issuer", "issuers", ISSUER),
    ("cert-manager.io", "v1", "Certificate", "certificates", CERTIFICATE),
    ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors", POD_MONITOR),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors", SERVICE_MONITOR),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules", PROMETHEUS_RULE),
)


def definitions() -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions."""
    return [definition(*kind) for kind in KINDS]


def definition(group: str, version: str, kind: str, plural: str, spec: Schema) -> dict[str, Any]:
    """Return the definition of a kind."""
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}, "required": ["spec"]}},
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }
